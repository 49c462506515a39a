"""POT's call, `sliced_wasserstein_distance(X_s, X_t, ...)`, on mow_kernels."""

from __future__ import annotations

import torch
from torch import Tensor

import mow_kernels as mk
from mow.adapters.both import both


def sliced_wasserstein_distance(
    X_s: Tensor,
    X_t: Tensor,
    a: None = None,
    b: None = None,
    n_projections: int = 50,
    p: float = 2,
    projections: Tensor | None = None,
    seed: int | None = None,
) -> Tensor:
    """The p-sliced Wasserstein distance of two samples of equal weights: stands in for
    `ot.sliced_wasserstein_distance` on tensors.

    Args:
        X_s, X_t: [n, D] and [m, D]; each receives a gradient if it requires one, by a call a side.
        a, b: None: the rows of a sample weigh the same.
        n_projections: how many directions to draw.
        p: the power, >= 1.
        projections: [D, L], used as they are instead of drawn ones.
        seed: of the draw; float32 samples on the CPU get the directions that POT draws from it.

    Returns:
        0-d, (mean over the directions of W_p^p)^(1/p). As with POT, equal samples have no gradient there (NaN).

    Raises:
        TypeError, ValueError: no tensor [rows, D]; weights; and what `mow_kernels.sliced_wasserstein` raises.
    """
    if not (a is None and b is None):
        raise ValueError("a or b is given; they must be None: the rows of a sample weigh the same")
    for name, sample in (("X_s", X_s), ("X_t", X_t)):
        if not isinstance(sample, Tensor) or sample.dim() != 2:
            was = f"has shape {list(sample.shape)}" if isinstance(sample, Tensor) else f"is {type(sample).__name__}"
            raise TypeError(f"{name} {was}; it must be a tensor [rows, D]")
    if projections is None:
        generator = None if seed is None else torch.Generator(X_s.device).manual_seed(seed)
        device = X_s.device
        drawn = torch.randn(X_s.shape[1], n_projections, device=device, generator=generator)
        projections = torch.nn.functional.normalize(drawn, dim=0).to(X_s.dtype)

    def power(x: Tensor, y: Tensor) -> Tensor:
        return mk.sliced_wasserstein(x, None, y, directions=projections, p=p)

    return both(power, X_s, X_t) ** (1 / p)
