"""torchmetrics' kernel inception distance on mow_kernels: no matrix of kernel values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics.image import kid

import mow_kernels as mk
from mow.adapters.both import both


def poly_mmd(f_real: Tensor, f_fake: Tensor, degree: int = 3, gamma: float | None = None, coef: float = 1.0) -> Tensor:
    """The unbiased squared MMD with the kernel (gamma x.y + coef)^degree: stands in for
    `torchmetrics.image.kid.poly_mmd`.

        >>> from mow.adapters.torchmetrics import poly_mmd
        >>> value = poly_mmd(history, z)        # torchmetrics' number

    Args:
        f_real, f_fake: features [n, D] and [m, D]; each receives a gradient if it requires one. There n = m.
        degree: an integer >= 1.
        gamma: > 0; None for 1/D.
        coef: any number.

    Returns:
        0-d.

    Raises:
        TypeError, ValueError: what `mow_kernels.mmd` raises.
    """
    return both(mk.mmd, f_real, f_fake, kernel="polynomial", degree=degree, gamma=gamma, coef0=coef)


class KernelInceptionDistance(kid.KernelInceptionDistance):
    """torchmetrics' metric, its features and its arguments, with the distance of each subset by `poly_mmd`.

        >>> from mow.adapters.torchmetrics import KernelInceptionDistance
        >>> features = nn.Sequential(nn.Flatten(), nn.LazyLinear(8))
        >>> metric = KernelInceptionDistance(feature=features, subsets=10, subset_size=1000)

    `compute` draws the subsets that torchmetrics draws, from PyTorch's default generator, and returns the mean and the
    standard deviation over them.
    """

    def compute(self) -> tuple[Tensor, Tensor]:
        """KID of the features so far, and its standard deviation over the subsets.

        Raises:
            ValueError: there are fewer features of a kind than a subset takes.
        """
        features: list[Tensor] = [torch.cat(list(rows)) for rows in (self.real_features, self.fake_features)]
        for name, rows in zip(("real", "fake"), features, strict=True):
            if len(rows) < self.subset_size:
                raise ValueError(
                    f"subset_size is {self.subset_size}; it must be at most the {len(rows)} {name} samples there are"
                )
        options: dict[str, Any] = {"degree": self.degree, "gamma": self.gamma, "coef": self.coef}
        values = []
        for _ in range(self.subsets):
            real, fake = (rows[torch.randperm(len(rows))[: self.subset_size]] for rows in features)
            values.append(poly_mmd(real, fake, **options))
        drawn = torch.stack(values)
        return drawn.mean(), drawn.std(unbiased=False)
