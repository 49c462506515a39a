"""The cells of the experiment, stage by stage: learning rates, the comparison of k = 1 with k = 64, what else helps."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from mow.app import data, paper
from mow.app.grid import Cell
from mow.app.options import Options
from mow.training.trainer import default_learning_rate

SEEDS = (0, 1, 2)
MULTIPLES = (0.5, 1, 2)
"""Of 1e-3 sqrt(k/64), half the default learning rate, for k = 1 and k = 64 alike; doubled while the largest is best."""
SELECTION_SEED = 100
SELECTION_SEEDS = (100, 101, 102)
"""Unlike those of the comparison."""

VARIANTS: dict[str, dict[str, Any]] = {
    "reference": {"weighting": "reference"},
    "no-reencode": {"reencode": False},
    "refresh": {"refresh": 16},
    "betas": {"beta1": round(0.9 ** (1 / 64), 8), "beta2": round(0.999 ** (1 / 64), 8)},
    "beta2": {"beta2": round(0.999 ** (1 / 64), 8)},
    "sampled-prior": {"prior": "normal-sample"},
    "no-warm-up": {"warm_up": False},
}
"""What is changed in a run with k = 1 and compensated weighting. The betas are those that forget as many pictures."""


PUBLISHED = {**paper.RECIPES["published"], "lr": 1e-3}
"""The public code's recipe at k = 64."""

WAYS: dict[str, dict[str, Any]] = {
    "published": PUBLISHED,
    "root": {"root": True},
    **{f"w{weight:g}": {"root": False, "weight": weight} for weight in (1.0, 3.0, 10.0, 30.0, 100.0)},
    **{f"{way}x2": {**how, "multiple": 2} for way, how in (("w5", {"weight": 5.0}), ("w10", {"weight": 10.0}))},
    "rootx2": {"root": True, "multiple": 2},
    "w10x2cosine": {"weight": 10.0, "multiple": 2, "schedule": "cosine"},
    "rootx2cosine": {"root": True, "multiple": 2, "schedule": "cosine"},
}
"""How the distance is weighed against the reconstruction, and the learning rate where that is another multiple."""

WEIGHED = {
    ("wae", 64): tuple(WAYS),
    ("swae", 64): ("published", "root", "w1", "w3", "w10", "w10x2"),
    ("cwae", 64): ("published", "root", "w1", "w3", "w10"),
    ("wae", 1): ("root", "w1", "w10"),
    ("cwae", 1): ("root", "w1", "w3"),
    ("swae", 1): ("root", "w1"),
}
"""Which of these are tried, by model and k."""

CLOSE = ("published", "root", "w1", "w3", "w10x2")
"""Those of them that run with three seeds at k = 64."""


def selection_data(path: Path) -> Path:
    """Fashion-MNIST's 60,000 train pictures, the last 10,000 of them for choosing: the test pictures stay out of it."""
    if not path.exists():
        source = data.load("fashion-mnist")
        if source.embedded:
            raise FileNotFoundError("fashion-mnist was not found; the experiment needs the full data set")
        train, labels = source.train.numpy()[:, 0], source.train_labels.numpy()
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(
            path,
            train=train[:-10_000],
            test=train[-10_000:],
            train_labels=labels[:-10_000],
            test_labels=labels[-10_000:],
        )
    return path


def selection(pictures: int, file: Path, pairs: list[tuple[str, int]], multiples: tuple[float, ...]) -> list[Cell]:
    return [
        _cell(f"select-{model}-k{k}-x{multiple:g}", pictures, model, k, SELECTION_SEED, multiple, data=str(file), dim=8)
        for multiple in multiples
        for model, k in pairs
    ]


def chosen(results: dict[str, dict[str, Any]], model: str, k: int) -> float:
    """The multiple of the default learning rate with the least cost on the test part."""
    prefix = f"select-{model}-k{k}-x"
    found = {float(name[len(prefix) :]): results[name]["test_cost"] for name in results if name.startswith(prefix)}
    return min(found, key=found.__getitem__)


def weights(file: Path) -> list[Cell]:
    """Each way to weigh the distance over one pass, scored on the held-out part."""
    cells = []
    for (model, k), ways in WEIGHED.items():
        for way in ways:
            for seed in SELECTION_SEEDS if k == 64 and way in CLOSE else SELECTION_SEEDS[:1]:
                others = {"data": str(file), "dim": 8, **WAYS[way]}
                multiple = others.pop("multiple", 1)
                name = f"weight-{model}-k{k}-{way}-seed{seed}"
                cells.append(_cell(name, 50_000, model, k, seed, multiple, **others))
    return cells


def comparison(pictures: int, multiples: dict[tuple[str, int], float], models: tuple[str, ...]) -> list[Cell]:
    return [
        _cell(f"compare-{model}-k{k}-seed{seed}", pictures, model, k, seed, multiples[model, k])
        for seed in SEEDS
        for model in models
        for k in (1, 64)
    ]


def variants(pictures: int, multiple: float, model: str, names: tuple[str, ...]) -> list[Cell]:
    """Half as long: as the learning rate is constant, a run of the comparison half way is what they are held to."""
    half = 3 * math.ceil(pictures / 6)
    return [
        _cell(f"variant-{model}-{name}-seed{seed}", half, model, 1, seed, multiple, **VARIANTS[name])
        for seed in SEEDS
        for name in names
    ]


def _cell(name: str, pictures: int, model: str, k: int, seed: int, multiple: float, **others: Any) -> Cell:
    options = {
        "data": "fashion-mnist",
        "architecture": "mnist",
        "lr": multiple * default_learning_rate(k) / 2,
        "steps": math.ceil(pictures / k),
        "evaluate_every": math.ceil(pictures / k / 6),
        "checkpoint_every": math.ceil(pictures / k / 6),
        "log_every": math.ceil(pictures / k / 60),
        "threads": 1,
        "root": False,
        "weight": 1.0,
    }
    return Cell(name, Options(model=model, k=k, seed=seed, **options | others))
