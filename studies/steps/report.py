"""The tables of docs/steps.md, from the result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.page import about, duration, fill, ratio, table
from studies.steps.measure import CASES

PAGE = "steps.md"


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables of the page. Returns what was written."""
    found = [record.read(path) for name in CASES if (path := results / f"{name}.json").exists()]
    commits = {case["commit"]: [other for other in found if other["commit"] == case["commit"]] for case in found}
    made = [about(cases[0], cases) for cases in commits.values()]
    return fill(docs / PAGE, {"steps": "\n\n".join([_times(found), _ratios(found), *made])})


def _name(case: Mapping[str, Any]) -> str:
    threads = f", {case['threads']} threads" if case["threads"] > 1 else ""
    return f"{case['architecture']}, {case['optimizer']}, k = {case['k']}{threads}"


def _times(cases: Sequence[Mapping[str, Any]]) -> str:
    heads = ["a step, median", *cases[0]["seconds"], "floor", "compiling", "pays from"]
    rows = []
    for case in cases:
        times = [duration(1e6 * found["median"]) for found in case["seconds"].values()]
        floor = duration(1e6 * case["bytes"] / case["bandwidth"])
        compiling = case["first_three_steps"]["ours, compiled"]
        rows.append([_name(case), *times, floor, duration(1e6 * compiling), _pays_from(case, compiling)])
    return table(heads, rows)


def _pays_from(case: Mapping[str, Any], compiling: float) -> str:
    """After how many steps what compiling took has been gained."""
    gained = case["seconds"]["ours"]["median"] - case["seconds"]["ours, compiled"]["median"]
    return f"{compiling / gained:,.0f} steps" if gained > 0 else "-"


def _ratios(cases: Sequence[Mapping[str, Any]]) -> str:
    others = [name for name in cases[0]["ratios"] if name != "ours, compiled"]
    heads = ["how many times as fast is ours, compiled (p20 – p80)", *(f"as {name}" for name in others)]
    heads += ["steps a second", "times the floor"]
    rows = []
    for case in cases:
        step = case["seconds"]["ours, compiled"]["median"]
        found = [ratio(case["ratios"][name], True) for name in others]
        rows.append([_name(case), *found, _few(1 / step), f"{_few(step * case['bandwidth'] / case['bytes'])}×"])
    return table(heads, rows)


def _few(value: float) -> str:
    """Two digits or more, without an exponent."""
    return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
