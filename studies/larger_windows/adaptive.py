"""The runs behind the adaptive span: windows of fixed sizes against one that is as long as the drift allows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.record import short
from mow.app import grid, reproduce
from mow.app.options import Options
from mow.files import read_json_lines
from studies.larger_windows.experiment import AGE, SEEDS

CAPACITY = 4096
"""Rows of the window whose span adapts."""

WINDOWS: dict[str, dict[str, Any]] = {
    "adaptive": {"n": CAPACITY, "adaptive": True},
    "512, corrected": {"n": 512, "correct_drift": True},
    "64": {"n": 64},
    "256": {"n": 256},
    "1024": {"n": 1024},
    "4096": {"n": 4096},
    "256, refreshed": {"n": 256, "refresh": AGE},
    "1024, refreshed": {"n": 1024, "refresh": 32},
}

WEIGHTS = {"cwae": 1.0, "wae": 10.0, "swae": 10.0}
"""The defaults, with and without a logarithm of the distance."""

RATES = {"cosine": 2.5e-4, "constant": 1.25e-4}
"""Schedule -> the first learning rate: over all steps both have the same mean, half the default at k = 1."""

ORDER = (("512, corrected", "64"), ("256", "1024", "4096"), ("adaptive", "1024, refreshed"), ("256, refreshed",))
"""The windows, those first that decide most."""


def cells(pictures: int) -> list[grid.Cell]:
    """What decides most comes first: any number of the first cells is worth a page."""
    return [
        grid.Cell(
            f"{data}-{model}-{schedule}-{window.replace(', ', '-').replace(' ', '-')}-seed={seed}",
            options(data, model, schedule, WINDOWS[window], seed, pictures),
        )
        for data, model, schedule, window, seed in _all()
    ]


def _all() -> Iterator[tuple[str, str, str, str, int]]:
    """Data, model, schedule, window and seed of each run."""
    for schedule, windows in itertools.product(RATES, ORDER):
        for models, data in itertools.product((("cwae", "wae"), ("swae",)), ("fashion-mnist", "mnist")):
            for model, window, seed in itertools.product(models, windows, SEEDS):
                yield data, model, schedule, window, seed


def options(data: str, model: str, schedule: str, window: Mapping[str, Any], seed: int, pictures: int) -> Options:
    """Those of a run, with those of its window."""
    third = math.ceil(pictures / 3)
    rare = {"evaluate_every": third, "checkpoint_every": third, "log_every": math.ceil(pictures / 60)}
    same = {"architecture": "mnist", "dim": 8, "threads": 1, "lr": RATES[schedule], "weight": WEIGHTS[model]}
    return Options(model=model, data=data, seed=seed, steps=pictures, schedule=schedule, **{**same, **rare, **window})


def kept(result: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the page needs of a finished run: scores, also on the way, how an adaptive span and the drift went, and the
    share of the drift that a correction has left, the median of what was logged."""
    found, lines = reproduce.public(result), read_json_lines(folder / "metrics.jsonl")
    found["way"] = [
        {"step": line["step"], "cramer_wold": short(line["test_cramer_wold"])}
        for line in lines
        if "test_cramer_wold" in line
    ]
    if result["resolved"].get("correct_drift"):
        found["left"] = short(median(line["left"] / line["moved"] for line in lines if line.get("moved")))
    if result["resolved"]["adaptive"]:
        found["looks"] = [
            {
                "step": line["step"],
                "span": line["span"],
                "drift": {age: short(drift) for age, drift in line["drift"].items()},
            }
            for line in lines
            if line["drift"]
        ]
    return found


def window_of(result: dict[str, Any]) -> str:
    """The name of a run's window."""
    resolved = result["resolved"]
    for name, options in WINDOWS.items():
        whole = {"n": None, "adaptive": False, "correct_drift": False, "refresh": None, **options}
        if all(resolved.get(option, False) == value for option, value in whole.items()):
            return name
    raise ValueError(f"{result['name']} has none of the windows {', '.join(WINDOWS)}")
