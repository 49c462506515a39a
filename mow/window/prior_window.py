"""A sampled prior that moves along with the window: k new rows a step in place of n."""

from __future__ import annotations

import torch
from torch import Tensor

from mow.window import priors
from mow.window.priors import Prior
from mow.window.window import MovingWindow


class PriorWindow(MovingWindow):
    """The newest n rows drawn from a prior, in place of a sample drawn afresh at each step.

        distance = mow.MMD(mow.PriorWindow(n=4096, dim=64, prior="uniform"))

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
        named = priors.named(prior)
        if isinstance(named, str):
            raise ValueError("prior is 'normal', the closed form; a window of its rows needs 'normal-sample'")
        self.prior = named
        self.fill(named.sample(n, self.latents))

    def advance(self, k: int) -> Tensor:
        """Draw k new rows [k, dim], which take the place of the oldest."""
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

    def kernel_scale(self, dim: int) -> float:
        """That of the prior, see `mow.priors.Prior`."""
        return self.prior.kernel_scale(dim)
