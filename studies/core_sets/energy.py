"""Anomaly detection as Small-GAN tries it: an energy model of MNIST without one digit, with and without core-sets.

The model is a maximum entropy generator's (Kumar et al. 2019, arXiv 1901.08508), small: an energy that is low on the
data, a generator of what it is held low against, and an estimate of the mutual information between the generator's
input and output that keeps its entropy up. A picture's energy is its anomaly score. Core-sets of the pictures are
chosen in random projections of their pixels: a classifier would know the digit that is held out.
"""

from __future__ import annotations

import time
from functools import partial
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

import mow
from mow.app import data
from mow.app.models import mlp
from mow.neighbours.coreset import CoresetPrior
from mow.training.stream import to_unit_range
from studies.core_sets.anomaly import average_precision
from studies.core_sets.sampling import batches

DIGITS = (1, 4, 5, 7, 9)
"""Those that are held out in the paper, as we read it."""

DIM, LATENT, WIDTH = 32, 32, 256
BATCH, STEPS, EVALUATIONS = 64, 800, 10
RATE, BETAS, PENALTY = 2e-4, (0.5, 0.9), 0.1

CELLS = [
    {"digit": digit, "seed": seed, "choice": choice}
    for seed in range(3)
    for digit in DIGITS
    for choice in ("random", "coreset")
]
SETTINGS = {"batch": BATCH, "steps": STEPS, "rate": RATE, "penalty": PENALTY, "width": WIDTH, "latent": LATENT}


class Task:
    """The pictures."""

    def __init__(self) -> None:
        self.source = data.load("mnist")
        if self.source.embedded:
            raise FileNotFoundError("mnist was not found; the study needs the full data set")
        self.about = {"data": self.source.origin.split(", found")[0]}

    def run(self, digit: int, seed: int, choice: str, *, steps: int = STEPS) -> dict[str, Any]:
        """Train without the digit. -> auprc, the mean over the second half of the evaluations; curve; seconds."""
        began = time.perf_counter()
        train, test = self.source, to_unit_range(self.source.test[:]).flatten(1)
        assert train.train_labels is not None and train.test_labels is not None  # MNIST has them
        pictures, positive = train.train[train.train_labels != digit], train.test_labels == digit
        random = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)
        model, curve = EnergyModel(test.shape[1]), []
        features = mow.random_projection(pictures, DIM, generator=random)
        normal = mow.priors.Normal(random)
        prior = CoresetPrior(prior=normal, generator=random) if choice == "coreset" else normal
        for step, rows in enumerate(batches(features, BATCH, choice, steps, random), 1):
            model.step(to_unit_range(pictures[rows]).flatten(1), prior)
            if step % -(-steps // EVALUATIONS) == 0:
                with torch.no_grad():
                    curve.append(round(average_precision(model.energy(test)[:, 0], positive), 4))
        return {
            "auprc": round(fmean(curve[len(curve) // 2 :]), 4),
            "curve": curve,
            "seconds": round(time.perf_counter() - began, 1),
        }


class EnergyModel:
    """An energy of rows [k, width], its generator, and a statistic that tells their pairs with the generator's input.

    Each step descends, with D the data, G the generator and z its input:
    energy: E(D) - E(G(z)) + PENALTY |grad E(D)|^2; then generator and statistic: E(G(z)) - I(z; G(z)), with the
    Jensen-Shannon estimate of I (Hjelm et al. 2019, arXiv 1808.06670).
    """

    def __init__(self, width: int) -> None:
        leaky = partial(nn.LeakyReLU, 0.2)
        self.energy = mlp(width, WIDTH, WIDTH, 1, activation=leaky)
        self.generator = nn.Sequential(mlp(LATENT, WIDTH, WIDTH, width, activation=leaky), nn.Sigmoid())
        self.statistic = mlp(width + LATENT, WIDTH, 1, activation=leaky)
        makers = [*self.generator.parameters(), *self.statistic.parameters()]
        self._optimizers = [
            torch.optim.Adam(of, lr=RATE, betas=BETAS, fused=True) for of in (self.energy.parameters(), makers)
        ]

    def step(self, x: Tensor, prior: mow.priors.Prior) -> None:
        """One step of the energy on data x [k, width], one of generator and statistic."""
        z = prior.sample(len(x), x[:, :1].expand(-1, LATENT))
        made, at = self.generator(z), x.clone().requires_grad_()
        real = self.energy(at)
        (slopes,) = torch.autograd.grad(real.sum(), at, create_graph=True)
        penalty = slopes.square().sum(1).mean()
        self._descend(0, real.mean() - self.energy(made.detach()).mean() + PENALTY * penalty)
        pairs, shuffled = (torch.cat([made, of], 1) for of in (z, z.roll(1, 0)))
        information = -softplus(-self.statistic(pairs)).mean() - softplus(self.statistic(shuffled)).mean()
        self._descend(1, self.energy(made).mean() - information)

    def _descend(self, which: int, loss: Tensor) -> None:
        optimizer = self._optimizers[which]
        parameters = optimizer.param_groups[0]["params"]
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
