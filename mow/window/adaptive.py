"""A window as long as the drift allows: a measurement is over so many of its newest rows as have not moved too far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mow.checks import number, positive
from mow.naming import named
from mow.window.window import MovingWindow

STALENESS = 1 / 3
"""The mean drift of all rows over that of the oldest, where rows move steadily: see `AdaptiveSpan`."""

BAND = 1.2
"""The span stays while the best one is within this factor of it."""


class AdaptiveSpan:
    r"""Sets how many of the newest rows a window is measured over, `MovingWindow.span`, by measured drift.

        >>> trainer = mow.Trainer(encoder, decoder, mow.CramerWold(), window, adaptive=mow.AdaptiveSpan())

    or in a loop of your own, every `span.every` steps, with the pictures whose latents are in the window:

        >>> span = mow.AdaptiveSpan()
        >>> window.fill(torch.randn(63, 8))
        >>> ages = span.ages(window, k=1)        # age 1 is that of the row that was pushed last
        >>> rows = span.update(window, ages, torch.randn(len(ages), 8), k=1)        # encoder(pictures of these ages)
        >>> len(window.history(1)) == rows - 1
        True

    A window of the newest a rows stands for a latents that the encoder would give today, and errs in two ways. Its rows
    are a sample: in each coordinate their mean has the variance v/a, v that of the latents. And they are old: a row of
    age t lies where an older encoder has put it, q(t) away in the mean square of a coordinate, so that the mean of a
    rows errs, squared, by up to the mean of q over their ages; where rows move steadily, q grows with t^2, and that is
    q(a)/3. The sum of both errors, in units of v, is least for

        span = argmin over a of  staleness * q(a) / v + 1/a,        staleness = 1/3.                                (1)

    The one constant says how much of the drift is common to the rows: what moves each of them elsewhere, or there and
    back, hardly moves their mean. The span goes with its cube root then, and with its square root where q grows with t.

    q is measured: now and then the pictures of the ages `least`, 2 `least`, 4 `least`, ..., n are encoded again without
    a gradient, and the squared distance of each to its row goes into the running mean of its age; v likewise. Each q is
    then averaged with its neighbours, a power of the age between the ages, and never falls. The span follows where the
    minimum has moved by more than a fifth, since Cramer-Wold's sums are set up anew for another one.

    The same numbers give the same span, and its state, with the window's, is all that it goes on from. On a GPU each
    look waits for it once.

    Args:
        every: steps from one look to the next, >= 1. With one picture a step and 9 ages (n = 4,096), 16 steps take some
            100 passes through encoder and decoder, and a look takes 9 through the encoder.
        staleness: the constant of (1), > 0; the larger, the shorter the window.
        memory: looks over which the running means go, >= 1: the first ones are plain means, later ones exponential.
        least: the shortest span, and the youngest age, >= 2. With k new rows neither is below 2k.

    Raises:
        TypeError, ValueError: a bad argument, by name.
    """

    def __init__(self, *, every: int = 16, staleness: float = STALENESS, memory: int = 32, least: int = 16) -> None:
        self.every, self.memory = positive("every", every), positive("memory", memory)
        self.least = positive("least", least)
        if self.least < 2:
            raise ValueError(f"least is {least}; it must be at least 2")
        self.staleness = number("staleness", staleness, above=0)
        self.drift: dict[int, float] = {}
        """q by age: the mean square of a coordinate by which a row of this age is off, ascending in age."""
        self.variance = 1.0
        """Of a coordinate of the encoder's latents."""
        self._looks: dict[int, int] = {}

    def __repr__(self) -> str:
        return named(self, every=self.every, staleness=self.staleness, memory=self.memory, least=self.least)

    def begin(self, window: MovingWindow, k: int) -> None:
        """Measure an empty window over 64 rows, the paper's n, until drift is known."""
        window.measure_over(min(window.n, max(64, self._shortest(k))))

    def ages(self, window: MovingWindow, k: int) -> list[int]:
        """The ages whose drift is measured, as far as the window has such rows: `least`, its doubles, and n."""
        ages, age = [], self._shortest(k)
        while age < window.n:
            ages.append(age)
            age *= 2
        return [age for age in (*ages, window.n) if age <= len(window)]

    def update(self, window: MovingWindow, ages: Sequence[int], z: Tensor, k: int) -> int:
        """Take note of how far rows have moved, and measure the window over as many rows as (1) says.

        Args:
            window: whose rows they are.
            ages: of `ages`.
            z: [len(ages), D], what the encoder makes today of the pictures whose rows these are. A value that is not
                finite is left out.
            k: new rows a step.

        Returns:
            the span.
        """
        moved = (z.detach() - window.at(ages)).square().mean(1).tolist()
        for age, square in zip(ages, moved, strict=True):
            if math.isfinite(square):
                self.drift[age] = self._mean(age, self.drift.get(age, 0.0), square)
        self.drift = dict(sorted(self.drift.items()))
        if len(z) > 1 and math.isfinite(variance := float(z.var(0).mean())) and variance > 0:
            self.variance = self._mean(0, self.variance, variance)
        best = self.best()
        if best is not None and not window.span / BAND <= best <= window.span * BAND:
            window.measure_over(min(window.n, max(self._shortest(k), round(best))))
        return window.span

    def best(self) -> float | None:
        """The minimum of (1) from the youngest to the oldest age, where something was measured."""
        found: list[tuple[float, float]] = list(zip(self.drift, self._curve(), strict=True))
        for (age, square), older in zip(found[:-1], found[1:], strict=True):
            power = math.log(older[1] / square) / math.log(older[0] / age)
            if power > 0:  # the derivative is zero where a^(power + 1) = age^power / (staleness * q * power)
                inner = age * (1 / (age * self.staleness * square * power)) ** (1 / (power + 1))
                if age < inner < older[0]:
                    found.append((inner, square * (inner / age) ** power))
        return min(found, key=lambda each: self.staleness * each[1] + 1 / each[0], default=(None, 0.0))[0]

    def _curve(self) -> list[float]:
        """q over the latents' variance at the ages: each a geometric mean with its neighbours, and none below another
        of a younger age."""
        logs = [math.log(max(square / self.variance, 1e-30)) for square in self.drift.values()]
        curve: list[float] = []
        for i, own in enumerate(logs):
            neighbours = logs[i - 1] + logs[i + 1] if 0 < i < len(logs) - 1 else 2 * own
            curve.append(max([math.exp(own / 2 + neighbours / 4), *curve[-1:]]))
        return curve

    def state_dict(self) -> dict[str, Any]:
        """What was measured so far."""
        return {"drift": dict(self.drift), "variance": self.variance, "looks": dict(self._looks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            KeyError: it is no such state.
        """
        self.drift, self.variance, self._looks = dict(state["drift"]), state["variance"], dict(state["looks"])

    def _mean(self, age: int, mean: float, value: float) -> float:
        """The running mean with a value more."""
        self._looks[age] = looks = min(self._looks.get(age, 0) + 1, self.memory)
        return mean + (value - mean) / looks

    def _shortest(self, k: int) -> int:
        return max(self.least, 2 * k)
