"""The paper's tables run again on full data sets, the most telling runs first: which, and what is kept of them."""

from __future__ import annotations

import dataclasses
import math
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mow.app import grid, paper, reproduce
from mow.app.options import Options
from mow.files import json_text, write_whole
from mow.training.trainer import default_learning_rate
from studies import collected

EPOCHS = 0.5
"""Of every run but the long ones: what k = 1 gets through on a CPU."""

CIFAR_EPOCHS = 0.25
"""Of those on CIFAR-10, whose convolutions take some five times as long a picture."""

LONG, LONGER = 3.0, 10.0
"""Epochs of longer runs: both recipes side by side at k = 64, and where the published one heads."""

CONVOLUTIONS_EPOCHS = 0.05
"""With the paper's network for Fashion-MNIST, whose steps take minutes in place of seconds."""

SEEDS = (0, 1, 2)


MISSING = {
    **dict.fromkeys(paper.SCHEDULES, "the runs have not come so far"),
    "celeba": "CelebA has no address to download it from",
}
"""Why a line has no run, by its data set."""


@dataclass(frozen=True)
class Stage:
    """Cells of some tables on one data set, run together.

    data, ks, recipes, seeds, models: which of the cells; models None for all.
    epochs: passes over the data.
    change: of `CHANGES`, from the defaults.
    evaluations: during each run.
    compiled: whether the steps are, which pays in long runs with k = 1.
    convolutions: whether Fashion-MNIST has the paper's network, its passes in bfloat16, in place of MNIST's.
    """

    data: str
    ks: tuple[int, ...]
    recipes: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS
    models: tuple[str, ...] | None = None
    epochs: float = EPOCHS
    change: str | None = None
    evaluations: int = 20
    compiled: bool = False
    convolutions: bool = False


CHANGES: dict[str, dict[str, Any]] = {
    "earlier": {"weight": 1.0},
    "lambda3": {"weight": 3.0},
    "root": {"root": True},
}
"""Options other than the defaults, by the name that their files have; all with half the default learning rate."""

BOTH = ("published", "ours")
STAGES = (
    Stage("mnist", (64, 1), ("ours",), models=("wae", "cwae"), change="earlier"),
    Stage("mnist", (64, 1), ("ours",), models=("wae",), change="root"),
    Stage("mnist", (64,), ("ours",), (0,), models=("swae",), change="root"),
    Stage("fashion-mnist", (64,), ("ours",), change="earlier"),
    Stage("fashion-mnist", (1,), ("ours",), (0,), models=("cwae",), change="earlier"),
    Stage("fashion-mnist", (64, 1), ("ours",), models=("wae", "swae"), change="root"),
    Stage("fashion-mnist", (64,), ("ours",), models=("cwae",), change="lambda3"),
    Stage("fashion-mnist", (1,), ("ours",), (0,), models=("cwae",), change="lambda3"),
    Stage("fashion-mnist", (64,), BOTH),
    Stage("mnist", (64, 1), ("published",), (0,)),
    Stage("mnist", (64,), ("ours",)),
    Stage("mnist", (32,), ("published",), (0,)),
    Stage("mnist", (1,), ("ours",), models=("wae",)),
    Stage("fashion-mnist", (1,), ("ours",), models=("wae",)),
    Stage("mnist", (1,), ("ours",), models=("swae",)),
    Stage("fashion-mnist", (1,), ("ours",), models=("swae",)),
    Stage("mnist", (1,), ("ours",)),
    Stage("fashion-mnist", (1,), ("ours",)),
    Stage("mnist", (64,), ("published",), (0,), models=("wae",), epochs=LONGER),
    Stage("mnist", (32,), ("ours",), (0,)),
    Stage("fashion-mnist", (32,), BOTH, (0,)),
    Stage("mnist", (1,), ("published",), (0,), models=("wae",), epochs=LONGER, compiled=True),
    Stage("fashion-mnist", (1,), ("published",), (0,)),
    Stage("cifar-10", (64, 1), ("ours",), (0,), epochs=CIFAR_EPOCHS, evaluations=5),
    Stage("cifar-10", (64, 1), ("ours",), (1, 2), epochs=CIFAR_EPOCHS, evaluations=5),
    Stage("cifar-10", (64, 32, 1), BOTH, (0,), epochs=CIFAR_EPOCHS, evaluations=5),
    Stage("fashion-mnist", (64,), BOTH, epochs=LONG),
    Stage("mnist", (64,), ("published",), (1, 2)),
    Stage(
        "fashion-mnist",
        (64, 32, 1),
        ("ours",),
        (0,),
        models=("cwae",),
        epochs=CONVOLUTIONS_EPOCHS,
        evaluations=1,
        convolutions=True,
    ),
)
"""In the order in which they are run. Fashion-MNIST has MNIST's network, which a CPU can train, but in the last."""


