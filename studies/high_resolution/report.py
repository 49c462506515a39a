"""The tables and the figure of docs/high-resolution.md, from the results."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from matplotlib.figure import Figure

from benchmarks import drawing, record
from benchmarks.page import about, fill, table

PAGE = "high-resolution.md"
GIB = 2**30


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables on the page for which there is a result, and draw the figure. Returns what was written."""
    sections, images = {}, {}
    tables: dict[str, Callable[[dict[str, Any]], str]] = {
        "counted": counted,
        "resident": resident,
        "photographs": photographs,
    }
    for name, make in tables.items():
        path = results / f"{name}.json"
        if path.exists():
            content = record.read(path)
            sections[name] = f"{make(content)}\n\n{about(content)}"
            if name == "counted":
                images["high-resolution.svg"] = figure(content)
    return fill(docs / PAGE, sections, images)


def counted(content: dict[str, Any]) -> str:
    """Bytes kept and at the peak, and the ratios to k = 1."""
    rows = []
    for row in content["rows"]:
        pictures = f"{row['side']} x {row['side']}" + ", checkpointing" * row["checkpointing"]
        rows.append([pictures, str(row["k"]), *_against_one(content, row, "kept"), *_against_one(content, row, "peak")])
    parameters = _size(content["rows"][-1]["parameters"])
    heads = ["pictures", "k", "kept for backward", "times k = 1", "peak", "times k = 1"]
    return f"{table(heads, rows)}\n\nBeside it at 1024 x 1024: parameters {parameters}, and Adam twice as much."


def resident(content: dict[str, Any]) -> str:
    """The measured peaks, and the ratios to k = 1."""
    rows = [
        [f"{row['side']} x {row['side']}", str(row["k"]), *_against_one(content, row, "peak")]
        for row in content["rows"]
    ]
    return table(["pictures", "k", "peak", "times k = 1"], rows)


def _against_one(content: dict[str, Any], row: dict[str, Any], name: str) -> list[str]:
    """The bytes of a row under a name, and the ratio to the row of k = 1 that is otherwise the same."""
    alike = ("side", "checkpointing")
    one = next(o for o in content["rows"] if o["k"] == 1 and all(o.get(key) == row.get(key) for key in alike))
    return [_size(row[name]), f"{row[name] / one[name]:.1f}"]


def photographs(content: dict[str, Any]) -> str:
    """What was done, each step's losses and seconds."""
    evaluated = [step for step in content["steps"] if "test_reconstruction" in step]
    rows = []
    for step in content["steps"]:
        number = step["step"]
        times = [f"{content[f'{kind}_seconds'][number - 1]:.1f}" if number else "" for kind in ("wall", "cpu")]
        values = [step.get(name) for name in ("reconstruction", "distance", "test_reconstruction")]
        rows.append([str(number), *("" if value is None else f"{value:,.4g}" for value in values), *times])
    heads = ["step", "reconstruction", "distance", "test reconstruction", "seconds", "of processor time"]
    tiles = sum(len(photograph["corners"]) for photograph in content["photographs"])
    sentence = (
        f"{tiles} tiles of 1024 x 1024 out of {len(content['photographs'])} photographs: {content['origin']}. "
        f"n = {content['n']}, k = {content['k']}, one core. Median of a step: "
        f"{median(content['wall_seconds']):.1f} s, {median(content['cpu_seconds']):.1f} s of processor time "
        f"(load average at the end {content['load']:g}). Peak memory of the process, PyTorch included: "
        f"{content['peak_mib'] / 1024:.1f} GiB. Test reconstruction from {evaluated[0]['test_reconstruction']:,.0f} to "
        f"{evaluated[-1]['test_reconstruction']:,.0f}."
    )
    return f"{sentence}\n\n{table(heads, rows)}"


def figure(content: dict[str, Any]) -> bytes:
    """Bytes kept over the side of the pictures, a curve for each k."""
    with drawing.style():
        canvas = Figure(figsize=(5, 3.2), layout="constrained")
        axes = canvas.subplots()
        plain = [row for row in content["rows"] if not row["checkpointing"]]
        for k in sorted({row["k"] for row in plain}):
            curve = [(row["side"], row["kept"] / GIB) for row in plain if row["k"] == k]
            axes.plot(*zip(*curve, strict=True), marker="o", label=f"k = {k}")
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(
            sorted({row["side"] for row in plain}), labels=sorted({str(row["side"]) for row in plain}, key=int)
        )
        axes.set_xlabel("side of the pictures")
        axes.set_ylabel("kept for the backward pass, GiB")
        axes.legend(frameon=False)
        return drawing.svg(canvas)


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB / 10 else f"{count / 2**20:.1f} MiB"
