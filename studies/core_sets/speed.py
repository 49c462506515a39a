"""k_center against what one writes without it, interleaved on one thread; a large sample in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import mow_kernels as mk
from benchmarks import memory
from benchmarks.timing import Effort, Entrant, interleave, ratios, summary

CASES = ((512, 64, 32), (4096, 512, 32), (4096, 512, 128))
"""N, k, D: a batch of 64 by Small-GAN's factor 8, the largest of its experiments, and wider features."""

LARGE = (1_000_000, 1_000, 64)

EFFORT = Effort(rounds=(5, 15), seconds=10.0)

SECONDS = 1800
"""What the large sample may take on a busy machine."""


def loop(x: Tensor, k: int) -> list[int]:
    """Plain PyTorch: the distances to the newest centre, the running minimum, the farthest."""
    nearest, taken = (x - x[0]).square().sum(1), [0]
    while len(taken) < k:
        taken.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, (x - x[taken[-1]]).square().sum(1))
    return taken


def matrix(x: Tensor, k: int) -> list[int]:
    """All N x N distances first, then the running minimum of its rows."""
    distances, taken = torch.cdist(x, x), [0]
    nearest = distances[0]
    while len(taken) < k:
        taken.append(int(nearest.argmax()))
        nearest = torch.minimum(nearest, distances[taken[-1]])
    return taken


def matrix_columns(x: Tensor, k: int) -> list[int]:
    """All N x N distances first, and in each round the minimum over the columns taken so far."""
    distances, taken = torch.cdist(x, x), [0]
    while len(taken) < k:
        taken.append(int(distances[:, taken].min(1).values.argmax()))
    return taken


def library(x: Tensor, k: int) -> list[int]:
    return mk.k_center(x, k, start=0).indices.tolist()


CANDIDATES: dict[str, tuple[Callable[[Tensor, int], list[int]], str | None]] = {
    "cpp": (library, "cpp"),
    "reference": (library, "reference"),
    "loop": (loop, None),
    "matrix": (matrix, None),
    "matrix, columns": (matrix_columns, None),
}


def measure(
    rows: int, k: int, dim: int, effort: Effort = EFFORT, names: tuple[str, ...] = tuple(CANDIDATES)
) -> dict[str, Any]:
    """Seconds a call of each candidate, and how many times as long as "cpp" it takes, both over interleaved rounds."""
    x = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
    expected = set(library(x, k))
    entrants, common = [], {}
    for name in names:
        function, backend = CANDIDATES[name]
        entrant = Entrant(name, lambda function=function: function(x, k), backend, threads=1)
        with entrant.setting():
            common[name] = len(expected.intersection(function(x, k))) / k
        entrant.warm_up(effort)
        entrants.append(entrant)
    samples = interleave(entrants, effort)
    return {
        "rows": rows,
        "k": k,
        "dim": dim,
        "candidates": [
            {
                "name": name,
                "seconds": summary(seconds),
                "times_cpp": ratios(seconds, samples["cpp"]),
                "rounds": len(seconds),
                "common": common[name],  # below 1 where rounding made another row the farthest
            }
            for name, seconds in samples.items()
        ],
    }


def measure_large(rows: int, k: int, dim: int) -> dict[str, Any]:
    """Seconds and peak memory of one call, beyond those of a process that makes the sample and ends."""
    command = [sys.executable, "-m", "studies.core_sets.speed", *map(str, (rows, k, dim))]
    alone = memory.peak([*command, "inputs"], SECONDS)
    found = memory.peak(command, SECONDS)
    for result in (alone, found):
        if "reason" in result:
            raise RuntimeError(f"{' '.join(command)}: {result['reason']}")
    figures = json.loads(found["last_line"])
    extra = round(found["peak_mib"] - alone["peak_mib"], 1)
    return {"rows": rows, "k": k, "dim": dim, **figures, "sample_mib": rows * dim * 4 / 2**20, "extra_mib": extra}


def _probe(rows: int, k: int, dim: int, only_inputs: bool) -> None:
    torch.set_num_threads(1)
    x = torch.randn(rows, dim, generator=torch.Generator().manual_seed(0))
    mk.k_center(x[: 2 * k], 2, start=0)
    if only_inputs:
        return
    began = time.perf_counter()
    radius = mk.k_center(x, k, start=0).radius
    print(json.dumps({"seconds": round(time.perf_counter() - began, 2), "radius": round(float(radius), 4)}))


def run() -> dict[str, Any]:
    return {"cases": [measure(*case) for case in CASES], "large": measure_large(*LARGE)}


if __name__ == "__main__":
    _probe(*map(int, sys.argv[1:4]), len(sys.argv) > 4)
