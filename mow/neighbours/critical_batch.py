"""How large a batch should be: the critical batch size from steps to a quality, the noise scale from gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mow.checks import expect, integer, number, positive
from mow.naming import named
from mow.neighbours.pieces import LISTENERS


@dataclass(frozen=True)
class Law:
    """Steps to a quality over the batch size: K(b) = K_min shape(b, critical)."""

    name: str
    formula: str
    shape: Callable[[Tensor, Tensor], Tensor]
    """K(b) / K_min of b and the critical batch size, which broadcast."""
    place: Callable[[Tensor, float, float], Tensor]
    """The critical batch size from [0, 1], the smallest and the largest b: the range in which a fit looks for it."""


HYPERBOLA = Law(
    "hyperbola",
    "K_min b / (b - b*/2)",
    lambda b, critical: b / (b - critical / 2),
    lambda u, low, high: 2 * low * (1 - 10 ** (-9 * u)),
)
"""K(b) = A b / ((eps^2 - C) b - B) of Sato and Iiduka, so K_min = A/(eps^2 - C) and b* = 2B/(eps^2 - C).

1/K is linear in 1/b, and b* = -2 slope/intercept. There is no K at b <= b*/2; the samples K b are fewest at b = b*.
Source: Sato and Iiduka, "Existence and Estimation of Critical Batch Size for Training Generative Adversarial Networks
with Two Time-Scale Update Rule" (ICML 2023, arXiv 2201.11989), section 3.
"""

NOISE_SCALE = Law(
    "noise scale",
    "K_min (1 + B_c/b)",
    lambda b, critical: 1 + critical / b,
    lambda u, low, high: 1e-6 * low * (1e12 * high / low) ** u,
)
"""K(b) = K_min (1 + B_c/b): the steps fall towards K_min, the samples K_min (b + B_c) rise with b from the start.

