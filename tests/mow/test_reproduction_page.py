"""The tables of docs/reproduction.md from results."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")

from mow.app import grid
from studies.paired import interval
from studies.reproduction import experiment, report

PICTURES = (0, 100, 200)


def run(name: str, curve: list[tuple[float, float]], **others: Any) -> dict[str, Any]:
    """A finished run whose scores are made up."""
    words = name.split("-")
    kept = {"name": name, "finished": True, "model": words[1], "n": 64, "seed": 0, "lr": 1e-3, "k": 1}
    kept |= {"data": "pictures", "pictures": 200, "seconds": 3.0, "test_cost": 9.0}
    kept |= {score: 10 * curve[-1][1] for score in report.SCORES}
    points = [(133.0, 0.6), *curve]
    return {**kept, "curve": [[at, *point] for at, point in zip(PICTURES, points, strict=False)], **others}


def compared(k: int, seed: int, lower: float = 0.0, **others: Any) -> dict[str, Any]:
    curve = [(20.0 + seed - lower, 0.02), (18.0 + seed - lower, 0.01 + lower / 100)]
    return run(f"compare-cwae-k{k}-seed{seed}", curve, k=k, seed=seed, **others)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_interval_is_students() -> None:
    low, mean, high = interval([1.0, 2.0, 3.0])
    assert (low, mean, high) == pytest.approx((2 - 4.30265 / 3**0.5, 2, 2 + 4.30265 / 3**0.5), rel=1e-5)


def test_differences_are_paired_by_seed() -> None:
    """Seeds differ by 1, k = 1 and k = 64 by 0.5 (and a little): only pairs can tell."""
    runs = [compared(64, seed) for seed in range(3)] + [compared(1, seed, 0.5 + seed / 100) for seed in range(3)]
    random.Random(0).shuffle(runs)
    lines = report.comparison_tables(runs).splitlines()
    first = next(cells(line) for line in lines if line.startswith("| 100 |"))
    assert first[:5] == ["100", "reconstruction", "3", "21.00", "20.49"]
    assert first[5].startswith("-0.51 [-0.53, -0.4") and first[6] == "better"
    second = cells(lines[[cells(line)[0] for line in lines].index("200") + 1])
    assert second[1] == "Cramer-Wold distance" and second[6] == "worse"
    assert sum(line.startswith("| at the end |") for line in lines) == len(report.SCORES)
    alone = report.comparison_tables([compared(64, 0), compared(1, 0, 0.5)]).splitlines()
    assert cells(alone[4])[5:] == ["-0.50", ""], "one seed has no interval"
    same = report.comparison_tables([compared(k, seed, (-1) ** (seed + k) / 9) for k in (1, 64) for seed in range(2)])
    assert "not told apart" in same


def test_an_unfinished_run_is_compared_as_far_as_it_went() -> None:
    runs = [compared(k, seed) for k in (1, 64) for seed in range(3)]
    runs[2] = {**runs[2], "finished": False, "curve": runs[2]["curve"][:2]}
    runs[2] = {name: value for name, value in runs[2].items() if name not in report.SCORES}
    lines = [cells(line) for line in report.comparison_tables(runs).splitlines() if line.startswith("| ")]
    seeds = {line[0]: line[2] for line in lines if line[0]}
    assert (seeds["100"], seeds["200"], seeds["at the end"]) == ("3", "2", "2")


def test_the_least_cost_is_bold_and_a_stopped_run_is_told() -> None:
    runs = [run(f"select-wae-k1-x{x:g}", [(20, 0.02)], test_cost=cost) for x, cost in ((0.5, 3), (1, 2), (2, 4))]
    assert cells(report.selection_table(runs).splitlines()[3]) == ["WAE", "1", "3.00", "**2.00**", "4.00"]
    stopped = run("select-wae-k1-x4", [(25.0, 0.03)], finished=False)
    text = report.selection_table([*runs, stopped])
    assert (
        "x 4 was stopped at 100 pictures" in text and "25.00 and 0.0300 at x 4, against 20.00 and 0.0200 at x 1" in text
    )


def test_changes_are_held_to_the_same_seed_at_the_same_pictures() -> None:
    base = [compared(1, seed) for seed in range(3)]
    changed = [
        run(f"variant-cwae-betas-seed{seed}", [(19.0 + seed, 0.015)], seed=seed, pictures=100) for seed in range(3)
    ]
    lines = report.variants_table(changed, base).splitlines()
    assert cells(lines[2])[1:] == ["3", "-1.00 [-1.00, -1.00]", "-0.00500 [-0.00500, -0.00500]"]
    assert "Unchanged, the mean over the seeds is: reconstruction 21.00, cramer-wold 0.02000." in lines[-1]
    assert report.variants_table([], base) == "Not measured."


def test_what_is_collected(pictures_file: Path, tmp_path: Path) -> None:
    values = {"data": [str(pictures_file)], "n": [16], "dim": [4], "steps": [20], "evaluate_every": [10]}
    (cell,) = grid.cells(values)
    grid.run_cell(grid.Cell("compare-cwae-k1-seed0", cell.options), tmp_path / "compare-cwae-k1-seed0")
    cut = tmp_path / "select-cwae-k1-x2"
    grid.run_cell(grid.Cell(cut.name, cell.options), cut)
    (cut / "result.json").unlink()
    report.collect(tmp_path, tmp_path)
    (whole,), (part,) = (json.loads((tmp_path / f"{stage}.json").read_text()) for stage in ("compare", "select"))
    assert whole["finished"] and [point[0] for point in whole["curve"]] == [0, 10, 20] and "test_cost" in whole
    assert not part["finished"] and part["curve"] == whole["curve"] and "test_cost" not in part
    assert str(tmp_path) not in json.dumps([whole, part]) and str(pictures_file.parent) not in json.dumps(whole)


def test_the_stages_of_the_experiment(tmp_path: Path) -> None:
    pairs = [("cwae", 1), ("cwae", 64)]
    chosen = experiment.selection(1000, tmp_path / "x.npz", pairs, (1, 2))
    assert {(cell.name, cell.options.lr, cell.options.steps) for cell in chosen} == {
        ("select-cwae-k1-x1", 1.25e-4, 1000),
        ("select-cwae-k1-x2", 2.5e-4, 1000),
        ("select-cwae-k64-x1", 1e-3, 16),
        ("select-cwae-k64-x2", 2e-3, 16),
    }
    costs = {"cwae-k1-x1": 4, "cwae-k1-x2": 3, "cwae-k64-x1": 2, "cwae-k64-x2": 5}
    results = {f"select-{name}": {"test_cost": cost} for name, cost in costs.items()}
    best = {pair: experiment.chosen(results, *pair) for pair in pairs}
    assert best == {("cwae", 1): 2, ("cwae", 64): 1}
    runs = experiment.comparison(1000, best, ("cwae",))
    assert len(runs) == 2 * len(experiment.SEEDS) and all(cell.options.data == "fashion-mnist" for cell in runs)
    changed = experiment.variants(1000, 2, "cwae", ("betas",))
    assert {cell.options.steps for cell in changed} == {501}
    assert changed[0].options.evaluate_every * 6 >= 501 and 501 % (runs[0].options.evaluate_every) == 0
