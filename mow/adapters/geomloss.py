"""GeomLoss's call, `SamplesLoss(...)(x, y)`, for the distances of mow_kernels: no N x M matrix, no KeOps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow.adapters.both import both
from mow.checks import expect, number

LOSSES = ("gaussian", "laplacian", "energy", "imq", "cramer_wold", "sliced_wasserstein")


class SamplesLoss(nn.Module):
    """A distance between two samples of equal weights, with a gradient to both: stands in for `geomloss.SamplesLoss`.

        >>> from mow.adapters.geomloss import SamplesLoss
        >>> loss = SamplesLoss("gaussian", blur=0.5)(z, history)

    | loss | value |
    |---|---|
    | "gaussian" | GeomLoss's own: half the biased squared MMD with exp(-r/(2 blur^2)), r the squared distance |
    | "laplacian" | GeomLoss's: the same with exp(-sqrt(r)/blur) |
    | "energy" | GeomLoss's: the same with -sqrt(r), half the biased energy distance |
    | "imq" | half the biased squared MMD with the WAE's seven kernels, their scales times blur^2 |
    | "cramer_wold" | `mow_kernels.cramer_wold` |
    | "sliced_wasserstein" | `mow_kernels.sliced_wasserstein` with this p and 50 directions, drawn at each call |

    GeomLoss's backend "tensorized" takes every distance for at least 1e-4, also that of a row to itself, so that its
    "energy" lies by 1e-4 (1/N + 1/M)/2 below the energy distance, and "laplacian", of distances over blur, likewise.

    The gradient to the second sample costs a second call. `mow_kernels.use_backend` chooses what computes it.

    Args:
        loss: see above; it has to be given, since GeomLoss's default, "sinkhorn", is none of them; "hausdorff" is
            refused as well.
        p: the power of "sliced_wasserstein", >= 1; without effect on the others, as there.
        blur: standard deviation of the kernel, > 0; without effect where there is none.
        reach, diameter, scaling, truncate, cost, cluster_scale, debias, verbose, backend: GeomLoss's, in its order.
            They steer its Sinkhorn loops and its backends, and are without effect on a kernel's loss, as there.
        kernel, potentials: None and False; a kernel of one's own and the potentials are refused.

    Raises:
        ValueError: a loss that is not in the table, a bad blur, a kernel or potentials.
    """

    def __init__(
        self,
        loss: str = "sinkhorn",
        p: float = 2,
        blur: float = 0.05,
        reach: float | None = None,
        diameter: float | None = None,
        scaling: float = 0.5,
        truncate: float = 5,
        cost: Any = None,
        kernel: None = None,
        cluster_scale: float | None = None,
        debias: bool = True,
        potentials: bool = False,
        verbose: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        if loss not in LOSSES:
            raise ValueError(f"loss is {loss!r}; it must be one of {', '.join(map(repr, LOSSES))}")
        blur = number("blur", blur, above=0)
        if kernel is not None:
            raise ValueError(f"kernel is {kernel!r}; it must be None: the loss names the kernel")
        if potentials:
            raise ValueError(f"potentials is {potentials!r}; it must be False: there is the value alone")
        self.loss, self.p, self.blur = loss, p, blur

    def forward(self, *samples: Tensor) -> Tensor:
        """The distance of x [N, D] to y [M, D], 0-d; of x [B, N, D] to y [B, M, D], [B].

        Raises:
            ValueError: weights or labels, GeomLoss's four or six arguments; samples of other shapes; and what
                mow_kernels raises.
        """
        if len(samples) != 2:
            raise ValueError(f"there are {len(samples)} arguments; they must be x and y, without weights or labels")
        x, y = samples
        for name, sample in (("x", x), ("y", y)):
            expect(isinstance(sample, Tensor), name, sample, "a tensor")
        if x.dim() != y.dim() or x.dim() not in (2, 3) or (x.dim() == 3 and len(x) != len(y)):
            shapes = f"x has shape {list(x.shape)} and y {list(y.shape)}"
            raise ValueError(f"{shapes}; they must be [N, D] and [M, D], or [B, N, D] and [B, M, D]")
        if x.dim() == 2:
            return self._distance(x, y)
        return torch.stack([self._distance(one, other) for one, other in zip(x, y, strict=True)])

    def extra_repr(self) -> str:
        return f"{self.loss!r}, p={self.p}, blur={self.blur}"

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        """The distance of x [N, D] to y [M, D], with options under which it is symmetric."""
        if self.loss == "cramer_wold":
            return both(mk.cramer_wold, x, y, gamma=(4 / (3 * len(x))) ** 0.4)
        if self.loss == "sliced_wasserstein":
            return both(mk.sliced_wasserstein, x, y, directions=mk.draw_directions(x, 50), p=self.p)
        scales = {
            "gaussian": [self.blur**2 / x.shape[1]],
            "laplacian": [self.blur],
            "energy": [],
            "imq": [self.blur**2 * scale for scale in mk.SCALES],
        }
        return both(mk.mmd, x, y, kernel=self.loss, scales=scales[self.loss], estimator="biased") / 2