At b = B_c both the steps and the samples are twice their least.
Source: McCandlish et al. 2018, "An Empirical Model of Large-Batch Training" (arXiv 1812.06162), section 2.
"""


@dataclass(frozen=True, eq=False, repr=False)
class LawFit:
    """A law fitted to measured steps.

    min_steps: K_min. critical_batch: b* of the hyperbola, B_c of the noise-scale law.
    min_steps_interval, critical_batch_interval: their bootstrap intervals (low, high).
    residuals: ln(measured / fitted) of each measurement, float64 [N]. rms: the root of their mean square.
    """

    law: Law
    min_steps: float
    critical_batch: float
    min_steps_interval: tuple[float, float]
    critical_batch_interval: tuple[float, float]
    residuals: Tensor
    rms: float

    def __repr__(self) -> str:
        return named(
            self,
            law=self.law.name,
            critical_batch=self.critical_batch,
            critical_batch_interval=self.critical_batch_interval,
            min_steps=self.min_steps,
            rms=self.rms,
        )

    def steps(self, batch_sizes: Tensor | Sequence[float] | float) -> Tensor:
        """K at these batch sizes, float64. For the hyperbola infinite where b <= b*/2."""
        b = torch.as_tensor(batch_sizes, dtype=torch.float64)
        steps = self.min_steps * self.law.shape(b, torch.tensor(self.critical_batch, dtype=torch.float64))
        return torch.where((steps > 0) & steps.isfinite(), steps, math.inf)

    def samples(self, batch_sizes: Tensor | Sequence[float] | float) -> Tensor:
        """K b, the samples (SFO calls: stochastic first-order oracle) at these batch sizes, float64."""
        return self.steps(batch_sizes) * torch.as_tensor(batch_sizes, dtype=torch.float64)


@dataclass(frozen=True, eq=False, repr=False)
class CriticalBatch:
    """What `fit_critical_batch` returns; `print` shows it as a table.

    batch_sizes, steps: the measurements, float64 [N] each. confidence: of the intervals.
    """

    batch_sizes: Tensor
    steps: Tensor
    hyperbola: LawFit
    noise_scale: LawFit
    confidence: float

    def __repr__(self) -> str:
        return named(self, measurements=len(self.steps), hyperbola=self.hyperbola, noise_scale=self.noise_scale)

    @property
    def fits(self) -> tuple[LawFit, LawFit]:
        return self.hyperbola, self.noise_scale

    @property
    def better(self) -> LawFit:
        """The fit with the smaller residuals. Both laws have two parameters."""
        return min(self.fits, key=lambda fit: fit.rms)

    @property
    def samples(self) -> Tensor:
        """The SFO complexity of each measurement: steps times batch size [N]."""
        return self.batch_sizes * self.steps

    @property
    def spread(self) -> float:
        """The rms of ln K about the mean of each batch size: what no curve gets below."""
        logs = self.steps.log()
        means = [logs[self.batch_sizes == b].mean() for b in self.batch_sizes]
        return float((logs - torch.stack(means)).square().mean().sqrt())

    def __str__(self) -> str:
        names = "".join(f"{fit.law.name:>13}" for fit in self.fits)
        lines = [f"{'batch':>8} {'runs':>5} {'steps':>10} {'samples':>11}  {names}"]
        for b in self.batch_sizes.unique():
            steps = self.steps[self.batch_sizes == b]
            mean = steps.log().mean().exp()
            fitted = "".join(f"{float(fit.steps(b)):13,.0f}" for fit in self.fits)
            lines.append(f"{float(b):8g} {len(steps):5} {mean:10,.0f} {b * mean:11,.0f}  {fitted}")
        percent = f"{100 * self.confidence:g}%"
        for fit in self.fits:
            (low, high), (fewest, most) = fit.critical_batch_interval, fit.min_steps_interval
            lines.append(
                f"{fit.law.name}, K = {fit.law.formula}: critical batch {fit.critical_batch:.3g} "
                f"({percent}: {low:.3g} to {high:.3g}), K_min {fit.min_steps:.4g} ({fewest:.4g} to {most:.4g}), "
                f"rms of ln K {fit.rms:.3f}"
            )
        if len(self.steps) > len(self.batch_sizes.unique()):
            lines.append(f"The runs of one batch size differ by an rms of {self.spread:.3f}.")
        return "\n".join(lines)


def fit_critical_batch(
    batch_sizes: Sequence[float] | Tensor,
    steps: Sequence[float | Sequence[float]] | Tensor,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> CriticalBatch:
    """Fit both laws of the critical batch size to the steps that a quality took, at learning rates held constant.

        >>> fitted = mow.fit_critical_batch([1, 4, 16, 64], [4000, 1100, 390, 210])
        >>> 1 < fitted.noise_scale.critical_batch < 1000
        True

    Least squares on ln K, since what varies from seed to seed is the ratio. Intervals are percentiles of a bootstrap of
    the residuals, scaled by sqrt(N/(N-2)); they take misfit for noise, so a law that does not fit gets wide ones.

    Args:
        batch_sizes: > 0, three different ones at least.
        steps: K at each of them, > 0: a number, or several of as many seeds. Leave runs that never got there out, and
            say so.
        resamples: of the bootstrap.
        confidence: of the intervals, in (0, 1).
        seed: of the bootstrap.

    Returns:
        Both fits. The hyperbola's b* lies in [0, 2 min(b)), since each b measured has a finite K, b = 1 included.
        The noise-scale law's B_c lies between 1e-6 min(b) and 1e6 max(b); at that upper end the steps were never seen
        to level off.

    Raises:
        ValueError, TypeError: a bad argument, by name.

    Sources: `HYPERBOLA` and `NOISE_SCALE`.
    """
    b, k = _measurements(batch_sizes, steps)
    resamples, seed = positive("resamples", resamples), integer("seed", seed)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence!r}; it must lie between 0 and 1, both left out")
    draws = torch.randint(len(b), (resamples, len(b)), generator=torch.Generator().manual_seed(seed))
    hyperbola, noise_scale = (_fit(law, b, k.log(), draws, confidence) for law in (HYPERBOLA, NOISE_SCALE))
    return CriticalBatch(b, k, hyperbola, noise_scale, confidence)


class GradientNoiseScale:
    """B = tr(Sigma)/|G|^2, the batch size at which noise and gradient are even, from the pieces of a micro-batch step.

    Costs no further passes: hooks on the parameters sum the squared norms of the pieces' gradients on the device.

        >>> scale = mow.GradientNoiseScale(encoder.parameters())
        >>> encoder.zero_grad()
        >>> loss = mow.accumulate(lambda x: encoder(x).square().mean(), x, micro_batch=2)
        >>> scale.update(rows=len(x), micro_batch=2)        # and then the step of the optimiser
        >>> scale.value > 0
        True

    G is the gradient of the expected loss, Sigma the covariance of one row's gradient. The loss must be separable: a
    mean over rows (or a sum: |G|^2 and tr(Sigma) are then rows^2 times as large, and their ratio is the same), its rows
    independent draws. With pieces of b_j of the N rows, of which T = sum_j |(b_j/N) g_j|^2 and q = sum_j (b_j/N)^2,

        |G|^2 = (|g|^2 - T)/(1 - q),  tr(Sigma) = N (|g|^2 - |G|^2)

    are unbiased, g being the whole gradient; for pieces of one size these are the paper's. Their ratio is biased and
    each is noisy, so they are averaged over the steps first.

    Args:
        parameters: whose gradients count.
        decay: of the running averages, in [0, 1).

    Raises:
        TypeError, ValueError: no iterable; no parameter in it that requires grad; a decay out of range.

    Source: McCandlish et al. 2018 (arXiv 1812.06162), appendix A.1.
    """

    _pieces: Tensor | float
    """The sum of the squared norms of the pieces since the last update."""
    _passes: list[int]
    """How often each parameter has had a gradient since then."""
    _sizes: list[int]
    """The rows of these pieces, as far as they were told."""

    def __init__(self, parameters: Iterable[nn.Parameter], *, decay: float = 0.99) -> None:
        iterable = isinstance(parameters, Iterable) and not isinstance(parameters, str)
        expect(iterable, "parameters", parameters, "an iterable of parameters, such as module.parameters()")
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        if not self._parameters:
            raise ValueError("parameters holds none that requires grad; it must hold one at least")
        if not 0 <= number("decay", decay, at_least=0) < 1:
            raise ValueError(f"decay is {decay!r}; it must be in [0, 1)")
        self.decay = float(decay)
        self._averages = torch.zeros(3, device=self._parameters[0].device)  # |G|^2, tr(Sigma), and the weights' sum
        self._handles = [parameter.register_hook(self._hook(i)) for i, parameter in enumerate(self._parameters)]
        self._forget()
        LISTENERS.add(self)

    def __repr__(self) -> str:
        return named(self, parameters=len(self._parameters), decay=self.decay, value=self.value)

    @torch.no_grad()
    def update(self, *, rows: int, micro_batch: int | None = None) -> None:
        """Take in the step whose pieces have run backward since the last update; before the optimiser's step.

        A step whose gradients are not finite is left out of the averages.

        Args:
            rows: N, > micro_batch.
            micro_batch: the rows of a piece, of which the last may have fewer. Where `mow.accumulate` made the pieces
                it has told their sizes, also those of "auto" and those it went back to when memory ran out; they hold.

        Raises:
            ValueError: a bad argument; or the backward passes were not the pieces of one gradient. The averages stay as
                they were, and the passes are forgotten.
        """
        pieces, passes, told = self._pieces, max(self._passes), self._sizes
        self._forget()
        rows = integer("rows", rows)
        if sum(told) == rows and len(told) == passes:
            micro_batch = told[0]
        elif micro_batch is None:
            raise ValueError(f"micro_batch is None and mow.accumulate has not told the pieces of these {rows} rows")
        micro_batch = integer("micro_batch", micro_batch)
        if not 1 <= micro_batch < rows:
            raise ValueError(f"micro_batch is {micro_batch} and rows {rows}; it must be >= 1 and less than rows")
        sizes = [micro_batch] * (rows // micro_batch) + [rows % micro_batch] * (rows % micro_batch > 0)
        if passes != len(sizes):
            raise ValueError(
                f"{passes} backward passes have run; rows = {rows} and micro_batch = {micro_batch} make {len(sizes)}"
            )
        whole = sum(_square(p.grad) for p in self._parameters if p.grad is not None)
        squares = torch.stack([torch.as_tensor(whole), torch.as_tensor(pieces)])
        q = sum((size / rows) ** 2 for size in sizes)
        gradient = (squares[0] - squares[1]) / (1 - q)
        new = torch.stack([gradient, rows * (squares[0] - gradient), torch.ones_like(gradient)])
        averages = self.decay * self._averages + (1 - self.decay) * new
        # An average keeps what is not finite for ever. Chosen on the device: the host does not wait for it.
        self._averages = torch.where(averages.isfinite().all(), averages, self._averages)

    @property
    def gradient_square(self) -> float:
        """The averaged |G|^2; may be negative while it is mostly noise. nan before the first update."""
        return self._average(0)

    @property
    def noise(self) -> float:
        """The averaged tr(Sigma). nan before the first update."""
        return self._average(1)

    @property
    def value(self) -> float:
        """tr(Sigma)/|G|^2; infinite where no gradient stands out of the noise, nan before the first update."""
        square = self.gradient_square
        return math.inf if square <= 0 else self.noise / square

    def state_dict(self) -> dict[str, Tensor]:
        """The averages; between an `update` and the next backward pass, which they do not know."""
        return {"averages": self._averages.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave, and forget the passes since the last update.

        Raises:
            KeyError, ValueError: another state; nothing has changed.
        """
        averages = state["averages"]
        if averages.shape != self._averages.shape:
            raise ValueError(f"averages has shape {list(averages.shape)}; it must be {list(self._averages.shape)}")
        self._averages = averages.to(self._averages, copy=True)
        self._forget()

    def close(self) -> None:
        """Take the hooks off the parameters."""
        LISTENERS.discard(self)
        for handle in self._handles:
            handle.remove()

    def piece(self, rows: int) -> None:
        """`mow.accumulate` has run a piece of so many rows backward, maybe of another loss."""
        if max(self._passes) > len(self._sizes):
            self._sizes.append(rows)

    def mark(self) -> tuple[Tensor | float, list[int], list[int]]:
        """What `rewind` takes."""
        return self._pieces, list(self._passes), list(self._sizes)

    def rewind(self, mark: tuple[Tensor | float, list[int], list[int]]) -> None:
        """Forget the pieces since the mark: `mow.accumulate` begins them again."""
        self._pieces, self._passes, self._sizes = mark[0], list(mark[1]), list(mark[2])

    def _hook(self, index: int) -> Callable[[Tensor], None]:
        def add(gradient: Tensor) -> None:
            self._passes[index] += 1
            self._pieces = self._pieces + _square(gradient)

        return add

    def _forget(self) -> None:
        self._pieces, self._passes, self._sizes = 0.0, [0] * len(self._parameters), []

    def _average(self, index: int) -> float:
        value, weight = self._averages[[index, 2]].tolist()
        return value / weight if weight else math.nan


