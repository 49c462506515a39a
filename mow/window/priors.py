"""Priors to draw samples from, for distances to other distributions than N(0, I) in closed form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Prior:
    """A distribution on R^D from which samples are drawn, afresh at each step."""

    generator: torch.Generator | None = None
    """What to draw from; None for PyTorch's default generator."""

    def sample(self, m: int, like: Tensor) -> Tensor:
        """m rows of the width, dtype and device of like [k, D] -> [m, D]."""
        raise NotImplementedError

    def kernel_scale(self, dim: int) -> float:
        """By what the kernel constants C = 2Ds of N(0, I) are multiplied for this prior."""
        raise NotImplementedError

    def _draw(self, m: int, like: Tensor, draw: Callable[..., Tensor] = torch.randn) -> Tensor:
        device = like.device if self.generator is None else self.generator.device
        return draw(m, like.shape[1], dtype=torch.float32, device=device, generator=self.generator).to(like)


class Normal(Prior):
    """N(0, I), sampled: what the paper does; the closed form, prior="normal", has no sampling noise."""

    def sample(self, m: int, like: Tensor) -> Tensor:
        return self._draw(m, like)

    def kernel_scale(self, dim: int) -> float:
        return 1.0


class Uniform(Prior):
    """Uniform on [-1, 1]^D. Kernel constants C = Ds, as in the WAE code."""

    def sample(self, m: int, like: Tensor) -> Tensor:
        return 2 * self._draw(m, like, torch.rand) - 1

    def kernel_scale(self, dim: int) -> float:
        return 1 / 2


class Sphere(Prior):
    """Uniform on the unit sphere. Kernel constants C = 2s, as in the WAE code."""

    def sample(self, m: int, like: Tensor) -> Tensor:
        return torch.nn.functional.normalize(self._draw(m, like), dim=1)

    def kernel_scale(self, dim: int) -> float:
        return 1 / dim


PRIORS = {"normal-sample": Normal, "uniform": Uniform, "sphere": Sphere}
"""The sampled priors by name; "normal" is N(0, I) in closed form."""


def named(prior: str | Prior) -> str | Prior:
    """A prior from its name; "normal" stays, and stands for the closed form.

    Raises:
        TypeError, ValueError: neither a name nor a Prior.
    """
    if isinstance(prior, Prior) or prior == "normal":
        return prior
    if not isinstance(prior, str):
        raise TypeError(f"prior is {type(prior).__name__}; it must be a name or a mow.priors.Prior")
    if prior not in PRIORS:
        raise ValueError(f"prior is {prior!r}; it must be one of 'normal', {', '.join(map(repr, PRIORS))}")
    return PRIORS[prior]()


def sample(prior: str | Prior, m: int, like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """m rows from a prior, "normal" included, e.g. to decode into new pictures. like [k, D] -> [m, D]."""
    found = named(prior)
    kind = Normal if isinstance(found, str) else type(found)
    return kind(generator).sample(m, like)
