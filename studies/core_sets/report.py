"""The tables of docs/core-sets.md, from the results."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import record
from benchmarks.page import about, duration, fill, ratio, row, size, spread, table
from studies import demo_runs

PAGE = "core-sets.md"
_NAMES = {
    "cpp": "`mk.k_center`, cpp",
    "reference": "`mk.k_center`, reference",
    "loop": "plain PyTorch loop",
    "matrix": "N x N matrix, running minimum of its rows",
    "matrix, columns": "N x N matrix, minimum over the taken columns in each round",
}


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables of the page. Returns what was written."""
    sections = {
        "coreset": coverage(json.loads((results / "coreset.json").read_text())),
        "speed": speed(record.read(results / "speed.json")),
        "anomaly": anomaly(record.read(results / "anomaly.json")),
    }
    return fill(docs / PAGE, sections)


def coverage(found: dict[str, Any]) -> str:
    """The covering radius of so many pictures, chosen as a core-set and at random."""
    lines = ["| pictures chosen | core-set | random choice, median (range over 10) |", "|---|---|---|"]
    for chosen, covered, drawn in zip(found["sizes"], found["coreset"], found["random"], strict=True):
        lines.append(row([str(chosen), f"{covered:.1f}", spread(drawn, ".1f", median)]))
    return "\n".join([*lines, "", demo_runs.made_with(found)])


def speed(content: dict[str, Any]) -> str:
    """Times of each case, and the large sample."""
    cases, large = content["cases"], content["large"]
    rows = []
    for i, name in enumerate(_NAMES):
        cells = [_NAMES[name]]
        for case in cases:
            candidate = case["candidates"][i]
            cells.append(duration(1e6 * candidate["seconds"]["median"]))
            cells.append("" if name == "cpp" else ratio(candidate["times_cpp"], spread=True))
        rows.append(cells)
    heads = ["one thread, float32"]
    for case in cases:
        heads += [f"{case['rows']:,} -> {case['k']:,}, D = {case['dim']}", "times as long as cpp"]
    sentence = (
        f"{large['rows']:,} -> {large['k']:,} at D = {large['dim']}: {large['seconds']:.0f} s on one thread. Peak "
        f"memory beyond the sample's own {size(large['sample_mib'])}: {size(large['extra_mib'])}, most of it a copy."
    )
    return f"{table(heads, rows)}\n\n{sentence}\n\n{about(content)}"


def anomaly(content: dict[str, Any]) -> str:
    """AUPRC of both detectors, the mean over classes and seeds and the range over the seeds; then by class."""
    rows, by_class = [], []
    for detector in ("memory", "auto-encoder"):
        found = content[detector]
        for key in found:
            if not key.startswith("coreset") or key.endswith("step"):  # times, one after the other, compare badly
                continue
            title = f"{detector}, bank of {key.split()[1]}" if " " in key else f"{detector}, batches of 64"
            cells, classes = [title], [title]
            for kind in ("random", "coreset"):
                scores = found[key.replace("coreset", kind)]
                cells.append(spread(scores["by_seed"], ".3f"))
            pairs = zip(
                *(found[key.replace("coreset", kind)]["by_class"] for kind in ("random", "coreset")), strict=True
            )
            classes += [f"{a:.2f} -> {b:.2f}" for a, b in pairs]
            rows.append(cells)
            by_class.append(classes)
    return "\n\n".join(
        [
            table(["AUPRC, mean over 10 classes (range over 3 seeds)", "random choice", "core-sets"], rows),
            "By held-out class, random choice -> core-sets:",
            table(["held-out class", *map(str, range(content["classes"]))], by_class),
            about(content),
        ]
    )
