"""docs/choosing.md: its tables from the results of the studies that measured them, which have pages of their own."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.page import fill, table
from mow.files import read_json_lines
from studies.larger_windows.report import COLUMNS
from studies.neighbours.report import METHODS
from studies.neighbours.window import BATCH, PICTURES
from studies.paired import interval

PAGE = "choosing.md"
Runs = Sequence[Mapping[str, Any]]

DISTANCES = {
    "test_reconstruction": ("reconstruction", ".2f"),
    "test_cwae_distance_exact": ("Cramer-Wold distance", ".5f"),
    "test_mmd": ("MMD", ".4f"),
    "test_sliced_wasserstein": ("sliced-Wasserstein", ".4f"),
    "test_frechet_classifier": ("Fréchet, classifier", ".1f"),
}
"""Score -> its heading and form."""


def write(studies: Path, docs: Path) -> list[Path]:
    """Replace what stands between the markers of the page. Returns what was written.

    Args:
        studies: the folder of the studies, of whose results the tables are made.

    Raises:
        FileNotFoundError: no page, or no results of a study.
        ValueError: the page lacks a marker; nothing is written then.
    """
    reproduction = studies / "reproduction" / "results"
    compared = json.loads((reproduction / "compare.json").read_text(encoding="utf-8"))
    variants = json.loads((reproduction / "variant.json").read_text(encoding="utf-8"))
    windows = record.read(studies / "larger_windows" / "results" / "scores.json")["runs"]
    sections = {
        "distance": distances(compared),
        "n": sizes(windows),
        "k": batches(read_json_lines(studies / "neighbours" / "results" / "window.jsonl")),
        "weighting": weightings(variants, compared),
    }
    return fill(docs / PAGE, sections)


def distances(compared: Runs) -> str:
    """The models that were compared, at k = 1."""
    of_one = [run for run in compared if run["k"] == 1 and run["finished"]]
    rows = []
    for model in dict.fromkeys(run["model"] for run in of_one):
        runs = [run for run in of_one if run["model"] == model]
        rows.append(
            [model.upper(), *(_mean((run[name] for run in runs), form) for name, (_, form) in DISTANCES.items())]
        )
    seeds = len({run["seed"] for run in of_one})
    heads = ["k = 1", *(title for title, _ in DISTANCES.values())]
    return f"{of_one[0]['pictures']:,} pictures, mean of {seeds} seeds:\n\n{table(heads, rows)}"


def sizes(runs: Runs) -> str:
    """The windows at k = 1, as they are and encoded again in time."""
    groups: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for run in runs:
        if run["resolved"]["k"] == 1:
            groups.setdefault((run["resolved"]["n"], run["resolved"]["refresh"] or 0), []).append(run)
    scores = ("test_reconstruction", "test_cwae_distance_exact")
    rows = [
        [
            f"{n:,}",
            f"every {refresh} steps" if refresh else "never",
            *(_mean((COLUMNS[name][1] * run[name] for run in several), ",.1f") for name in scores),
        ]
        for (n, refresh), several in sorted(groups.items())
    ]
    about = f"{runs[0]['pictures']:,} pictures, mean of {len(next(iter(groups.values())))} seeds"
    return (
        f"{about}:\n\n{table(['n, at k = 1', 'encoded again', 'reconstruction', 'Cramer-Wold distance, x 1e4'], rows)}"
    )


def batches(lines: Runs) -> str:
    """k pictures in memory, by the window and by the classical method."""
    rows = []
    for method, k in (("window", 1), ("window", 4), ("small", 1), ("small", 4), ("full", BATCH)):
        found = [line for line in lines if (line["settings"]["method"], line["settings"]["k"]) == (method, k)]
        at = found[0]["pictures"].index(PICTURES)
        scores = (
            _mean((line[name][at] for line in found), form)
            for name, form in (("test_reconstruction", ".1f"), ("test_cramer_wold", ".4f"))
        )
        rows.append([METHODS[method][0], str(k), f"{1024 * found[0]['step_mib']:,.0f} KiB", *scores])
    seeds = len(found)
    heads = ["method", "k", "memory of a step", "reconstruction", "Cramer-Wold distance"]
    return f"{PICTURES:,} pictures, mean of {seeds} seeds:\n\n{table(heads, rows)}"


def weightings(variants: Runs, compared: Runs) -> str:
    """The reference weighting against the compensated one, seed by seed."""
    changed = [run for run in variants if "-reference-" in run["name"]]
    base = {(run["model"], run["seed"]): run for run in compared if run["k"] == 1}
    rows = []
    for column, (title, form) in enumerate((("reconstruction", ".2f"), ("Cramer-Wold distance", ".5f")), 1):
        pairs = [
            (_at(base[run["model"], run["seed"]], run["pictures"])[column], _at(run, run["pictures"])[column])
            for run in changed
        ]
        low, mean, high = interval([b - a for a, b in pairs])
        means = (statistics.fmean(each) for each in zip(*pairs, strict=True))
        rows.append([title, *(f"{value:{form}}" for value in means), f"{mean:+{form}} [{low:+{form}}, {high:+{form}}]"])
    about = f"{changed[0]['pictures']:,} pictures, k = 1, {len(changed)} seeds, with the 95 % interval"
    return f"{about}:\n\n{table(['', 'compensated', 'reference', 'reference less compensated'], rows)}"


def _at(run: Mapping[str, Any], pictures: int) -> list[float]:
    return next(point for point in run["curve"] if point[0] == pictures)


def _mean(values: Iterable[float], form: str) -> str:
    return format(statistics.fmean(values), form)
