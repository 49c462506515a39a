"""What a step costs with a span that adapts: processor time against a window of 64, by turns in one process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor

import mow
from benchmarks.record import short
from mow.app import data
from mow.app.models import mlp_decoder, mlp_encoder
from mow.window.distances import Distance
from studies.larger_windows.adaptive import CAPACITY

SPANS = (64, 256, 1024, 4096)
DISTANCES: dict[str, type[Distance]] = {"cwae": mow.CramerWold, "wae": mow.MMD}


class Held(mow.AdaptiveSpan):
    """Looks, but leaves the span as it is."""

    def best(self) -> float | None:
        super().best()
        return None


def measure(steps: int = 32, turns: int = 61) -> list[dict[str, Any]]:
    """For each distance and span the ratio of processor time to that of n = 64: median, p20 and p80 over the turns.

    Args:
        steps: of a turn, a multiple of those between two looks. Few, and each turn beside one with n = 64, before or
            after it by turns: both share what else the machine does then.
        turns: of each.
    """
    torch.set_num_threads(1)
    pictures, found = data.load("fashion-mnist").train, []
    for model in DISTANCES:
        others = {span: _steps(model, pictures, CAPACITY, span) for span in SPANS}
        small = _steps(model, pictures, 64, None)
        ratios: dict[int, list[float]] = {span: [] for span in SPANS}
        for turn in range(turns + 1):
            for span, stepping in others.items():
                pair = [small, stepping][:: -1 if turn % 2 else 1]
                seconds = {each: _seconds(each, steps) for each in pair}
                ratio = seconds[stepping] / seconds[small]
                if turn:  # in the first, what is kept begins
                    ratios[span].append(ratio)
        for span, values in ratios.items():
            fifths = quantiles(values, n=10)
            named = {"p20": fifths[1], "median": fifths[4], "p80": fifths[7]}
            found.append({"model": model, "span": span, **{name: short(value) for name, value in named.items()}})
    return found


def _steps(model: str, pictures: Tensor, n: int, span: int | None) -> Iterator[object]:
    torch.manual_seed(0)
    shape, window = pictures.shape[1:], mow.MovingWindow(n, 8)
    adaptive = None if span is None else Held()
    trainer = mow.Trainer(mlp_encoder(shape, 8), mlp_decoder(shape, 8), DISTANCES[model](), window, adaptive=adaptive)
    window.measure_over(span)
    return trainer.run(pictures, 10**9, measured=lambda step: False)


def _seconds(stepping: Iterator[object], steps: int) -> float:
    begun = time.process_time()
    for _ in range(steps):
        next(stepping)
    return time.process_time() - begun
