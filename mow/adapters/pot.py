"""POT's call, `sliced_wasserstein_distance(X_s, X_t, ...)`, on mow_kernels."""

from __future__ import annotations

import operator

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
    seed: int | torch.Generator | None = None,
    log: bool = False,
    scaler: None = None,
) -> Tensor:
    """The p-sliced Wasserstein distance of two samples of equal weights: stands in for
    `ot.sliced_wasserstein_distance` on tensors.

        >>> from mow.adapters.pot import sliced_wasserstein_distance
        >>> loss = sliced_wasserstein_distance(z, history, n_projections=100, seed=0)        # POT's number

    Args:
        X_s, X_t: [n, D] and [m, D]; each receives a gradient if it requires one, by a call a side.
        a, b: None: the rows of a sample weigh the same.
        n_projections: how many directions to draw.
        p: the power, >= 1.
        projections: [D, L], used as they are instead of drawn ones.
        seed: of the draw, an integer or a torch.Generator: the directions are those that POT draws from it.
        log: False: the distance of each projection is not told.
        scaler: None: samples are to be scaled beforehand.

    Returns:
        0-d, (mean over the directions of W_p^p)^(1/p). As with POT, equal samples have no gradient there (NaN).

    Raises:
        TypeError, ValueError: no tensor [rows, D]; weights, a log or a scaler; a seed of another kind; and what
            `mow_kernels.sliced_wasserstein` raises.
    """
    if not (a is None and b is None):
        raise ValueError("a or b is given; they must be None: the rows of a sample weigh the same")
    if log:
        raise ValueError(f"log is {log!r}; it must be False: there is the distance alone")
    if scaler is not None:
        raise ValueError(f"scaler is {scaler!r}; it must be None: scale X_s and X_t beforehand")
    for name, sample in (("X_s", X_s), ("X_t", X_t)):
        if not isinstance(sample, Tensor) or sample.dim() != 2:
            was = f"has shape {list(sample.shape)}" if isinstance(sample, Tensor) else f"is {type(sample).__name__}"
            raise TypeError(f"{name} {was}; it must be a tensor [rows, D]")
    if projections is None:
        projections = _drawn(X_s, n_projections, _generator(seed, X_s.device))
    return both(mk.sliced_wasserstein, X_s, X_t, directions=projections, p=p) ** (1 / p)


def _drawn(like: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    """Unit directions [D, count] as POT draws them, in the samples' own type: `mow_kernels.draw_directions` draws in
    float32 whatever they are, which gives other numbers in float64."""
    drawn = torch.randn(like.shape[1], count, dtype=like.dtype, device=like.device, generator=generator)
    return torch.nn.functional.normalize(drawn, dim=0)


def _generator(seed: int | torch.Generator | None, device: torch.device) -> torch.Generator | None:
    if seed is None or isinstance(seed, torch.Generator):
        return seed
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"seed is {seed!r}; it must be an integer, a torch.Generator or None") from None
    return torch.Generator(device).manual_seed(number)
