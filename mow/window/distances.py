"""The distances as modules over the window: mow.MMD, mow.CramerWold, mow.SlicedWasserstein."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow.checks import positive
from mow.window import priors
from mow.window.kept import Running, Samples
from mow.window.prior_window import PriorWindow
from mow.window.priors import Prior
from mow.window.window import MovingWindow

LOG_FLOOR = 1e-3
"""eps: `log=True` is the logarithm above it and the logarithm's tangent at it below."""


class Distance(nn.Module):
    """A distance between the latents of the window and a prior: `loss = distance(z, window)`.

    Args:
        prior: "normal" for N(0, I) in closed form; "normal-sample", "uniform", "sphere" or a `mow.priors.Prior` for a
            sample of n rows drawn afresh at each call; a `mow.PriorWindow` for a sample that moves along.
        log: return log F above eps = 1e-3 and its tangent log eps + (F - eps)/eps below, so that a distance of zero or
            an unbiased MMD below zero stays finite, as does its gradient.
    """

    def __init__(self, prior: str | Prior | PriorWindow = "normal", *, log: bool = False) -> None:
        super().__init__()
        self.prior = prior if isinstance(prior, PriorWindow) else priors.named(prior)
        self.log = log

    def forward(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        """The distance, or its logarithm, over [history; z].

        Args:
            z: [k, D], the new latents, which receive the gradient.
            window: the history: a window (its newest n-k rows), a tensor [h, D], or None for z alone.

        Returns:
            0-d.

        Raises:
            ValueError: z is no [k, D], or has more rows than the window holds (k > n); and what mow_kernels raises.
        """
        return self.transform(self.measure(z, window))

    def measure(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        """The bare distance F over [history; z], without the logarithm; arguments as for `forward`."""
        _check(z, window)
        return self._distance(z, *self._samples(z, window))

    def gradient(
        self, z: Tensor, window: MovingWindow | Tensor | None = None, *, measure: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of `forward` for z, without a graph, and with `measure` the bare distance F; arguments as there.

        The same bits with and without `measure`, and as by autograd.

        Returns:
            [k, D] of z's dtype, and 0-d or None.
        """
        g_z, distance = self._gradient(z, window, measure or self.log)
        if self.log:
            assert distance is not None
            g_z = g_z * self._slope(distance)
        return g_z, distance if measure else None

    def transform(self, value: Tensor) -> Tensor:
        """F -> F, or with `log` its logarithm continued by the tangent below eps."""
        if not self.log:
            return value
        above = value.clamp(min=LOG_FLOOR).log()
        below = math.log(LOG_FLOOR) + (value - LOG_FLOOR) / LOG_FLOOR
        return torch.where(value > LOG_FLOOR, above, below)

    def _slope(self, value: Tensor) -> Tensor:
        """The derivative of the logarithm with its tangent."""
        return value.clamp(min=LOG_FLOOR).reciprocal()

    def _samples(self, z: Tensor, window: MovingWindow | Tensor | None) -> tuple[Tensor | None, Tensor | str]:
        """The history and the prior that z is measured with."""
        history = window.history(z.shape[0]) if isinstance(window, MovingWindow) else window
        if isinstance(self.prior, str):
            return history, self.prior
        n = len(z) + (0 if history is None else len(history))
        if isinstance(self.prior, PriorWindow):
            self.prior.advance(len(z))
            return history, self.prior.newest(max(2, n))
        return history, self.prior.sample(max(2, window.n if isinstance(window, MovingWindow) else n), z)

    def _distance(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
        """F over [history; z] against the prior: what a distance is."""
        raise NotImplementedError

    def _gradient(self, z: Tensor, window: MovingWindow | Tensor | None, measure: bool) -> tuple[Tensor, Tensor | None]:
        """The gradient of F for z, and F where `measure` asks for it."""
        return self._by_autograd(z, lambda z: self.measure(z, window))

    @staticmethod
    def _by_autograd(z: Tensor, distance: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            value = distance(z)
            (g_z,) = torch.autograd.grad(value, z)
        return g_z, value.detach()


class KernelDistance(Distance):
    """A distance of `mow_kernels`, from the window's running sums where there are any (docs/running-sums.md)."""

    def __init_subclass__(cls, **options: Any) -> None:
        """A subclass that measures in its own way has the gradient of that, not of what it inherits."""
        super().__init_subclass__(**options)
        if vars(cls).keys() & {"measure", "_distance"} and not vars(cls).keys() & {"_gradient", "_gradient_alone"}:
            cls._gradient = Distance._gradient  # type: ignore[method-assign]  # by autograd

    _function: Callable[..., Tensor]
    """Of `mow_kernels`."""

    def _options(self, z: Tensor, rows: int | None = None) -> dict[str, Any]:
        """Of the function; with what depends on the number of rows as a number where `rows` says how many there are."""
        raise NotImplementedError

    def measure(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        _check(z, window)
        if isinstance(window, MovingWindow) and not window.is_small and (sums := self._running(z, window)) is not None:
            return sums.distance(z, samples=self._samples_again(len(z), window))
        return self._distance(z, *self._samples(z, window))

    def _distance(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
        return self._function(z, history, prior, **self._options(z))

    def _gradient(self, z: Tensor, window: MovingWindow | Tensor | None, measure: bool) -> tuple[Tensor, Tensor | None]:
        _check(z, window)
        if isinstance(window, MovingWindow) and not window.is_small and (sums := self._running(z, window)) is not None:
            return sums.gradient(z)
        return self._gradient_alone(z, *self._samples(z, window), measure)

    def _gradient_alone(
        self, z: Tensor, history: Tensor | None, prior: Tensor | str, measure: bool
    ) -> tuple[Tensor, Tensor | None]:
        return mk.gradient(self._function, z, history, prior, measure=measure, **self._options(z))

    def explain(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> str:
        """Which backend would measure this, and whether from the window's running sums; arguments as for `forward`."""
        history = window.history(len(z)) if isinstance(window, MovingWindow) else window
        prior = self.prior if isinstance(self.prior, str) else z.detach().new_empty(max(2, len(z)), z.shape[1])
        text = str(mk.explain(self._function, z, history, prior, **self._options(z)))
        if not isinstance(window, MovingWindow):
            return text
        if isinstance(self.prior, Prior):
            reason: str | None = "the prior is sampled afresh at each step (a mow.PriorWindow is not)"
        else:
            reason = window.why_not_running(self._function, z.dtype, **self._running_options(z, window))
        return text + ("\n  from running sums" if reason is None else f"\n  not from running sums: {reason}")

    def _running(self, z: Tensor, window: MovingWindow) -> Running | None:
        """The running sums of a window that is not small for this distance, if there are any."""
        if isinstance(self.prior, Prior):
            return None
        return window.running(self._function, z.dtype, **self._running_options(z, window))

    def _running_options(self, z: Tensor, window: MovingWindow) -> dict[str, Any]:
        prior = None if isinstance(self.prior, str) else self.prior
        return {"prior": prior, **self._options(z, len(z) + min(len(window), window.n - len(z)))}

    def _samples_again(self, k: int, window: MovingWindow) -> Samples:
        """What a measurement of k rows over a window has just compared them with."""

        def samples() -> tuple[Tensor, Tensor | None]:
            history = window.history(k)
            return history, self.prior.newest(len(history) + k) if isinstance(self.prior, PriorWindow) else None

        return samples


def _check(z: object, window: MovingWindow | Tensor | None) -> None:
    if not isinstance(z, Tensor) or z.dim() != 2 or z.numel() == 0:
        was = f"has shape {list(z.shape)}" if isinstance(z, Tensor) else f"is {type(z).__name__}"
        raise ValueError(f"z {was}; it must be a tensor [k, D] with k >= 1 and D >= 1")
    if isinstance(window, MovingWindow) and z.shape[0] > window.n:
        raise ValueError(f"z has {len(z)} rows and the window n = {window.n}; it must have k <= n")


class MMD(KernelDistance):
    """`mow_kernels.mmd` over a window (WAE-MMD, Tolstikhin et al. 2018).

    Args:
        prior, log: as for `Distance`.
        kernel: "imq" or "gaussian".
        scales: of the kernels; None for the seven of the WAE, fitted to the prior's variance.
        estimator: "unbiased" or "biased". Where a growing window holds a single row, the unbiased mean over the pairs
            within it is empty and counts as 0.
    """

    def __init__(
        self,
        prior: str | Prior | PriorWindow = "normal",
        *,
        kernel: str = "imq",
        scales: Sequence[float] | None = None,
        estimator: str = "unbiased",
        log: bool = False,
    ) -> None:
        super().__init__(prior, log=log)
        self.kernel, self.scales, self.estimator = kernel, scales, estimator

    _function = staticmethod(mk.mmd)

    def _options(self, z: Tensor, rows: int | None = None) -> dict[str, Any]:
        return {"kernel": self.kernel, "scales": self._scales(z.shape[1]), "estimator": self.estimator}

    def _distance(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
        options = self._options(z)
        if self._is_alone(z, history):
            # The row standing twice has the mean k(z, z) = len(scales) within the window and all else unchanged.
            return mk.mmd(z.expand(2, -1), None, prior, **options) - len(options["scales"])
        return mk.mmd(z, history, prior, **options)

    def _gradient_alone(
        self, z: Tensor, history: Tensor | None, prior: Tensor | str, measure: bool
    ) -> tuple[Tensor, Tensor | None]:
        if self._is_alone(z, history):
            return self._by_autograd(z, lambda z: self._distance(z, history, prior))
        return super()._gradient_alone(z, history, prior, measure)

    def _is_alone(self, z: Tensor, history: Tensor | None) -> bool:
        """Whether there are no pairs of rows for an estimator that wants some."""
        return self.estimator == "unbiased" and len(z) + (0 if history is None else len(history)) == 1

    def _scales(self, dim: int) -> Sequence[float]:
        if self.scales is not None:
            return self.scales
        if isinstance(self.prior, str):
            return mk.SCALES
        return tuple(self.prior.kernel_scale(dim) * scale for scale in mk.SCALES)


class CramerWold(KernelDistance):
    """`mow_kernels.cramer_wold` over a window (CWAE, Tabor et al. 2020).

    Args:
        prior, log: as for `Distance`.
        gamma: the smoothing; None for (4/(3n))^0.4 with n the rows present.
        phi: "exact" or "asymptotic".
    """

    def __init__(
        self,
        prior: str | Prior | PriorWindow = "normal",
        *,
        gamma: float | None = None,
        phi: str = "exact",
        log: bool = False,
    ) -> None:
        super().__init__(prior, log=log)
        self.gamma, self.phi = gamma, phi

    _function = staticmethod(mk.cramer_wold)

    def _options(self, z: Tensor, rows: int | None = None) -> dict[str, Any]:
        gamma = (4 / (3 * rows)) ** 0.4 if self.gamma is None and rows is not None else self.gamma
        return {"gamma": gamma, "phi": self.phi}


class SlicedWasserstein(KernelDistance):
    """`mow_kernels.sliced_wasserstein` over a window (SWAE, Kolouri et al. 2018).

    Args:
        prior, log: as for `Distance`.
        directions: how many are drawn, or a tensor [D, L].
        keep: for how many measurements drawn directions are kept, >= 1. From the second on they are read from sorted
            projections where the prior is "normal" (docs/running-sums.md); a step takes O(n L) then. The mean over
            those steps has the sampling noise of one draw, not of `keep` draws.
        p: the power.
        generator: what the directions are drawn from; None for PyTorch's default generator.

    Raises:
        ValueError, TypeError: keep is no integer >= 1, or more than 1 where the directions are given.
    """

    def __init__(
        self,
        prior: str | Prior | PriorWindow = "normal",
        *,
        directions: int | Tensor = 50,
        keep: int = 1,
        p: float = 2,
        generator: torch.Generator | None = None,
        log: bool = False,
    ) -> None:
        super().__init__(prior, log=log)
        self.p, self.generator, self.keep = p, generator, positive("keep", keep)
        if keep > 1 and isinstance(directions, Tensor):
            raise ValueError(f"keep is {keep} and directions a tensor, which is kept for ever; keep must be 1")
        self.count = directions if isinstance(directions, int) else None
        self._drawn: Tensor | None = None
        self._uses = 0
        self.register_buffer("directions", None if isinstance(directions, int) else directions)

    _function = staticmethod(mk.sliced_wasserstein)

    def measure(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        self._renew(z)
        return super().measure(z, window)

    def get_extra_state(self) -> dict[str, Any]:
        """Of the state_dict: the directions that are kept, and how often they have been used."""
        return {"directions": self._drawn, "uses": self._uses}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self._drawn, self._uses = state["directions"], state["uses"]

    def _gradient(self, z: Tensor, window: MovingWindow | Tensor | None, measure: bool) -> tuple[Tensor, Tensor | None]:
        self._renew(z)
        return super()._gradient(z, window, measure)

    def _renew(self, z: Tensor) -> None:
        """Before each measurement: directions to keep, if it is time for new ones."""
        if self.keep > 1 and self.count is not None:
            _check(z, None)
            if self._drawn is None or self._uses >= self.keep or self._drawn.shape[0] != z.shape[1]:
                like = z.detach().float() if z.dtype in (torch.float16, torch.bfloat16) else z.detach()
                self._drawn, self._uses = mk.draw_directions(like, self.count, self.generator), 0
            self._drawn = self._drawn.to(z.device)
            self._uses += 1

    def _options(self, z: Tensor, rows: int | None = None) -> dict[str, Any]:
        kept = self._drawn if self.directions is None else self.directions
        if kept is None and self.keep > 1:  # before the first measurement, for what only asks
            kept = z.detach().new_empty(z.shape[1], self.count)
        return {"directions": self.count if kept is None else kept, "p": self.p, "generator": self.generator}
