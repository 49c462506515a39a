"""The tables of docs/steps.md, from the result."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.page import about, duration, fill, ratio, table

PAGE = "steps.md"


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables of the page. Returns what was written."""
    content = record.read(results / "steps.json")
    return fill(
        docs / PAGE, {"steps": "\n\n".join([_times(content), _ratios(content), about(content, content["cases"])])}
    )


def _name(case: Mapping[str, Any]) -> str:
    return f"{case['architecture']}, {case['optimizer']}, k = {case['k']}"


def _times(content: Mapping[str, Any]) -> str:
    heads = ["CPU time of a step, median", *content["cases"][0]["seconds"], "floor", "compiling"]
    rows = []
    for case in content["cases"]:
        times = [duration(1e6 * found["median"]) for found in case["seconds"].values()]
        floor = duration(1e6 * case["bytes"] / case["bandwidth"])
        rows.append([_name(case), *times, floor, duration(1e6 * case["first_three_steps"]["ours, compiled"])])
    return table(heads, rows)


def _ratios(content: Mapping[str, Any]) -> str:
    others = [name for name in content["cases"][0]["ratios"] if name != "ours, compiled"]
    heads = ["how many times as fast is ours, compiled (p20 – p80)", *(f"as {name}" for name in others)]
    heads += ["steps a second", "times the floor"]
    rows = []
    for case in content["cases"]:
        step = case["seconds"]["ours, compiled"]["median"]
        found = [ratio(case["ratios"][name], True) for name in others]
        rows.append([_name(case), *found, f"{1 / step:,.0f}", f"{step * case['bandwidth'] / case['bytes']:.2g}×"])
    return table(heads, rows)
