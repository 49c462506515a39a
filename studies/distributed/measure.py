"""What each rank does; a module of its own, which draws nothing, for processes that begin by importing it."""

from __future__ import annotations

import json
import math
import time
import warnings
from datetime import timedelta
from pathlib import Path
from statistics import quantiles
from typing import Any

import torch

import mow
from mow.app import models
from mow.distributed import DistributedTrainer, ShardedWindow
from mow.distributed.ranks import connect, disconnect

WORLDS, N, DIM, PICTURE = (1, 2, 4), 1024, 8, (1, 28, 28)
WARM_UP, TIMED = 5, 30

KINDS = {
    "MMD": (mow.MMD, mow.MovingWindow),
    "MMD, sharded": (mow.MMD, ShardedWindow),
    "sliced-Wasserstein, sharded": (mow.SlicedWasserstein, ShardedWindow),
}


def work(rank: int, world: int, folder: str) -> None:
    """Counts and times every kind in one process group."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if world > 1:
        rendezvous = f"file://{folder}/rendezvous"
        connect("gloo", rendezvous, timedelta(seconds=300), world_size=world, rank=rank)
    found = {kind: _measure(kind, world) for kind in KINDS}
    if rank == 0:
        Path(folder, "result.json").write_text(json.dumps(found))
    if world > 1:
        disconnect()


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
    for event in profile.profiler.kineto_results.events():  # type: ignore[union-attr]  # it has ended
        if event.name().startswith("gloo:"):
            numbers, item = math.prod(event.shapes()[0]), {"float": 4, "double": 8}[event.dtypes()[0]]
            sent.append((event.name().removeprefix("gloo:"), numbers * item))
    tenths = quantiles(seconds, n=10)
    return {"sent": sent, "seconds": [tenths[1], tenths[4], tenths[7]]}