def _square(gradient: Tensor) -> Tensor:
    """|gradient|^2 in float32 at least, 0-d."""
    wide = gradient if gradient.dtype == torch.float64 else gradient.float()
    return wide.square().sum()


def _measurements(batch_sizes: Sequence[float] | Tensor, steps: Sequence[Any] | Tensor) -> tuple[Tensor, Tensor]:
    """One entry a measurement, float64 [N] each."""
    if len(batch_sizes) != len(steps):
        raise ValueError(f"steps has {len(steps)} entries and batch_sizes {len(batch_sizes)}; they must have as many")
    b, k = [], []
    for size, measured in zip(_numbers(batch_sizes), steps, strict=True):
        if not 0 < size < math.inf:
            raise ValueError(f"batch_sizes holds {size!r}; they must be finite and > 0")
        for value in _numbers(measured):
            if value is None or not 0 < value < math.inf:
                raise ValueError(
                    f"steps holds {value!r} at batch size {size:g}; they must be finite and > 0 "
                    "(leave runs that never got there out, and say so)"
                )
            b.append(size)
            k.append(value)
    if len(set(b)) < 3:
        raise ValueError(f"batch_sizes holds {len(set(b))} different ones with steps; it must hold 3 at least")
    return torch.tensor(b, dtype=torch.float64), torch.tensor(k, dtype=torch.float64)


