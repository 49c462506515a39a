"""The peak memory of one training step on real memory, in a process of its own, at the sizes that fit."""

from __future__ import annotations

import sys
from typing import Any

import torch

import mow
from benchmarks import memory
from mow.app.architectures import ARCHITECTURES
from studies.high_resolution.counted import ARCHITECTURE

SIZES = ((128, 1), (128, 8), (128, 64), (256, 1), (256, 8), (256, 64), (512, 1), (512, 8), (1024, 1))
"""(side, k)."""

N = 64


def run(sizes: tuple[tuple[int, int], ...] = SIZES) -> dict[str, Any]:
    """What a step on k pictures [3, side, side] adds to the peak of a process that has networks, pictures, window."""
    rows = []
    for side, k in sizes:
        step, idle = (_peak(side, k, steps) for steps in (1, 0))
        rows.append({"side": side, "k": k, "peak": int((step - idle) * 2**20)})
    return {"architecture": ARCHITECTURE, "n": N, "rows": rows}


def _peak(side: int, k: int, steps: int) -> float:
    module = "studies.high_resolution.resident"
    found = memory.peak([sys.executable, "-m", module, *map(str, (side, k, steps))], 1800.0)
    if "reason" in found:
        raise RuntimeError(f"{steps} steps of side {side} and k {k}: {found['reason']}")
    return float(found["peak_mib"])


def _probe(side: int, k: int, steps: int) -> None:
    torch.set_num_threads(1)
    architecture = ARCHITECTURES[ARCHITECTURE]
    encoder, decoder = architecture.build((3, side, side))
    window = mow.MovingWindow(N, architecture.dim)
    window.fill(torch.randn(N, architecture.dim))
    x = torch.rand(k, 3, side, side)
    trainer = mow.Trainer(
        encoder, decoder, mow.CramerWold(), window, k=k, optimizer=lambda weights: torch.optim.SGD(weights, lr=1e-9)
    )
    for _ in range(steps):
        trainer.step(x)


if __name__ == "__main__":
    _probe(*map(int, sys.argv[1:4]))
