"""Puts runs of `mow microbatch` and `mow coreset` into docs/micro-batches.md and docs/core-sets.md: figures and tables.

python -m docs.demos runs/microbatch runs/coreset
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.coresets.report import splice
from mow.app.files import write_whole

DOCS = Path(__file__).resolve().parent
RESULTS = DOCS.parent / "benchmarks" / "results" / "demos"


def microbatch(found: dict[str, Any]) -> str:
    splits = found["splits"]
    lines = [
        f"| loss | largest relative error of the gradient over {len(splits)} splits of 100 pictures |",
        "|---|---|",
    ]
    lines += [f"| {name} | {max(values):.1e} |" for name, values in found["errors"].items()]
    batches = sorted({peak["batch"] for peak in found["peaks"]})
    lines += [
        "",
        f"| peak memory of a step | {' | '.join(f'batch of {batch}' for batch in batches)} |",
        "|---" * 5 + "|",
    ]
    for piece in dict.fromkeys(peak["piece"] for peak in found["peaks"]):
        name = "at once" if piece is None else f"in pieces of {piece}"
        peaks = (f"{peak['peak_mib']:.0f} MiB" for peak in found["peaks"] if peak["piece"] == piece)
        lines.append(f"| {name} | {' | '.join(peaks)} |")
    lines += ["", f"A batch of one takes {found['floor_mib']:.0f} MiB, most of it Python and PyTorch."]
    return "\n".join(
        [*lines, "", f"{found['data'].split(', found')[0]}, seed {found['seed']}, PyTorch {found['torch']}."]
    )


def coreset(found: dict[str, Any]) -> str:
    lines = ["| pictures chosen | core-set | random choice, median (range over 10) |", "|---|---|---|"]
    for size, covered, drawn in zip(found["sizes"], found["coreset"], found["random"], strict=True):
        lines.append(f"| {size} | {covered:.1f} | {median(drawn):.1f} ({min(drawn):.1f} – {max(drawn):.1f}) |")
    return "\n".join(
        [*lines, "", f"{found['data'].split(', found')[0]}, seed {found['seed']}, PyTorch {found['torch']}."]
    )


def main(*folders: str) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    pages = ("micro-batches.md", microbatch), ("core-sets.md", coreset)
    for folder, (page, table) in zip(map(Path, folders), pages, strict=True):
        name = table.__name__
        shutil.copyfile(folder / f"{name}.json", RESULTS / f"{name}.json")
        shutil.copyfile(folder / f"{name}.png", DOCS / "images" / f"{name}.png")
        found = json.loads((RESULTS / f"{name}.json").read_text())
        write_whole(DOCS / page, splice((DOCS / page).read_text(), name, table(found)))


if __name__ == "__main__":
    main(*sys.argv[1:])
