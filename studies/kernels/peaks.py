"""Peak memory of one call, each in a process of its own: python -m studies.kernels.peaks NAME

This is the launcher, and imports no torch: the peak of a child begins at its parent's.
"""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks import ROOT, memory

SECONDS = 300
"""A process that takes longer is stopped."""


def extra_mib(case: str, sides: list[str]) -> dict[str, float | None]:
    """Of each side: the peak of a process with its call, less that of one without it; None where it fails."""
    command = [sys.executable, "-m", __spec__.name, case, *sides]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    found: dict[str, float | None] = json.loads(done.stdout)
    return found


def _launch(case: str, *sides: str) -> None:
    peaks = {}
    for what in ("inputs", *sides):
        command = [sys.executable, "-W", "ignore", "-m", "studies.kernels.measure", case, what]
        peaks[what] = memory.peak(command, SECONDS)
    floor = peaks.pop("inputs")["peak_mib"]
    extra = {side: None if "reason" in peak else round(peak["peak_mib"] - floor, 1) for side, peak in peaks.items()}
    print(json.dumps(extra))


if __name__ == "__main__":
    _launch(*sys.argv[1:])
