"""Priors to draw samples from, afresh at each step or by a window of their own that moves along.

>>> distance = mow.MMD(mow.priors.Uniform())        # also "uniform"
>>> distance(z, window).backward()
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mow.window.window import MovingWindow


@dataclass(frozen=True)
class Prior:
    """A distribution on R^D from which samples are drawn, afresh at each step."""

    generator: torch.Generator | None = field(default=None, repr=False)
    """What to draw from; None for PyTorch's default generator."""

    def sample(self, m: int, like: Tensor) -> Tensor:
        """m rows of the width, dtype and device of like [k, D] -> [m, D]."""
        raise NotImplementedError

    def kernel_scale(self, dim: int) -> float:
        """The factor by which the kernel constants C = 2Ds of N(0, I) are multiplied for this prior."""
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


def generators_of(owner: Any) -> Iterator[torch.Generator]:
    """What a distance, its prior, and the prior of a window of those draw from, beside PyTorch's default generator."""
    while owner is not None:
        generator = getattr(owner, "generator", None)
        if generator is not None:
            yield generator
        owner = getattr(owner, "prior", None)


def seeded(prior: str | Prior | PriorWindow, m: int, like: Tensor, seed: int) -> Tensor:
    """m rows from a prior of any kind, by the seed alone; what the prior draws from stays where it is. -> [m, D]"""
    found = copy.deepcopy(prior.prior if isinstance(prior, PriorWindow) else named(prior))
    devices = [like.device] if like.is_cuda else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        for generator in generators_of(found):
            generator.manual_seed(seed)
        return (Normal() if isinstance(found, str) else found).sample(m, like)


class PriorWindow(MovingWindow):
    """The newest n rows drawn from a prior, in place of a sample drawn afresh at each step.

        >>> distance = mow.MMD(mow.PriorWindow(n=4096, dim=64, prior="uniform"))

    A measurement over [history; z] draws as many new rows as z has, and compares with them and the newest of those
    drawn before, as many rows in all as the window has. At every single step that is a sample of the prior like a fresh
    one: independent rows of the same law. Over the steps it is not: two samples j steps apart share n - jk rows, as do
    the windows that they are compared with. What a sample has too much of by chance lasts for n/k steps, and averages
    out only over many times as many. In return the running sums of the window know all pairs but those of new rows: a
    step with its full value takes O(k n D) in place of O(n^2 D) (docs/running-sums.md).

    Its rows are part of the state_dict of the distance that it belongs to.

    Args:
        n: at least the n of the windows that are measured, >= 1.
        dim: latent width D, >= 1.
        prior: "normal-sample", "uniform", "sphere" or a `mow.priors.Prior`.
        dtype, device: of the latents that are compared with it; PyTorch's defaults.

    Raises:
        ValueError, TypeError: a bad argument, by name; "normal", which is no sample.
    """

    def __init__(
        self,
        n: int,
        dim: int,
        prior: str | Prior = "normal-sample",
        *,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(n, dim, dtype=dtype, device=device)
        drawn = named(prior)
        if isinstance(drawn, str):
            raise ValueError("prior is 'normal', the closed form; a window of its rows needs 'normal-sample'")
        self.prior = drawn
        self.fill(drawn.sample(n, self.latents))

    def advance(self, k: int) -> Tensor:
        """Draw k new rows [k, dim], k >= 1, which take the place of the oldest."""
        fresh = self.prior.sample(k, self.latents)
        self.push(fresh)
        return fresh

    def newest(self, rows: int) -> Tensor:
        """The newest rows [rows, dim], oldest first.

        Raises:
            ValueError: there are not so many.
        """
        if rows > self.n:
            raise ValueError(f"prior has n = {self.n}; to be compared with {rows} rows it must have as many")
        return self._newest(rows)

    def extra_repr(self) -> str:
        return f"n={self.n}, dim={self.dim}, prior={self.prior!r}"

    def kernel_scale(self, dim: int) -> float:
        """The factor of the prior, see `mow.priors.Prior`."""
        return self.prior.kernel_scale(dim)