def cells(stage: Stage, **options: Any) -> Iterator[tuple[str, list[grid.Cell]]]:
    """The cells of a stage, by the table that has them.

    options: of `mow.app.reproduce.cells`, for where the data lie.

    Raises:
        ValueError: the data set cannot be had.
    """
    for what, table in paper.TABLES.items():
        if stage.data not in table.data:
            continue
        models = [model for model in table.models if stage.models is None or model in stage.models]
        if not models:
            continue
        given = {**options, "sources": {k: v for k, v in options.get("sources", {}).items() if k in table.data}}
        found, missing = reproduce.cells(
            what,
            epochs=stage.epochs,
            models=models,
            ks=stage.ks,
            recipes=stage.recipes,
            seeds=stage.seeds,
            architecture="mnist" if stage.data == "fashion-mnist" and not stage.convolutions else None,
            **given,
        )
        if stage.data in missing:
            raise ValueError(missing[stage.data])
        yield what, [_with(stage, cell) for cell in found if cell.name.startswith(f"{stage.data}-")]


def _with(stage: Stage, cell: grid.Cell) -> grid.Cell:
    """A cell with as many evaluations and checkpoints as its stage says, compiled or in bfloat16 if it says so."""
    every = math.ceil(cell.options.steps / stage.evaluations)
    options = dataclasses.replace(cell.options, evaluate_every=every, checkpoint_every=every, compile=stage.compiled)
    if stage.convolutions:
        options = dataclasses.replace(options, precision="bf16")
    return grid.Cell(cell.name, changed(options, stage.change))


def changed(options: Options, change: str | None) -> Options:
    """Options that are the defaults, with one of `CHANGES`; None for none."""
    if change is None:
        return options
    return dataclasses.replace(options, **CHANGES[change], lr=default_learning_rate(options.k) / 2)


def folder(out: Path, stage: Stage, what: str) -> Path:
    """Where the runs of a table are: longer ones, and those with a change or another network, apart, as they have the
    same names."""
    apart = stage.change or ("convolutions" if stage.convolutions else "long" if stage.epochs > EPOCHS else "")
    return out / (f"{what}-{apart}" if apart else what)


def collect(out: Path, results: Path) -> list[Path]:
    """What the folders hold that is finished, as a report of `mow reproduce` each, in results, beside what those have
    already."""
    written = []
    for path in sorted(out.glob("table?*")):
        done = {each.parent.name: grid.result_of(each.parent) for each in sorted(path.glob("*/result.json"))}
        found = {name: result for name, result in done.items() if result is not None}
        if found:
            file = results / f"{path.name}.json"
            report = reproduce.report(path.name.partition("-")[0], found, MISSING, path)
            report["results"] = collected.held(file) | report["results"]
            written.append(write_whole(file, json_text(report, indent=None) + "\n"))
    return written


def cifar_from_jpeg(archive: Path, out: Path) -> tuple[int, int]:
    """CIFAR-10 from an archive of JPEG files train/CLASS/NAME.jpg and test/CLASS/NAME.jpg, as an .npz. -> counts.

    Recompressed with loss, so not the published pictures: what is trained on them says so.
    """
    parts: dict[str, list[tuple[str, np.ndarray]]] = {"train": [], "test": []}
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(".jpg") else None
            if file is not None:
                *_, part, label, _ = Path(member.name).parts
                parts[part].append((label, np.asarray(Image.open(BytesIO(file.read())).convert("RGB"))))
    classes = sorted({label for label, _ in parts["train"]})
    arrays = {part: np.stack([picture for _, picture in several]) for part, several in parts.items()}
    labels = {
        f"{part}_labels": np.array([classes.index(label) for label, _ in several]) for part, several in parts.items()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, **arrays, **labels)  # type: ignore[arg-type] # it takes allow_pickle, too
    return len(arrays["train"]), len(arrays["test"])