def _numbers(values: object) -> list[Any]:
    listed = values.tolist() if hasattr(values, "tolist") else values
    return list(listed) if isinstance(listed, Iterable) else [listed]


def _fit(law: Law, b: Tensor, log_steps: Tensor, draws: Tensor, confidence: float) -> LawFit:
    critical, log_min = _least_squares(law, b, log_steps[None])
    fitted = log_min[0] + law.shape(b, critical).log()
    residuals = log_steps - fitted
    scale = (len(b) / (len(b) - 2)) ** 0.5
    criticals, log_mins = _least_squares(law, b, fitted + scale * residuals[draws])
    return LawFit(
        law,
        float(log_min.exp()),
        float(critical),
        _interval(log_mins.exp(), confidence),
        _interval(criticals, confidence),
        residuals,
        float(residuals.square().mean().sqrt()),
    )


def _least_squares(law: Law, b: Tensor, log_steps: Tensor) -> tuple[Tensor, Tensor]:
    """Critical batch size and ln K_min [R] of each row of log_steps [R, N].

    ln K_min is the mean of what the shape leaves, so one parameter is left to find: on a grid, then on finer ones.
    """
    low, high = float(b.min()), float(b.max())
    centre = torch.full((len(log_steps), 1), 0.5, dtype=torch.float64)
    half, points = 0.5, 129
    while half > 1e-13:
        u = (centre + half * torch.linspace(-1, 1, points, dtype=torch.float64)).clamp(0, 1)
        left = log_steps[:, None] - law.shape(b, law.place(u, low, high)[..., None]).log()
        best = left.var(-1).argmin(-1, keepdim=True)
        centre = u.gather(1, best)
        half, points = 2 * half / (points - 1), 17
    critical = law.place(centre, low, high)
    return critical[:, 0], (log_steps - law.shape(b, critical).log()).mean(1)


def _interval(values: Tensor, confidence: float) -> tuple[float, float]:
    low, high = (float(values.quantile((1 + sign * confidence) / 2)) for sign in (-1, 1))
    return low, high
