"""Small-GAN's claim on pictures: does a small GAN learn Fashion-MNIST better from core-sets, at batch 16 and 64?

Core-sets on both sides, as the paper has them: of the real pictures, in the features of a classifier of the same data
set, projected; and of the prior. Scored in those features, unprojected.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import mow
from mow.app import data, features
from mow.app.evaluation import frechet_distance
from mow.app.models import mlp
from mow.neighbours.coreset import CoresetPrior
from mow.neighbours.gan import GANTrainer
from mow.training.stream import to_unit_range
from studies.core_sets.sampling import batches

DIM, LATENT, WIDTHS = 32, 32, (256, 512)
STEPS, EVALUATIONS = 2400, 4
RATE = 1e-3
"""Of both networks: with the defaults of `GANTrainer` so few steps reach nothing that could be compared."""

GENERATED, NEIGHBOURS = 5000, 3

CELLS = [
    {"batch": batch, "seed": seed, "choice": choice}
    for seed in range(3)
    for batch in (16, 64)
    for choice in ("random", "coreset")
]
SETTINGS = {
    "steps": STEPS,
    "rate": RATE,
    "generated": GENERATED,
    "neighbours": NEIGHBOURS,
    "latent": LATENT,
    "widths": list(WIDTHS),
}


def coverage(real: Tensor, generated: Tensor, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """Precision, the share of generated rows [M, F] within the manifold of the real ones [N, F], and recall, the
    reverse. A manifold is a ball about each row as far as its so-manieth nearest neighbour.

    Source: Kynkaanniemi et al. 2019, arXiv 1904.06991.
    """

    def within(rows: Tensor, manifold: Tensor) -> float:
        radius = torch.cdist(manifold, manifold).kthvalue(neighbours + 1, dim=1).values  # the nearest is the row itself
        return float((torch.cdist(rows, manifold) <= radius).any(1).double().mean())

    return within(generated, real), within(real, generated)


class Task:
    """The pictures, and what they are compared in."""

    def __init__(self) -> None:
        self.source = data.load("fashion-mnist")
        network = features.classifier(self.source)
        assert network is not None  # Fashion-MNIST has labels
        self._network = network
        self.about = {
            "data": self.source.origin.split(", found")[0],
            "features": network.name,
            "accuracy": network.accuracy,
        }
        self._train = network.extract(self.source.train[:]).float()
        self._test = network.extract(self.source.test[:]).float()

    def run(self, batch: int, seed: int, choice: str, *, steps: int = STEPS) -> dict[str, Any]:
        """Train one GAN. -> curve: steps, Frechet distance, precision and recall at each evaluation; seconds."""
        began, leaky = time.perf_counter(), partial(nn.LeakyReLU, 0.2)
        torch.manual_seed(seed)
        shape = self.source.train.shape[1:]
        generator = nn.Sequential(
            mlp(LATENT, *WIDTHS, shape.numel(), activation=leaky), nn.Sigmoid(), nn.Unflatten(1, shape)
        )
        discriminator = nn.Sequential(nn.Flatten(), mlp(shape.numel(), *WIDTHS[::-1], 1, activation=leaky))
        random = torch.Generator().manual_seed(seed)
        projected = mow.random_projection(self._train, DIM, generator=random)
        prior = CoresetPrior(prior=mow.priors.Normal(random), generator=random)
        trainer = GANTrainer(
            generator,
            discriminator,
            LATENT,
            lr_discriminator=RATE,
            lr_generator=RATE,
            prior=prior if choice == "coreset" else None,
            seed=seed,
        )
        curve = []
        for step, rows in enumerate(batches(projected, batch, choice, steps, random), 1):
            trainer.step(to_unit_range(self.source.train[rows]))
            if step % -(-steps // EVALUATIONS) == 0:
                curve.append([step, *self._score(trainer.sample(GENERATED))])
        return {"curve": curve, "seconds": round(time.perf_counter() - began, 1)}

    def _score(self, pictures: Tensor) -> tuple[float, ...]:
        generated, real = self._network.extract(pictures).float(), self._test
        scores = frechet_distance(real, generated), *coverage(real[:GENERATED], generated)
        return tuple(round(score, 4) for score in scores)
