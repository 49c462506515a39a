"""The time of a training step, by four loops that take turns, and the floor of the bytes that have to move."""

from __future__ import annotations

import gc
import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import mow
from benchmarks import record
from benchmarks.timing import ratios, summary
from mow.app.architectures import ARCHITECTURES

SEED, N, DIM, SHAPE = 0, 64, 8, (1, 28, 28)
ROUNDS, SAMPLE_SECONDS = 20, 0.05
"""Of each loop, and what the steps of one sample take together."""
MOST_SECONDS, LEAST_ROUNDS = 90, 3
"""What all rounds of a case take together, which leaves fewer of them where a step takes seconds; but not fewer than
these."""

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "SGD": lambda parameters: torch.optim.SGD(parameters, lr=1e-4, fused=True),
    "Adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-4, fused=True),
}


@dataclass(frozen=True)
class Case:
    architecture: str
    optimizer: str
    k: int
    threads: int = 1

    @property
    def name(self) -> str:
        return f"{self.architecture}-{self.optimizer}-k{self.k}" + f"-{self.threads}-threads" * (self.threads > 1)


CASES = {
    case.name: case
    for case in (
        Case(architecture, optimizer, k, threads)
        for architecture in ("mnist", "small", "fashion-mnist")
        for threads in (1, 2)
        for k in (1, 8, 64)
        for optimizer in OPTIMIZERS
    )
}
"""By name; what decides most comes first."""


def networks(case: Case) -> tuple[nn.Module, nn.Module]:
    """The same weights each time."""
    torch.manual_seed(SEED)
    return ARCHITECTURES[case.architecture].build(SHAPE, DIM)


def plain(case: Case, compile: bool) -> Callable[[Tensor], None]:
    """What one writes in PyTorch around our distance: one compiled function from pictures to the loss, or none."""
    encoder, decoder = networks(case)
    optimizer = OPTIMIZERS[case.optimizer]([*encoder.parameters(), *decoder.parameters()])
    distance, k = mow.CramerWold(log=True), case.k
    history = torch.randn(N - k, DIM) if k < N else None

    def loss(x: Tensor, history: Tensor | None) -> Tensor:
        z = encoder(x)
        return (decoder(z) - x).square().flatten(1).sum(1).mean() + N / k * distance(z, history)

    encode: Callable[[Tensor], Tensor] = encoder
    if compile:
        loss, encode = torch.compile(loss, dynamic=False), torch.compile(encoder, dynamic=False)

    def step(x: Tensor) -> None:
        nonlocal history
        optimizer.zero_grad()
        loss(x, history).backward()
        optimizer.step()
        if history is not None:
            with torch.no_grad():
                history = torch.cat([history[k:], encode(x)])

    return step


def ours(case: Case, compile: bool) -> Callable[[Tensor], None]:
    encoder, decoder = networks(case)
    window, make = mow.MovingWindow(N, DIM), OPTIMIZERS[case.optimizer]
    trainer = mow.Trainer(encoder, decoder, mow.CramerWold(log=True), window, k=case.k, optimizer=make, compile=compile)
    if case.k < N:
        window.fill(torch.randn(N - case.k, DIM))
    return lambda x: trainer.step(x, measure=False) and None


LOOPS: dict[str, Callable[[Case], Callable[[Tensor], None]]] = {
    "plain": lambda case: plain(case, False),
    "plain, compiled": lambda case: plain(case, True),
    "ours": lambda case: ours(case, False),
    "ours, compiled": lambda case: ours(case, True),
}


def measured(case: Case, rounds: int = ROUNDS) -> dict[str, Any]:
    """Seconds of a step of each loop; the samples of a round are taken one after another in random order.

    On one thread they are the processor's, on several the clock's.
    """
    torch.set_num_threads(case.threads)
    torch.set_flush_denormal(True)
    clock = time.thread_time if case.threads == 1 else time.perf_counter
    load_before, pictures = list(os.getloadavg()), torch.rand(256, case.k, *SHAPE)
    steps: dict[str, tuple[Callable[[Tensor], None], Iterator[Tensor]]] = {}
    first: dict[str, float] = {}
    for name in reversed(LOOPS):  # ours is compiled first, and so with what the compiler does once
        step, stream = LOOPS[name](case), itertools.cycle(pictures.unbind())
        began = time.perf_counter()
        for _ in range(3):
            step(next(stream))
        first[name] = time.perf_counter() - began
        steps[name] = step, stream
    once = {name: _seconds(clock, *steps[name], 3) for name in steps}
    repeats = {name: max(1, round(SAMPLE_SECONDS / seconds)) for name, seconds in once.items()}
    a_round = sum(repeats[name] * seconds for name, seconds in once.items())
    rounds = min(rounds, max(LEAST_ROUNDS, int(MOST_SECONDS / a_round)))
    taken: dict[str, list[float]] = {name: [] for name in LOOPS}
    shuffle = random.Random(SEED).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            order = list(steps)
            shuffle(order)
            for name in order:
                taken[name].append(_seconds(clock, *steps[name], repeats[name]))
    finally:
        gc.enable()
    seconds = {name: {**summary(values), "least": min(values)} for name, values in taken.items()}
    parts = sum_of_sizes(case)
    return {
        "architecture": case.architecture,
        "optimizer": case.optimizer,
        "k": case.k,
        "threads": case.threads,
        "rounds": rounds,
        "seconds": _short(seconds),
        "ratios": _short({name: ratios(taken[name], taken["ours, compiled"]) for name in LOOPS}),
        "first_three_steps": {name: record.short(first[name]) for name in LOOPS},
        "weights": parts,
        "bytes": bytes_moved(case, *parts),
        "bandwidth": record.short(bandwidth(sum(parts), clock)),
        "load_before": load_before,
        "load_after": list(os.getloadavg()),
    }


def sum_of_sizes(case: Case) -> tuple[int, int]:
    """The weights of the encoder and of the decoder."""
    encoder, decoder = networks(case)
    return sum(p.numel() for p in encoder.parameters()), sum(p.numel() for p in decoder.parameters())


def bytes_moved(case: Case, encoder: int, decoder: int) -> int:
    """What a step has to move of weights and the optimiser's state, in float32: read forward and backward, updated, and
    the encoder's read once more."""
    weights = encoder + decoder
    state = 2 * 2 * weights if case.optimizer == "Adam" else 0
    return 4 * (2 * weights + 2 * weights + state + (encoder if case.k < N else 0))


def bandwidth(weights: int, clock: Callable[[], float]) -> float:
    """Bytes a second, read and written, of a copy as large as the weights, from one step's memory to another's."""
    source, to = torch.rand(weights), torch.empty(weights)

    def copy(_: object) -> None:
        to.copy_(source)

    return 2 * 4 * weights / min(_seconds(clock, copy, itertools.repeat(None), 20) for _ in range(30))


def _seconds(clock: Callable[[], float], call: Callable[[Any], object], stream: Iterator[Any], repeats: int) -> float:
    began = clock()
    for _ in range(repeats):
        call(next(stream))
    return (clock() - began) / repeats


def _short(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {what: record.short(value) for what, value in values.items()} for name, values in found.items()}
