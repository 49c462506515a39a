"""The tables of docs/kernels.md, from the results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import record
from benchmarks.page import about, duration, fill, ratio, size, table
from benchmarks.timing import ratios, summary
from studies.kernels.tiles import SIDES

PAGE = "kernels.md"

PEERS = {
    "energy": "GeomLoss",
    "laplacian": "GeomLoss",
    "gaussian": "GeomLoss",
    "rational_quadratic": "matrices in PyTorch",
    "polynomial": "torchmetrics",
}


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables of the page. Returns what was written."""
    sections = {
        "kernels": times_and_memory(record.read(results / "kernels.json")),
        "tiles": tiles(record.read(results / "tiles.json")),
    }
    return fill(docs / PAGE, sections)


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


def tiles(content: dict[str, Any]) -> str:
    """What a tile of products takes by bfloat16 limbs, over what it takes in float32; and how exact they are."""
    rows = []
    for found in content["tiles"]:
        float32 = found["float32"]["nanoseconds"]
        row = [str(found["dim"]), f"{summary(float32)['median']:.0f} ns"]
        row += [ratio(ratios(found[side]["nanoseconds"], float32), spread=True) for side in SIDES if side != "float32"]
        rows.append([*row, *(f"{found[side]['error']:.1e}" for side in SIDES)])
    heads = ["D", SIDES["float32"], *(f"{name}: times float32's" for side, name in SIDES.items() if side != "float32")]
    heads += [f"error, {name}" for name in SIDES.values()]
    return f"{table(heads, rows)}\n\n{about(content)}"


def _times(found: dict[str, list[float]] | None) -> list[str]:
    if found is None:
        return ["-", "-", "-"]
    theirs, ours = (duration(1e6 * summary(found[side])["median"]) for side in ("theirs", "ours"))
    return [theirs, ours, ratio(ratios(found["theirs"], found["ours"]), spread=True)]
