"""Interleaved timing: every round times every entrant once, in random order, so that all meet the same machine."""

from __future__ import annotations

import contextlib
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

import mow_kernels as mk


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: tuple[int, int] = (5, 30)
    """At least and at most; in between as many as `seconds` allow."""
    seconds: float = 5.0
    """For all rounds together."""
    sample_seconds: float = 2e-3
    """What the repeated calls of one sample add up to."""
    slow: float = 1.0
    """A call that takes longer, in seconds, joins the first `slow_rounds` rounds only."""
    slow_rounds: int = 3


@dataclass
class Entrant:
    """A call to be timed, and the setting that it is timed in."""

    name: str
    call: Callable[[], object]
    backend: str | None = None
    threads: int | None = None
    """PyTorch's; None leaves them alone."""
    gradients: bool = True
    seconds: float = 0.0
    """One warm call."""
    repeats: int = 1
    """Calls a sample."""

    @contextlib.contextmanager
    def setting(self) -> Iterator[None]:
        """Backend, threads and grad mode; entered outside the time that is taken."""
        threads = torch.get_num_threads()
        backend = mk.use_backend(self.backend) if self.backend else contextlib.nullcontext()
        with backend, torch.set_grad_enabled(self.gradients):
            torch.set_num_threads(self.threads or threads)
            try:
                yield
            finally:
                torch.set_num_threads(threads)

    def warm_up(self, effort: Effort) -> None:
        """Call until what is compiled on the way is compiled, and choose how many calls make a sample."""
        with self.setting():
            self.seconds = _seconds(self.call, 1)
            for _ in range(2):
                if self.seconds < effort.slow:
                    self.seconds = min(self.seconds, _seconds(self.call, 3))
        self.repeats = max(1, math.ceil(effort.sample_seconds / self.seconds))

    def sample(self) -> float:
        """Seconds a call, over `repeats` calls after one that is not counted (where that is cheap)."""
        with self.setting():
            if self.seconds < 0.01:
                self.call()
            return _seconds(self.call, self.repeats)


def _seconds(call: Callable[[], object], repeats: int) -> float:
    started = time.perf_counter_ns()
    for _ in range(repeats):
        call()
    return (time.perf_counter_ns() - started) / repeats / 1e9


def interleave(entrants: Sequence[Entrant], effort: Effort, seed: int = 0) -> dict[str, list[float]]:
    """Seconds a call of each warm entrant, a number a round; shorter lists belong to the slow ones."""
    quick = [entrant for entrant in entrants if entrant.seconds < effort.slow]
    a_round = sum(entrant.seconds * (entrant.repeats + 1) for entrant in quick)
    least, most = effort.rounds
    rounds = min(most, max(least, round(effort.seconds / a_round))) if quick else effort.slow_rounds
    samples: dict[str, list[float]] = {entrant.name: [] for entrant in entrants}
    shuffle = random.Random(seed).shuffle
    collecting = gc.isenabled()
    gc.disable()
    try:
        for index in range(rounds):
            order = list(entrants if index < effort.slow_rounds else quick)
            shuffle(order)
            for entrant in order:
                samples[entrant.name].append(entrant.sample())
    finally:
        if collecting:
            gc.enable()
    return samples


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, p20 and p80."""
    if len(values) == 1:
        return dict.fromkeys(("median", "p20", "p80"), values[0])
    fifths = statistics.quantiles(values, n=5, method="inclusive")
    return {"median": statistics.median(values), "p20": fifths[0], "p80": fifths[3]}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Of the per-round ratios above / below, over the rounds that both took part in."""
    return summary([a / b for a, b in zip(above, below, strict=False)])
