"""One auto-encoder, trained within the memory of k pictures: small batches, micro-batches, the moving window."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import mow
from mow.app import data, evaluation, models
from mow.app.data import PictureData
from mow.neighbours.micro_batch import accumulate, accumulate_coupled
from mow.training.stream import ShuffledStream
from studies.neighbours.step_memory import step_mib

BATCH, DIM = 64, 8
"""What the distance compares wherever it can, and the latent width."""
PICTURES = 600 * BATCH
"""That every method has seen when they are compared at the same number of pictures; tenths of it are scored too."""

METHODS = ("full", "small", "pieces", "two-pass", "window")
"""full: the classical batch of 64, which needs the memory of 64.
small: the classical method with a batch of k.
pieces: a batch of 64 accumulated in pieces of k, each with the distance of its own k latents.
two-pass: a batch of 64 in pieces of k with the exact gradient of the distance over the 64.
window: k new elements, the distance over a window of 64."""


PASSES = {("full", BATCH): 16, ("pieces", 4): 3, ("two-pass", 4): 3}
"""How many times PICTURES those see in all that would be done too soon to compare them over time; others once."""


def jobs() -> list[dict[str, Any]]:
    found = []
    for seed in range(3):
        found.append(("full", BATCH, seed))
        found += [(method, k, seed) for k in (4, 1) for method in METHODS[1:]]
    return [
        {"method": method, "k": k, "seed": seed, "pictures": PASSES.get((method, k), 1) * PICTURES}
        for method, k, seed in found
    ]


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """-> pictures, cpu_seconds (of training alone), test_reconstruction, test_cramer_wold: curves; step_mib."""
    source = _pictures()
    encoder, decoder = _networks(source, settings["seed"])
    stream = ShuffledStream(source.train, settings["seed"])
    rows, step = _METHODS[settings["method"]](encoder, decoder, settings["k"], stream)
    tenths = [part * PICTURES // 10 for part in range(1, 10)]
    wholes = range(PICTURES, settings["pictures"] + 1, PICTURES)
    curves: dict[str, list[float]] = {"pictures": [], "cpu_seconds": []}
    seen, spent = 0, 0.0
    for goal in [*tenths, *wholes]:
        began = time.process_time()
        while seen < goal:
            x = stream.take(rows)
            step(x)
            seen += len(x)
        spent += time.process_time() - began
        scores = evaluation.evaluate(encoder, decoder, source.test)
        for name, value in {"pictures": seen, "cpu_seconds": spent, **scores}.items():
            curves.setdefault(name, []).append(round(value, 5))
    x = stream.take(rows)
    return {"data": source.origin.split(", found")[0], **curves, "step_mib": step_mib(lambda: step(x))}


def prepare(method: str, k: int) -> Callable[[], None]:
    """What trains on the next 64 pictures."""
    source = _pictures()
    stream = ShuffledStream(source.train)
    rows, step = _METHODS[method](*_networks(source, 0), k, stream)

    def advance() -> None:
        for _ in range(BATCH // rows):
            step(stream.take(rows))

    return advance


def _networks(source: PictureData, seed: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    shape = source.train.shape[1:]
    return models.mlp_encoder(shape, DIM), models.mlp_decoder(shape, DIM)


def _trained(encoder: nn.Module, decoder: nn.Module, k: int, n: int) -> mow.Trainer:
    return mow.Trainer(
        encoder, decoder, mow.CramerWold(log=True), mow.MovingWindow(n, DIM), k=k, optimizer=lambda of: _adam(of, k)
    )


def _classical(
    encoder: nn.Module, decoder: nn.Module, k: int, stream: ShuffledStream
) -> tuple[int, Callable[[Tensor], object]]:
    return k, _trained(encoder, decoder, k, k).step


def _window(
    encoder: nn.Module, decoder: nn.Module, k: int, stream: ShuffledStream
) -> tuple[int, Callable[[Tensor], object]]:
    trainer = _trained(encoder, decoder, k, BATCH)
    with torch.no_grad():
        trainer.window.fill(encoder(stream.take(BATCH - k)))
    return k, trainer.step


def _pieces(
    encoder: nn.Module, decoder: nn.Module, k: int, stream: ShuffledStream
) -> tuple[int, Callable[[Tensor], object]]:
    distance, optimizer = mow.CramerWold(log=True), _adam([*encoder.parameters(), *decoder.parameters()])

    def loss(x: Tensor) -> Tensor:
        z = encoder(x)
        return _error(decoder(z), x) + distance(z)

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        accumulate(loss, x, micro_batch=k)
        optimizer.step()

    return BATCH, step


def _two_pass(
    encoder: nn.Module, decoder: nn.Module, k: int, stream: ShuffledStream
) -> tuple[int, Callable[[Tensor], object]]:
    distance, optimizer = mow.CramerWold(log=True), _adam([*encoder.parameters(), *decoder.parameters()])

    def step(x: Tensor) -> None:
        optimizer.zero_grad()
        accumulate_coupled(encoder, distance, x, separable=lambda z, x: _error(decoder(z), x), micro_batch=k)
        optimizer.step()

    return BATCH, step


def _adam(parameters: Iterable[nn.Parameter], k: int = BATCH) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3 * (k / 64) ** 0.5, fused=True)


def _error(decoded: Tensor, x: Tensor) -> Tensor:
    return (decoded - x).square().flatten(1).sum(1).mean()


_METHODS: dict[str, Callable] = {
    "full": _classical,
    "small": _classical,
    "pieces": _pieces,
    "two-pass": _two_pass,
    "window": _window,
}


@cache
def _pictures() -> PictureData:
    return data.load("fashion-mnist")
