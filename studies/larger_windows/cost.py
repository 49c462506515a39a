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

WINDOWS: tuple[tuple[int, dict[str, Any]], ...] = (
    *((span, {}) for span in (64, 256, 1024, 4096)),
    (1024, {"refresh": 32}),
    (512, {"correction": mow.DriftCorrection()}),
)
"""The span with looks, or a window of so many rows and what it has in place of looks."""
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
        others = [_steps(model, pictures, *window) for window in WINDOWS]
        small = _steps(model, pictures, None, {})
        ratios: list[list[float]] = [[] for _ in WINDOWS]
        for turn in range(turns + 1):
            for own, stepping in zip(ratios, others, strict=True):
                pair = [small, stepping][:: -1 if turn % 2 else 1]
                seconds = {each: _seconds(each, steps) for each in pair}
                ratio = seconds[stepping] / seconds[small]
                if turn:  # in the first, what is kept begins
                    own.append(ratio)
        for (span, instead), values in zip(WINDOWS, ratios, strict=True):
            fifths = quantiles(values, n=10)
            named = {"p20": fifths[1], "median": fifths[4], "p80": fifths[7]}
            found.append(
                {"model": model, "span": span, "refresh": instead.get("refresh"), "corrected": "correction" in instead}
                | {name: short(value) for name, value in named.items()}
            )
    return found


def _steps(model: str, pictures: Tensor, span: int | None, instead: dict[str, Any]) -> Iterator[object]:
    """Steps over a window of 64; with a span over the newest rows of a large one, with looks; and with something in
    their place over one of so many rows."""
    torch.manual_seed(0)
    adaptive = None if span is None or instead else Held()
    shape, window = pictures.shape[1:], mow.MovingWindow(CAPACITY if adaptive else span or 64, 8)
    networks = mlp_encoder(shape, 8), mlp_decoder(shape, 8)
    trainer = mow.Trainer(*networks, DISTANCES[model](), window, adaptive=adaptive, **instead)
    window.measure_over(span)
    return trainer.run(pictures, 10**9, measured=lambda step: False)


def _seconds(stepping: Iterator[object], steps: int) -> float:
    begun = time.process_time()
    for _ in range(steps):
        next(stepping)
    return time.process_time() - begun
