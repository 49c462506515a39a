"""The table of docs/kernels.md, from the result."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.page import about, duration, fill, ratio, size, table
from benchmarks.timing import ratios, summary

PAGE = "kernels.md"

PEERS = {
    "energy": "GeomLoss",
    "laplacian": "GeomLoss",
    "gaussian": "GeomLoss",
    "rational_quadratic": "matrices in PyTorch",
    "polynomial": "torchmetrics",
}


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the table of the page. Returns what was written."""
    return fill(docs / PAGE, {"kernels": times_and_memory(record.read(results / "kernels.json"))})


def times_and_memory(content: dict[str, Any]) -> str:
    """Of each case the other library's time and ours, and how much memory each takes beside the samples."""
    rows = []
    for case in content["cases"]:
        peer = PEERS[case["loss"]] + (" online" if case.get("backend") == "online" else "")
        row = [f"{case['loss']}, {peer}", f"{case['n']:,} x {case['dim']:,}"]
        for what in ("forward", "both"):
            row += _times(case.get(what))
        memory = case.get("memory", {})
        rows.append([*row, size(memory.get("theirs")), size(memory.get("ours"))])
    heads = ["kernel, against", "samples", "value, theirs", "ours", "times as fast (p20 – p80)"]
    heads += ["value and gradient, theirs", "ours", "times as fast (p20 – p80)", "memory, theirs", "ours"]
    return f"{table(heads, rows)}\n\n{about(content, content['cases'])}"


def _times(found: dict[str, list[float]] | None) -> list[str]:
    if found is None:
        return ["-", "-", "-"]
    theirs, ours = (duration(1e6 * summary(found[side])["median"]) for side in ("theirs", "ours"))
    return [theirs, ours, ratio(ratios(found["theirs"], found["ours"]), spread=True)]
