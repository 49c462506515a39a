"""The runs: every size of the window in every way, over three seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from mow.app import grid
from mow.app.options import Options
from mow.training.trainer import default_learning_rate

SIZES = (64, 256, 1024, 4096)
AGE = 64
"""Steps that the oldest row of a window lives through in the second and the third way."""
SEEDS = (0, 1, 2)
WAYS = ("one", "refreshed", "passed")


def cells(pictures: int, sizes: Sequence[int] = SIZES, seeds: Sequence[int] = SEEDS) -> list[grid.Cell]:
    """The largest windows first: they take the longest."""
    return [
        grid.Cell(f"n={n}-{way}-seed={seed}", _options(n, way, seed, pictures))
        for n in sorted(sizes, reverse=True)
        for way in (WAYS if n > AGE else ("one",))
        for seed in seeds
    ]


def _options(n: int, way: str, seed: int, pictures: int) -> Options:
    k = n // AGE if way == "passed" else 1
    steps = math.ceil(pictures / k)
    third = math.ceil(steps / 3)
    rare = {"evaluate_every": third, "checkpoint_every": third, "log_every": math.ceil(steps / 60)}
    refresh = AGE if way == "refreshed" else None
    return Options(
        model="cwae",
        data="fashion-mnist",
        n=n,
        k=k,
        seed=seed,
        steps=steps,
        lr=default_learning_rate(k) / 2,
        refresh=refresh,
        threads=1,
        **rare,
    )
