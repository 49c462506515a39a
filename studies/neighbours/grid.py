"""A GAN on a grid of 25 Gaussians, with and without core-sets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import mow_kernels as mk
from mow.app.models import mlp
from mow.neighbours.coreset import CoresetPrior
from mow.neighbours.gan import GANTrainer
from mow.window.priors import Normal
from studies.neighbours.step_memory import step_mib

SIDE, SPACING, DEVIATION = 5, 2.0, 0.05
"""Small-GAN's grid: 25 modes, 2 apart, with standard deviation .05 each."""
NEAR = 4 * DEVIATION
"""A sample of high quality is no farther from a mode."""
PRIOR_FACTOR, DATA_FACTOR = 4, 8
"""Small-GAN's f_z and f_x."""
WIDTH, LR, PENALTY = 128, 1e-3, 0.1
SAMPLES, SCORES = 10_000, 10


def jobs() -> list[dict[str, Any]]:
    return [
        {"batch": batch, "coreset": coreset, "seed": seed, "steps": 10_000}
        for coreset in (False, True)
        for seed in range(4)
        for batch in (4, 16, 64)
    ]


def run(settings: dict[str, Any]) -> dict[str, Any]:
    """-> modes, high_quality and kl, each a list over ten equal parts of the run; step_mib."""
    trainer, step = prepare(settings["batch"], settings["coreset"], settings["seed"])
    scores: list[dict[str, float]] = []
    for _ in range(SCORES):
        for _ in range(settings["steps"] // SCORES):
            step()
        scores.append(score(trainer.sample(SAMPLES)))
    curves = {name: [one[name] for one in scores] for name in scores[0]}
    return {**curves, "step_mib": step_mib(step)}


def prepare(batch: int, coreset: bool, seed: int) -> tuple[GANTrainer, Callable[[], None]]:
    """A trainer, and what draws a batch and takes a step with it."""
    torch.manual_seed(seed)
    random = torch.Generator().manual_seed(seed)
    trainer = GANTrainer(
        mlp(2, WIDTH, WIDTH, WIDTH, 2),
        mlp(2, WIDTH, WIDTH, WIDTH, 1),
        2,
        lr_discriminator=LR,
        lr_generator=LR,
        penalty=PENALTY,
        prior=CoresetPrior(prior=Normal(random), factor=PRIOR_FACTOR, generator=random) if coreset else None,
        seed=seed,
    )

    def step() -> None:
        x = draw(batch * (DATA_FACTOR if coreset else 1), random)
        trainer.step(x[mk.k_center(x, batch, generator=random).indices] if coreset else x)

    return trainer, step


def modes() -> Tensor:
    """The centres [25, 2]."""
    side = SPACING * (torch.arange(SIDE) - (SIDE - 1) / 2)
    return torch.cartesian_prod(side, side)


def draw(count: int, random: torch.Generator) -> Tensor:
    """count samples of the mixture [count, 2]."""
    which = torch.randint(SIDE**2, (count,), generator=random)
    return modes()[which] + DEVIATION * torch.randn(count, 2, generator=random)


def score(samples: Tensor) -> dict[str, float]:
    """Modes with a sample of high quality, the share of those, and KL(their frequencies over the modes || uniform)."""
    distance, nearest = torch.cdist(samples, modes()).min(1)
    good = nearest[distance <= NEAR]
    counts = torch.bincount(good, minlength=SIDE**2).double()
    share = counts / max(1, len(good))
    return {
        "modes": int((counts > 0).sum()),
        "high_quality": len(good) / len(samples),
        "kl": float(torch.xlogy(share, share * SIDE**2).sum()),
    }
