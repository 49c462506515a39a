"""Behind docs/distributed.md: python -m studies.distributed run | report"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch.multiprocessing as mp
import typer

from benchmarks import command, record
from studies.distributed import report
from studies.distributed.measure import DIM, PICTURE, TIMED, WORLDS, N, work

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"
ASSUMED = {
    "launch": 10e-6,
    "hop_inside": 1e-6,
    "hop_outside": 5e-6,
    "bandwidth_inside": 450e9,
    "bandwidth_outside": 50e9,
    "gpus_a_node": 8,
    "flops": 30e12,
}
"""Of no machine in particular, in seconds, bytes a second, and floating-point operations a second in float32: what a
collective costs before the first byte, a hop between neighbours within a node (NVLink) and between nodes (one 400 Gb/s
adapter a GPU), what each of them carries one way, and what a GPU computes of pairs."""

MODELLED: dict[str, Any] = {"worlds": [8, 64, 1024], "dim": 64, "n": 2**20, "weights": 20_000_000, "directions": 50}


@app.command()
def run(out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS) -> None:
    """Count and measure in 1, 2 and 4 processes, and write one new JSON file."""
    head, load_before = record.head("python -m studies.distributed run", 0), os.getloadavg()
    measured = {}
    for world in WORLDS:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(work, args=(world, folder), nprocs=world)
            measured[str(world)] = json.loads(Path(folder, "result.json").read_text())
    loads = {"load_before": list(load_before), "load_after": list(os.getloadavg())}
    sizes = {"n": N, "dim": DIM, "picture": list(PICTURE), "steps": TIMED}
    content = {**head, "cases": [loads], "sizes": sizes, "measured": measured}
    content |= {"assumed": ASSUMED, "modelled": MODELLED}
    command.wrote(record.write(content, out))


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
