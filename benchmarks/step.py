"""The whole training step of the paper's MNIST architecture, one new element a step, with each distance in it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

import mow
from benchmarks import candidates, naive
from benchmarks.cases import DIRECTIONS, Candidate, Case
from benchmarks.floors import Empty
from benchmarks.timing import Entrant
from mow.app import models
from mow.window.distances import Distance
from mow.window.window import MovingWindow

N, K, DIM, SHAPE = 64, 1, 20, (1, 28, 28)

OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=1e-5, fused=True),
    "adam": lambda parameters: torch.optim.Adam(parameters, lr=1e-4, fused=True),
}


class EmptyDistance(Distance):
    """In place of a distance: an empty autograd Function of the new latents, and nothing else."""

    def measure(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        return Empty.apply(z)


class NaiveDistance(Distance):
    """The naive code over the window, with what it draws at each step."""

    def __init__(self, distance: str) -> None:
        super().__init__()
        self.name = distance

    def measure(self, z: Tensor, window: MovingWindow | Tensor | None = None) -> Tensor:
        assert isinstance(window, MovingWindow)
        return naive_value(self.name, z, window.history(len(z)))


def naive_value(distance: str, z: Tensor, history: Tensor) -> Tensor:
    """The naive code over the window, with the prior sample and the directions of this step."""
    if distance == "cramer_wold":
        return naive.cramer_wold(z, history)
    prior = torch.randn(N, DIM, device=z.device)
    if distance == "mmd":
        return naive.mmd(z, history, prior)
    directions = torch.nn.functional.normalize(torch.randn(DIM, DIRECTIONS, device=z.device), dim=0)
    return naive.sliced_wasserstein(z, history, prior, directions)


AS_IN_THE_PAPER: dict[str, Callable[[], Distance]] = {
    "mmd": lambda: mow.MMD("normal-sample"),
    "cramer_wold": lambda: mow.CramerWold(phi="asymptotic"),
    "sliced_wasserstein": lambda: mow.SlicedWasserstein("normal-sample"),
}
BY_DEFAULT: dict[str, Callable[[], Distance]] = {
    "mmd": mow.MMD,
    "cramer_wold": mow.CramerWold,
    "sliced_wasserstein": mow.SlicedWasserstein,
}
"""N(0, I) in closed form, exact phi."""


def participants(distance: str) -> list[Candidate]:
    """Who takes part: the library as in the paper and by default, the naive code, the floor."""
    names = (candidates.OURS, candidates.variant(distance), "reference", "plain", "empty")
    found = {candidate.name: candidate for candidate in candidates.candidates(Case(distance, N, K, DIM))}
    return [found[name] for name in names]


def entrant(distance: str, optimizer: str, participant: Candidate) -> Entrant:
    """Training steps on noise, one after the other, from a state of their own."""
    modules: dict[str, Callable[[], Distance]] = {"plain": lambda: NaiveDistance(distance), "empty": EmptyDistance}
    default = participant.name == candidates.variant(distance)
    module = modules.get(participant.name, (BY_DEFAULT if default else AS_IN_THE_PAPER)[distance])
    made = trainer(module(), optimizer)
    pictures = itertools.cycle(torch.rand(256, K, *SHAPE).unbind())
    return Entrant(participant.name, lambda: made.step(next(pictures)), participant.backend)


def trainer(distance: Distance, optimizer: str) -> mow.Trainer:
    """A trainer of fresh modules, the same weights each time, its window full."""
    torch.manual_seed(0)
    encoder, decoder = models.mlp_encoder(SHAPE, DIM), models.mlp_decoder(SHAPE, DIM)
    made = mow.Trainer(encoder, decoder, distance, MovingWindow(N, DIM), k=K, optimizer=OPTIMIZERS[optimizer])
    with torch.no_grad():
        made.window.fill(encoder(torch.rand(N - K, *SHAPE)))
    return made
