"""How long the steps of the other parts take, interleaved in one process: a shared machine changes by the minute."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from mow.app import models
from studies.neighbours import grid, window

GRID_STEPS = 20


def jobs() -> list[dict[str, Any]]:
    return [{"rounds": 25, "seed": 0}]


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """Medians over the rounds of CPU milliseconds, in random order within each round.

    -> window, a list of method, k and those of 64 pictures; grid, of batch, coreset and those of a step; optimizer_ms,
    of one Adam step of the auto-encoder.
    """
    calls: dict[tuple, Callable[[], object]] = {("optimizer",): _optimizer_step()}
    for job in window.jobs():
        calls.setdefault(("window", job["method"], job["k"]), window.prepare(job["method"], job["k"]))
    for job in grid.jobs():
        _, step = grid.prepare(job["batch"], job["coreset"], 0)
        calls.setdefault(("grid", job["batch"], job["coreset"]), _repeated(step))
    order, shuffler = list(calls), random.Random(settings["seed"])
    times: dict[tuple, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(settings["rounds"]):
        shuffler.shuffle(order)
        for name in order:
            began = time.process_time()
            calls[name]()
            times[name].append(1000 * (time.process_time() - began))
    ms = {name: round(statistics.median(found), 4) for name, found in times.items()}
    return {
        "optimizer_ms": ms["optimizer",],
        "window": [{"method": n[1], "k": n[2], "ms": value} for n, value in ms.items() if n[0] == "window"],
        "grid": [
            {"batch": n[1], "coreset": n[2], "ms": round(value / GRID_STEPS, 4)}
            for n, value in ms.items()
            if n[0] == "grid"
        ],
    }


def _repeated(step: Callable[[], object]) -> Callable[[], None]:
    def steps() -> None:
        for _ in range(GRID_STEPS):
            step()

    return steps


def _optimizer_step() -> Callable[[], object]:
    shape = (1, 28, 28)
    networks = models.mlp_encoder(shape, window.DIM), models.mlp_decoder(shape, window.DIM)
    parameters = [parameter for network in networks for parameter in network.parameters()]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    return torch.optim.Adam(parameters, lr=1e-4, fused=True).step
