"""Which samples to take: batches that cover what they were drawn from (core-sets).

Draw more than needed, keep the greedy k-centres: the batch has fewer near-duplicates and reaches rarer samples than one
that is drawn at random, at the price of the data's frequencies. Features stand for pictures, whose own pixels are too
many to compare:

    features = mow.random_projection(pictures, 32)                          # once
    loader = DataLoader(dataset, batch_sampler=mow.CoresetSampler(features, batch_size=64))
    prior = CoresetPrior(prior=mow.priors.Normal(), factor=4)               # the other side of a GAN

Source: Sinha et al., "Small-GAN: Speeding up GAN Training using Core-Sets", ICML 2020.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Sampler

import mow_kernels as mk
from mow.checks import positive
from mow.naming import named
from mow.training.stream import as_tensor, to_unit_range
from mow.window.priors import Normal, Prior

_CHUNK = 2**24  # numbers of x that are held as floating point at once


def random_projection(x: Tensor, dim: int = 32, *, generator: torch.Generator | None = None) -> Tensor:
    """Gaussian random projection, which keeps distances: with probability 1 - delta all |Px_i - Px_j|^2 are within
    1 +- eps of |x_i - x_j|^2 where dim >= (4 ln N + 2 ln 1/delta) / (eps^2/2 - eps^3/3).

        >>> features = mow.random_projection(pictures, 4)        # [N, 4]

    Args:
        x: [N, ...], floating point, or uint8 pictures (scaled to [0, 1]); flattened to [N, D].
        dim: d, the columns of the result, >= 1.
        generator: what the matrix [D, d] with entries N(0, 1/d) is drawn from, in float32 on the generator's device;
            None for PyTorch's default generator of x's device. The same seed gives the same matrix, for further data.

    Returns:
        [N, d], float32 for uint8, else of x's dtype.

    Raises:
        TypeError: x is neither floating point nor uint8, or dim no integer.
        ValueError: x has no rows or no columns, or dim < 1.

    Source: Johnson and Lindenstrauss 1984; the bound from Dasgupta and Gupta, "An Elementary Proof of a Theorem of
    Johnson and Lindenstrauss", 2003.
    """
    x = as_tensor("x", x)
    if not (x.is_floating_point() or x.dtype == torch.uint8):
        raise TypeError(f"x is {_kind(x)}; it must be a floating-point or uint8 tensor [N, ...]")
    if x.dim() < 2 or x.numel() == 0:
        raise ValueError(f"x has shape {list(x.shape)}; it must be [N, ...] with rows and columns")
    dim = positive("dim", dim)
    columns = x[0].numel()
    device = x.device if generator is None else generator.device
    matrix = torch.randn(columns, dim, generator=generator, device=device) / dim**0.5
    matrix = matrix.to(x.device, x.dtype if x.is_floating_point() else torch.float32)
    return torch.cat([to_unit_range(rows.flatten(1)) @ matrix for rows in x.split(max(1, _CHUNK // columns))])


class CoresetSampler(Sampler[list[int]]):
    """Batches of indices for `DataLoader(batch_sampler=...)`: core-sets of `factor` times as many candidates.

        >>> sampler = mow.CoresetSampler(mow.random_projection(pictures, 4), batch_size=8)
        >>> loader = DataLoader(pictures, batch_sampler=sampler)

    Candidates come from shuffled passes over the data; an epoch has as many batches as plain sampling without the
    last, smaller one.

    Args:
        features: [N, D], cached once, row i for sample i of the data set, e.g. a `random_projection` of the pictures or
            of a network's activations.
        batch_size: k, the samples of a batch, 1 <= k <= N.
        factor: f_x, candidates for each place in the batch, >= 1 (1 is plain sampling); at most all N are candidates.
        generator: of the order and of each batch's first sample, on the CPU; None for PyTorch's default generator.

    Raises:
        TypeError, ValueError: a bad argument, by name.
    """

    def __init__(
        self, features: Tensor, batch_size: int, *, factor: int = 8, generator: torch.Generator | None = None
    ) -> None:
        features = as_tensor("features", features)
        if not features.is_floating_point():
            raise TypeError(f"features is {_kind(features)}; it must be a floating-point tensor [N, D]")
        if features.dim() != 2 or features.numel() == 0:
            raise ValueError(f"features has shape {list(features.shape)}; it must be [N, D] with rows and columns")
        if not features.isfinite().all():  # once, where the row has its number in the data set
            row = int((~features.isfinite().all(1)).nonzero()[0, 0])
            raise ValueError(f"features[{row}] holds NaN or infinite values; rows must be finite")
        batch_size, factor = positive("batch_size", batch_size), positive("factor", factor)
        if batch_size > len(features):
            raise ValueError(f"batch_size is {batch_size}; it must be at most the rows of features, {len(features)}")
        self.features, self.batch_size, self.factor, self.generator = features, batch_size, factor, generator

    def __repr__(self) -> str:
        return named(self, features=self.features, batch_size=self.batch_size, factor=self.factor)

    def __len__(self) -> int:
        return len(self.features) // self.batch_size

    def __iter__(self) -> Iterator[list[int]]:
        count = min(self.factor * self.batch_size, len(self.features))
        order = torch.empty(0, dtype=torch.int64)
        for _ in range(len(self)):
            if len(order) < count:
                order = torch.randperm(len(self.features), generator=self.generator)
            candidates, order = order[:count], order[count:]
            rows = self.features[candidates.to(self.features.device)]
            kept = mk.k_center(rows, self.batch_size, generator=self.generator).indices
            yield candidates[kept.cpu()].tolist()


@dataclass(frozen=True, kw_only=True)
class CoresetPrior(Prior):
    """The prior side: draws `factor` m rows of another prior and keeps the m that cover them.

        >>> from mow.neighbours.coreset import CoresetPrior
        >>> distance = mow.MMD(CoresetPrior(prior=mow.priors.Normal(), factor=4))
        >>> distance(z, window).backward()

    The first to be kept is drawn from `generator`, the rows from the other prior's own.

    Raises:
        TypeError, ValueError: a bad argument, by name.
    """

    prior: Prior = field(default_factory=Normal)
    factor: int = 4
    """f_z, >= 1."""

    def __post_init__(self) -> None:
        if not isinstance(self.prior, Prior):
            raise TypeError(f"prior is {self.prior!r}; it must be a mow.priors.Prior")
        object.__setattr__(self, "factor", positive("factor", self.factor))  # the dataclass is frozen

    def sample(self, m: int, like: Tensor) -> Tensor:
        drawn = self.prior.sample(self.factor * m, like)
        return drawn[mk.k_center(drawn, m, generator=self.generator).indices]

    def kernel_scale(self, dim: int) -> float:
        return self.prior.kernel_scale(dim)


def _kind(value: object) -> str:
    return str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
