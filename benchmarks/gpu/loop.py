"""The whole training loop with one new element a step, on the paper's MNIST architecture: steps a second.

Every candidate does what the paper does at a step: encode, decode, the distance over n = 64 rows to a fresh prior
sample (Cramer-Wold: to the closed form), one step of Adam, and the latent of the updated encoder into the window. The
pictures are noise and lie on the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import mow
import mow_kernels as mk
from benchmarks.cases import DISTANCES, SEED
from benchmarks.gpu.devices import Gpu, StandIn
from benchmarks.record import short
from benchmarks.step import AS_IN_THE_PAPER, BY_DEFAULT, DIM, SHAPE, K, N, naive_value
from mow.app import models
from mow.window.distances import Distance
from mow.window.window import MovingWindow

RATE = 1e-4


@dataclass(frozen=True)
class Loop:
    """A distance with one candidate."""

    distance: str
    candidate: str
    seconds: float
    """What it takes at most, by guess."""

    @property
    def name(self) -> str:
        return f"training-{self.distance} {self.candidate}"

    def describe(self) -> dict[str, Any]:
        sizes = {"n": N, "k": K, "dim": DIM, "shape": list(SHAPE)}
        return {"distance": self.distance, **sizes, "candidate": self.candidate}


def eager(own: Sequence[str]) -> list[Loop]:
    """The library's backends, and the plain loop."""
    ours = [f"{backend}{how}" for how in ("", ", graph", ", graph, closed form") for backend in own]
    return [Loop(distance, candidate, 5) for candidate in ("plain", *ours) for distance in DISTANCES]


def compiled() -> list[Loop]:
    candidates = ("plain, compile, reduce-overhead", "plain, compile")
    return [Loop(distance, candidate, 60) for candidate in candidates for distance in DISTANCES]


def measure(machine: Gpu | StandIn, loop: Loop, sample_seconds: float) -> dict[str, Any]:
    """The figures of a loop."""
    who, *how = loop.candidate.split(", ")
    torch.manual_seed(SEED)
    encoder, decoder = (make(SHAPE, DIM).to(machine.device) for make in (models.mlp_encoder, models.mlp_decoder))
    pictures = itertools.cycle(torch.rand(256, K, *SHAPE, device=machine.device).unbind())
    with torch.no_grad():
        rows = encoder(torch.rand(N, *SHAPE, device=machine.device))
    if who == "plain":
        step = _plain(loop.distance, encoder, decoder, rows, how[1:] if "compile" in how else None)
    else:
        distance = (BY_DEFAULT if "closed form" in how else AS_IN_THE_PAPER)[loop.distance]()
        step = _ours(distance, encoder, decoder, rows, cuda_graph="graph" in how and machine.has_graphs)

    def call() -> object:
        return step(next(pictures))

    with mk.use_backend("auto" if who == "plain" else who):
        for _ in range(10):  # compilers, and the graph's own warm-up
            loss = step(next(pictures))
        warm = machine.seconds(call, 3)
        repeats = max(1, int(4 * sample_seconds / warm))
        samples = sorted(machine.seconds(call, repeats) for _ in range(5))
        return {
            "status": "measured",
            "us": short(1e6 * samples[2]),
            "us_range": [short(1e6 * samples[i]) for i in (0, -1)],
            "steps_per_second": short(1 / samples[2]),
            "ok": bool(torch.isfinite(loss)),
            **machine.profile(call),
        }


def _ours(
    distance: Distance, encoder: torch.nn.Module, decoder: torch.nn.Module, rows: Tensor, *, cuda_graph: bool
) -> Callable[[Tensor], Tensor]:
    """As `mow.Trainer.fit` does it: the distance's value is not asked for."""
    window = MovingWindow(N, DIM, device=rows.device)
    window.fill(rows)
    trainer = mow.Trainer(
        encoder,
        decoder,
        distance,
        window,
        k=K,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=RATE, fused=True, capturable=cuda_graph),
        cuda_graph=cuda_graph,
    )
    return lambda x: trainer.step(x, measure=False)["reconstruction"]


def _plain(
    distance: str, encoder: torch.nn.Module, decoder: torch.nn.Module, rows: Tensor, compiler: Sequence[str] | None
) -> Callable[[Tensor], Tensor]:
    """As people write it: autograd over the naive code, a window that is shifted, the optimiser's fused kernel. With a
    compiler's modes, or none of them, the loss is compiled."""
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=RATE, fused=True)
    window = rows

    def measured(x: Tensor, history: Tensor) -> Tensor:
        z = encoder(x)
        errors = (decoder(z) - x).square().flatten(1).sum(1).mean()
        return errors + N / K * naive_value(distance, z, history)

    loss_of = measured if compiler is None else torch.compile(measured, mode=compiler[0] if compiler else None)

    def step(x: Tensor) -> Tensor:
        nonlocal window
        if compiler:
            torch.compiler.cudagraph_mark_step_begin()
        loss = loss_of(x, window[K:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            window = torch.cat([window[K:], encoder(x)])
        return loss.detach()

    return step
