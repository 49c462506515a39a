"""What a step sends and takes in 1, 2 and 4 processes, and a model of many GPUs: the tables of docs/distributed.md.

python -m benchmarks.distributed run        counts and measures, into a new file in benchmarks/results/distributed/
python -m benchmarks.distributed report     makes the tables from the newest
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import torch.multiprocessing as mp
import typer

from benchmarks import record
from benchmarks.distributed.measure import DIM, PICTURE, TIMED, WORLDS, N, work
from mow.app.files import write_whole

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

RESULTS, PAGE = record.RESULTS / "distributed", record.ROOT / "docs" / "distributed.md"
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
    """Count and measure."""
    head, load_before = record.head("python -m benchmarks.distributed run", 0), os.getloadavg()
    measured = {}
    for world in WORLDS:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(work, args=(world, folder), nprocs=world)
            measured[str(world)] = json.loads(Path(folder, "result.json").read_text())
    loads = {"load_before": list(load_before), "load_after": list(os.getloadavg())}
    sizes = {"n": N, "dim": DIM, "picture": list(PICTURE), "steps": TIMED}
    content = {**head, "cases": [loads], "steps": [], "sizes": sizes, "measured": measured}
    content |= {"assumed": ASSUMED, "modelled": MODELLED}
    typer.echo(f"wrote {record.write(content, out)}")


@app.command()
def report(results: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS) -> None:
    """Make the tables of docs/distributed.md from the newest result."""
    from benchmarks.coresets.report import splice  # which draws plots: nothing for the processes that measure
    from benchmarks.distributed.report import tables

    content = record.read(record.newest(results))
    write_whole(PAGE, splice(PAGE.read_text(), "distributed", tables(content)))
    typer.echo(f"wrote {PAGE}")


if __name__ == "__main__":
    app()
