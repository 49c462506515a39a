"""The distances as modules over the window: mow.MMD, mow.CramerWold, mow.SlicedWasserstein."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow.checks import flag, positive
from mow.window import priors
from mow.window.kept import Following
from mow.window.priors import Prior, PriorWindow
from mow.window.window import MovingWindow

LOG_FLOOR = 1e-3
"""eps: `log=True` is the logarithm above it and the logarithm's tangent at it below."""


class Distance(nn.Module):
    """A distance between the latents of the window and a prior: `loss = distance(z, window)`.

        >>> class Spread(mow.window.distances.Distance):
        ...     def value(self, z, history, prior):
        ...         return (torch.cat([history, z]).std(0) - 1).square().sum()
        >>> Spread()(z, window).shape
        torch.Size([])

    One of your own defines `value`, or is a `KernelDistance` where its function has a row in `mow_kernels`.

    Args:
        prior: "normal" for N(0, I) in closed form; "normal-sample", "uniform", "sphere" or a `mow.priors.Prior` for a
            sample of n rows drawn afresh at each call; a `mow.PriorWindow` for a sample that moves along.
        log: return log F above eps = 1e-3 and its tangent log eps + (F - eps)/eps below, so that a distance of zero or
            an unbiased MMD below zero stays finite, as does its gradient.
    """

    def __init__(self, prior: str | Prior | PriorWindow = "normal", *, log: bool = False) -> None:
        super().__init__()
        self.prior = prior if isinstance(prior, PriorWindow) else priors.named(prior)
        self.log = flag("log", log)

    def arguments(self) -> dict[str, Any]:
        """What it was made with, by name, as far as it is kept; for its repr."""
        return {name: getattr(self, name) for name in self._defaults() if hasattr(self, name)}

    def extra_repr(self) -> str:
        """The arguments that differ from their defaults."""
        defaults, said = self._defaults(), []
        for name, value in self.arguments().items():
            if isinstance(value, Tensor):
                said.append(f"{name}={list(value.shape)}")
            elif isinstance(value, nn.Module | torch.Generator):
                continue  # a module among its modules
            elif repr(value) != repr(defaults.get(name)):  # arrays have no one ==
                said.append(f"{name}={value!r}")
        return ", ".join(said)

    @classmethod
    def _defaults(cls) -> dict[str, Any]:
        parameters = inspect.signature(cls.__init__).parameters.values()
        return {each.name: each.default for each in parameters if each.kind is not each.VAR_KEYWORD}

    def forward(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        """The distance, or its logarithm, over [history; z].

            >>> loss = reconstruction + mow.CramerWold()(encoder(x), window)

        Args:
            z: [k, D], the new latents, which receive the gradient.
            window: the history: a window (its newest n-k rows), a tensor [h, D], or None for z alone.

        Returns:
            0-d.

        Raises:
            ValueError: z is no [k, D], or has more rows than the window holds (k > n); and what mow_kernels raises.
        """
        value = self.measure(z, window)
        return self.transform(value) if self.log else value

    def measure(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        """The bare distance F over [history; z], without the logarithm; arguments as for `forward`."""
        z = _checked(z, window)
        self.prepare(z)
        history = window.history(z.shape[0]) if isinstance(window, MovingWindow) else window
        return self.value(z, history, self._prior_rows(z, history, window))

    def gradient(
        self, z: Tensor, window: MovingWindow | Tensor | None = None, *, measure: bool = True
    ) -> tuple[Tensor, Tensor | None]:
        """The gradient of `forward` for z, without a graph, and with `measure` the bare distance F; arguments as there.

        The same bits with and without `measure`, and as by autograd.

        Returns:
            [k, D], float32 for half latents, else of z's dtype, and 0-d or None.
        """
        g_z, distance = self._gradient(z, window, measure or self.log)
        if self.log:
            assert distance is not None
            g_z = g_z * self.slope(distance)
        return g_z, distance if measure else None

    def value(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
        """F over [history; z] against the prior: what a distance is.

        Args:
            z: [k, D], which receives the gradient.
            history: [h, D], or None for none.
            prior: a sample [m, D], or "normal" for N(0, I) in closed form.

        Returns:
            0-d, differentiable for z.
        """
        raise NotImplementedError(
            f"{type(self).__name__} defines no value(z, history, prior); a distance has to (docs/extending.md)"
        )

    def transform(self, value: Tensor) -> Tensor:
        """F -> F, or with `log` its logarithm continued by the tangent below eps."""
        if not self.log:
            return value
        above = value.clamp(min=LOG_FLOOR).log()
        below = math.log(LOG_FLOOR) + (value - LOG_FLOOR) / LOG_FLOOR
        return torch.where(value > LOG_FLOOR, above, below)

    def slope(self, value: Tensor) -> Tensor:
        """The derivative of the logarithm with its tangent, at F."""
        return value.clamp(min=LOG_FLOOR).reciprocal()

    def check(self, dim: int) -> None:
        """Raises what a measurement of latents of this width would raise for its options; a trainer asks for it."""

    def prepare(self, z: Tensor) -> None:
        """What has to happen before each measurement of new rows z [k, D]; for a distance that counts them."""

    def _prior_rows(
        self, z: Tensor, history: Tensor | mk.Newest | None, window: MovingWindow | Tensor | None
    ) -> Tensor | str:
        """What [history; z] is compared with: rows of the prior, or the name of the closed form."""
        if isinstance(self.prior, str):
            return self.prior
        n = len(z) + (0 if history is None else len(history))
        if isinstance(self.prior, PriorWindow):
            self.prior.advance(len(z))
            return self.prior.newest(max(2, n))
        return self.prior.sample(max(2, n, window.span if isinstance(window, MovingWindow) else 0), z)

    def _gradient(self, z: Tensor, window: MovingWindow | Tensor | None, measure: bool) -> tuple[Tensor, Tensor | None]:
        """The gradient of F for z, and F where `measure` asks for it."""
        return _by_autograd(_checked(z, window), lambda z: self.measure(z, window))


class KernelDistance(Distance):
    """A distance by a public function of `mow_kernels`, or by another whose row is in its table.

    Over a window it is measured from what the window keeps for it, as its row says (docs/running-sums.md). A subclass
    names its `function` and gives its `options`. One that overrides `measure` or `value` has the gradient of that, by
    autograd, and nothing is kept for it.

    Args:
        prior, log: as for `Distance`.
    """

    function: Callable[..., Tensor]
    """A public function of `mow_kernels`, as a staticmethod."""

    by_its_row = True
    """Whether it measures what its function does, and nothing else."""

    def __init__(self, prior: str | Prior | PriorWindow = "normal", *, log: bool = False) -> None:
        super().__init__(prior, log=log)
        self.op = mk.distance_row(self.function)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if vars(cls).keys() & {"measure", "value"}:
            cls.by_its_row = False

    def check(self, dim: int = 2) -> None:
        given = next(self.buffers(recurse=False), None)  # directions [D, L] say for which D they are, and where
        z = torch.zeros(2, dim) if given is None or given.dim() != 2 else given.new_zeros(2, len(given))
        mk.explain(self.function, z, None, self.prior if isinstance(self.prior, str) else z, **self.options(z))

    def options(self, z: Tensor) -> dict[str, Any]:
        """All options of the function, for new rows z [k, D]."""
        raise NotImplementedError(f"{type(self).__name__} gives no options(z) of its function; they may be {{}}")

    def measure(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        if not self.by_its_row:
            return super().measure(z, window)
        z, following, history, prior, options = self._terms(z, window)
        if following is not None:
            return following.distance(z, functools.partial(self._samples_again, z, window))
        if z.shape[0] == 1 and (history is None or history.shape[0] == 0) and self._has_one_row_rule(options):
            return self._of_one_row(z, prior, options)
        return self.function(z, history, prior, **options)

    def value(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
        options = self.options(z)
        if len(z) == 1 and (history is None or len(history) == 0) and self._has_one_row_rule(options):
            return self._of_one_row(z, prior, options)
        return self.function(z, history, prior, **options)

    def explain(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> str:
        """Which backend would measure this, and whether from what the window keeps; arguments as for `forward`.

        print(mow.MMD().explain(z, window))
        """
        history = window.history(z.shape[0]) if isinstance(window, MovingWindow) else window
        prior = self.prior if isinstance(self.prior, str) else z.detach().new_empty(max(2, len(z)), z.shape[1])
        options = self.options(z)
        text = str(mk.explain(self.function, z, history, prior, **options))
        if not isinstance(window, MovingWindow):
            return text
        if not self.by_its_row:
            reason: str | None = f"{type(self).__name__} measures in a way of its own"
        elif isinstance(self.prior, Prior):
            reason = "the prior is sampled afresh at each step (a mow.PriorWindow is not)"
        else:
            moving = None if isinstance(self.prior, str) else self.prior
            reason = window.kept.why_not(window, self.op, z, moving, options)
        return text + ("\n  from running sums" if reason is None else f"\n  not from running sums: {reason}")

    def _gradient(self, z: Tensor, window: MovingWindow | Tensor | None, measure: bool) -> tuple[Tensor, Tensor | None]:
        if not self.by_its_row:
            return super()._gradient(z, window, measure)
        z, following, history, prior, options = self._terms(z, window, in_place=True)
        if following is not None:
            return following.gradient(z)
        if z.shape[0] == 1 and (history is None or history.shape[0] == 0) and self._has_one_row_rule(options):
            return _by_autograd(z, lambda z: self._of_one_row(z, prior, options))
        return mk.gradient(self.function, z, history, prior, measure=measure, **options)

    def _terms(
        self, z: Tensor, window: MovingWindow | Tensor | None, in_place: bool = False
    ) -> tuple[Tensor, Following | None, Any, Tensor | str, dict[str, Any]]:
        """z, checked, and what it is measured with: what the window keeps, or else history and prior; and the options.
        The history of a gradient can be `in_place`.

        A small window is not asked what it keeps: that would cost more than it saves, as would a call more here.
        """
        z = _checked(z, window)
        self.prepare(z)
        options, prior = self.options(z), self.prior
        history: Any
        if not isinstance(window, MovingWindow):
            history = window
        elif window.is_small or isinstance(prior, Prior):
            history = window.past(z.shape[0]) if in_place else window.history(z.shape[0])
        else:
            moving = None if isinstance(prior, str) else prior
            following = window.kept.find(window, self.op, z, moving, options)
            if following is not None:
                return z, following, None, "normal", options
            history = window.past(z.shape[0]) if in_place else window.history(z.shape[0])
        return z, None, history, prior if isinstance(prior, str) else self._prior_rows(z, history, window), options

    def _samples_again(self, z: Tensor, window: Any) -> tuple[Tensor, Tensor | None]:
        """What a measurement of z over a window has just compared it with."""
        history = window.history(len(z))
        return history, self.prior.newest(len(history) + len(z)) if isinstance(self.prior, PriorWindow) else None

    def _has_one_row_rule(self, options: dict[str, Any]) -> bool:
        """Whether a single row has no distance, but something that a growing window measures of it."""
        return self.op.of_one is not None and self.op.alone(self.op.defaults | options) is not None

    def _of_one_row(self, z: Tensor, prior: Tensor | str, options: dict[str, Any]) -> Tensor:
        assert self.op.of_one is not None
        return self.op.of_one(z, prior, self.op.defaults | options)


def _by_autograd(z: Tensor, distance: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        z = z.detach().requires_grad_()
        value = distance(z)
        (g_z,) = torch.autograd.grad(value, z)
    return g_z, value.detach()


def _checked(z: object, window: MovingWindow | Tensor | None) -> Tensor:
    """z, half latents as float32: so are windows and directions, and a gradient loses nothing before it is scaled."""
    if not isinstance(z, Tensor) or z.dim() != 2 or z.numel() == 0:
        was = f"has shape {list(z.shape)}" if isinstance(z, Tensor) else f"is {type(z).__name__}"
        raise ValueError(f"z {was}; it must be a tensor [k, D] with k >= 1 and D >= 1")
    if isinstance(window, MovingWindow) and z.shape[0] > window.n:
        raise ValueError(f"z has {len(z)} rows and the window n = {window.n}; it must have k <= n")
    return z.float() if z.dtype in (torch.float16, torch.bfloat16) else z


class MMD(KernelDistance):
    """`mow_kernels.mmd` over a window (WAE-MMD, Tolstikhin et al. 2018).

        >>> value = mow.MMD("uniform", kernel="gaussian")(z, window)

    Args:
        prior, log: as for `Distance`.
        kernel: one of `mow_kernels.mmd`.
        scales: of the kernels; None for their own, those of the WAE fitted to the prior's variance.
        estimator: "unbiased" or "biased". Where a growing window holds a single row, the unbiased mean over the pairs
            within it is empty and counts as 0.
        options: what else the kernel has: alphas, linear, degree, coef0, gamma.
    """

    def __init__(
        self,
        prior: str | Prior | PriorWindow = "normal",
        *,
        kernel: str = "imq",
        scales: Sequence[float] | None = None,
        estimator: str = "unbiased",
        log: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(prior, log=log)
        self.kernel, self.scales, self.estimator = kernel, scales, estimator
        self.further = {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
        self._fitted: tuple[Any, tuple[float, ...] | None] = None, None
        self.check()

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | self.further

    function = staticmethod(mk.mmd)

    def options(self, z: Tensor) -> dict[str, Any]:
        scales = tuple(self.scales) if isinstance(self.scales, list) else self.scales
        if scales is None and not isinstance(self.prior, str):
            fitted_to = self.kernel, self.prior, z.shape[1]
            if self._fitted[0] != fitted_to:
                self._fitted = fitted_to, mk.default_scales(self.kernel, self.prior.kernel_scale(z.shape[1]))
            scales = self._fitted[1]
        return {"kernel": self.kernel, "scales": scales, "estimator": self.estimator, **self.further}


class CramerWold(KernelDistance):
    """`mow_kernels.cramer_wold` over a window (CWAE, Tabor et al. 2020).

        >>> value = mow.CramerWold(log=True)(z, window)

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
        self.check()

    function = staticmethod(mk.cramer_wold)

    def options(self, z: Tensor) -> dict[str, Any]:
        return {"gamma": self.gamma, "phi": self.phi}


class SlicedWasserstein(KernelDistance):
    """`mow_kernels.sliced_wasserstein` over a window (SWAE, Kolouri et al. 2018).

        >>> value = mow.SlicedWasserstein(directions=20)(z, window)

    Args:
        prior, log: as for `Distance`.
        directions: how many are drawn, or a tensor [D, L].
        keep: for how many measurements drawn directions are kept, >= 1. From the second on they are read from sorted
            projections where the prior is "normal" (docs/running-sums.md); a step takes O(n L) then. The mean over
            those steps has the sampling noise of one draw, not of `keep` draws.
        p: the power.
        generator: what the directions are drawn from; None for PyTorch's default generator.

    Raises:
        ValueError, TypeError: directions is neither an integer >= 1 nor a tensor; keep is no integer >= 1, or more than
            1 where the directions are given.
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
        self.count = None if isinstance(directions, Tensor) else positive("directions", directions)
        self._drawn: Tensor | None = None
        self._uses = 0
        self.register_buffer("directions", directions if isinstance(directions, Tensor) else None)
        self.check()

    function = staticmethod(mk.sliced_wasserstein)

    def arguments(self) -> dict[str, Any]:
        return super().arguments() | {"directions": self.count if self.directions is None else self.directions}

    def options(self, z: Tensor) -> dict[str, Any]:
        kept = self._drawn if self.directions is None else self.directions
        if kept is None and self.keep > 1:  # before the first measurement, for what only asks
            kept = z.detach().new_empty(z.shape[1], self.count)
        return {"directions": self.count if kept is None else kept, "p": self.p, "generator": self.generator}

    def prepare(self, z: Tensor) -> None:
        """Draws directions to keep, if it is time for new ones."""
        if self.keep > 1 and self.count is not None:
            if self._drawn is None or self._uses >= self.keep or self._drawn.shape[0] != z.shape[1]:
                self._drawn, self._uses = mk.draw_directions(z.detach(), self.count, self.generator), 0
            self._drawn = self._drawn.to(z.device)
            self._uses += 1

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """With directions that are kept, these [D, L] (before the first measurement [0, L]), and how often they have
        been used: tensors, since what writes states to files takes nothing else."""
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.keep > 1:
            destination[prefix + "drawn"] = torch.empty(0, self.count or 0) if self._drawn is None else self._drawn
            destination[prefix + "uses"] = torch.tensor(self._uses)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        older = state_dict.pop(prefix + "_extra_state", None)  # a dict, in older checkpoints
        if self.keep > 1:
            if older is not None:
                drawn, uses = older["directions"], older["uses"]
            else:
                names = prefix + "drawn", prefix + "uses"
                rest[-3].extend(lacking := [name for name in names if name not in state_dict])  # the missing keys
                if lacking:
                    return
                drawn, uses = (state_dict.pop(name) for name in names)
            self._drawn = None if drawn is None or len(drawn) == 0 else drawn.detach().clone()
            self._uses = int(uses)
        super()._load_from_state_dict(state_dict, prefix, *rest)
