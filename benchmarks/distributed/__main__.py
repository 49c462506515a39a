"""What a step sends and takes in 1, 2 and 4 processes, and a model of many GPUs: the tables of docs/distributed.md.

python -m benchmarks.distributed run        counts and measures, into a new file in benchmarks/results/distributed/
python -m benchmarks.distributed report     makes the tables from the newest
"""

from __future__ import annotations

import json
import math
import os
import tempfile
import time
import warnings
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import Annotated, Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import typer

import mow
from benchmarks import record
from mow import models
from mow.distributed import DistributedTrainer, ShardedWindow
from mow.files import write_whole

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)

RESULTS, PAGE = record.RESULTS / "distributed", record.ROOT / "docs" / "distributed.md"
WORLDS, N, DIM, PICTURE = (1, 2, 4), 1024, 8, (1, 28, 28)
WARM_UP, TIMED = 5, 30

KINDS = {
    "MMD": (mow.MMD, mow.MovingWindow),
    "MMD, sharded": (mow.MMD, ShardedWindow),
    "sliced-Wasserstein, sharded": (mow.SlicedWasserstein, ShardedWindow),
}

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

MODELLED = {"worlds": (8, 64, 1024), "dim": 64, "n": 2**20, "weights": 20_000_000, "directions": 50}


@app.command()
def run(out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS) -> None:
    """Count and measure."""
    head, load_before = record.head("python -m benchmarks.distributed run", 0), os.getloadavg()
    measured = {}
    for world in WORLDS:
        with tempfile.TemporaryDirectory() as folder:
            mp.spawn(_work, args=(world, folder), nprocs=world)
            measured[str(world)] = json.loads(Path(folder, "result.json").read_text())
    loads = {"load_before": list(load_before), "load_after": list(os.getloadavg())}
    sizes = {"n": N, "dim": DIM, "picture": list(PICTURE), "steps": TIMED}
    content = {**head, "cases": [loads], "steps": [], "sizes": sizes, "measured": measured}
    content |= {"assumed": ASSUMED, "modelled": {**MODELLED, "worlds": list(MODELLED["worlds"])}}  # type: ignore[arg-type]
    typer.echo(f"wrote {record.write(content, out)}")


@app.command()
def report(results: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS) -> None:
    """Make the tables of docs/distributed.md from the newest result."""
    from benchmarks.coresets.report import splice  # which draws plots: nothing for the processes that measure
    from benchmarks.distributed.report import tables

    content = record.read(record.newest(results))
    write_whole(PAGE, splice(PAGE.read_text(), "distributed", tables(content)))
    typer.echo(f"wrote {PAGE}")


def _work(rank: int, world: int, folder: str) -> None:
    """Counts and times every kind in one process group."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if world > 1:
        rendezvous = f"file://{folder}/rendezvous"
        dist.init_process_group("gloo", rendezvous, timedelta(seconds=300), world_size=world, rank=rank)
    found = {kind: _measure(kind, world) for kind in KINDS}
    if rank == 0:
        Path(folder, "result.json").write_text(json.dumps(found))
    if world > 1:
        dist.destroy_process_group()


def _measure(kind: str, world: int) -> dict[str, Any]:
    """-> what a step sends besides nothing, [collective, bytes that this rank puts in], and seconds [p20, p50, p80]."""
    distance, window = KINDS[kind]
    torch.manual_seed(0)
    networks = models.mlp_encoder(PICTURE, DIM), models.mlp_decoder(PICTURE, DIM)
    trainer = DistributedTrainer(*networks, distance(), window(N, DIM), k=world)
    steps = trainer.run(torch.rand(4 * N, *PICTURE), WARM_UP + TIMED + 1, measured=lambda step: False)
    for _ in range(WARM_UP):
        next(steps)
    seconds = []
    for _ in range(TIMED):
        began = time.perf_counter()
        next(steps)
        seconds.append(time.perf_counter() - began)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        next(steps)
    sent = []
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name().startswith("gloo:"):
            numbers, item = math.prod(event.shapes()[0]), {"float": 4, "double": 8}[event.dtypes()[0]]
            sent.append((event.name().removeprefix("gloo:"), numbers * item))
    tenths = quantiles(seconds, n=10)
    return {"sent": sent, "seconds": [tenths[1], tenths[4], tenths[7]]}


if __name__ == "__main__":
    app()
