"""Steps to a fixed quality over batch sizes 1 to 512: `mow critical-batch` with ten seeds."""

from __future__ import annotations

from functools import cache
from typing import Any

from mow.app import data
from mow.app.critical_batch_demo import BATCHES, EVERY, LIMIT, THRESHOLD, Task, measure

SEEDS = 10


def jobs() -> list[dict[str, Any]]:
    return [
        {"batch": batch, "seed": seed, "threshold": THRESHOLD, "every": EVERY, "limit": LIMIT}
        for seed in range(SEEDS)
        for batch in BATCHES
    ]


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """-> steps (None where the threshold was not reached), curve."""
    task, origin = _task()
    result = measure(task, **settings)
    return {"data": origin, **{name: result[name] for name in ("steps", "curve")}}


@cache
def _task() -> tuple[Task, str]:
    source = data.load("fashion-mnist")
    return Task(source), source.origin.split(", found")[0]
