"""The tables of docs/micro-batches.md, from a run of `mow microbatch`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.page import fill, row
from studies import demo_runs

PAGE = "micro-batches.md"


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables of the page. Returns what was written."""
    return fill(docs / PAGE, {"microbatch": tables(json.loads((results / "microbatch.json").read_text()))})


def tables(found: dict[str, Any]) -> str:
    """How far the gradients are apart, and the peaks of memory."""
    splits = found["splits"]
    lines = [
        row(["loss", f"largest relative error of the gradient over {len(splits)} splits of 100 pictures"]),
        "|---|---|",
    ]
    lines += [row([name, f"{max(values):.1e}"]) for name, values in found["errors"].items()]
    batches = sorted({peak["batch"] for peak in found["peaks"]})
    lines += ["", row(["peak memory of a step", *(f"batch of {batch}" for batch in batches)]), "|---" * 5 + "|"]
    for piece in dict.fromkeys(peak["piece"] for peak in found["peaks"]):
        name = "at once" if piece is None else f"in pieces of {piece}"
        peaks = (f"{peak['peak_mib']:.0f} MiB" for peak in found["peaks"] if peak["piece"] == piece)
        lines.append(row([name, *peaks]))
    floor = f"A batch of one takes {found['floor_mib']:.0f} MiB, most of it Python and PyTorch."
    return "\n".join([*lines, "", floor, "", demo_runs.made_with(found)])
