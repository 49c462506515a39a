"""How many steps a GAN needs at each batch size, measured on real pictures: what `mow critical-batch` does.

The pictures are averaged down to 7 x 7, the networks are small, and quality is the Frechet distance between generated
and real pictures on 16 principal components, so that ten batch sizes with several seeds take minutes on one core.
"""

from __future__ import annotations

import time
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mow.data import PictureData
from mow.evaluation import frechet_distance
from mow.gan import GANTrainer
from mow.models import mlp
from mow.stream import ShuffledStream, to_unit_range

SIDE, COMPONENTS, LATENT, WIDTH = 7, 16, 32, 128
GENERATED = 2000
"""Pictures that an evaluation generates, from the same prior samples each time."""


class Task:
    """The pictures and how far generated ones are from them.

    Args:
        source: grey pictures.
    """

    def __init__(self, source: PictureData) -> None:
        pictures = to_unit_range(source.train).mean(1, keepdim=True)
        self.pictures = 2 * adaptive_avg_pool2d(pictures, SIDE).flatten(1) - 1
        self._mean = self.pictures.mean(0)
        _, vectors = torch.linalg.eigh(torch.cov(self.pictures.T.double()))
        self._components = vectors[:, -COMPONENTS:].to(self.pictures)
        self._real = self._project(self.pictures)

    def distance(self, pictures: Tensor) -> float:
        """Squared Frechet distance of pictures [N, 49] to the real ones, on the principal components of those."""
        return frechet_distance(self._project(pictures), self._real)

    def _project(self, pictures: Tensor) -> Tensor:
        return (pictures - self._mean) @ self._components


def networks(seed: int) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator of pictures [k, 49] in [-1, 1]."""
    torch.manual_seed(seed)
    leaky = partial(nn.LeakyReLU, 0.2)
    generator = nn.Sequential(mlp(LATENT, WIDTH, WIDTH, SIDE**2, activation=leaky), nn.Tanh())
    return generator, mlp(SIDE**2, WIDTH, WIDTH, 1, activation=leaky)


def measure(task: Task, batch: int, seed: int, *, threshold: float, every: int, limit: int) -> dict:
    """Train at one batch size until the distance is at most the threshold.

    Args:
        threshold: of `Task.distance`.
        every: steps between evaluations.
        limit: steps after which to give up.

    Returns:
        batch, seed, threshold, every; steps, of the first evaluation at or below the threshold, or None; curve, the
        distance at every evaluation; seconds.
    """
    began = time.perf_counter()
    trainer = GANTrainer(*networks(seed), LATENT, lr_discriminator=3e-4, lr_generator=1e-4, seed=seed)
    stream = ShuffledStream(task.pictures, seed)
    curve: list[float] = []
    for step in range(1, limit + 1):
        trainer.step(stream.take(batch))
        if step % every == 0:
            curve.append(round(task.distance(trainer.sample(GENERATED)), 4))
            if curve[-1] <= threshold:
                break
    reached = bool(curve) and curve[-1] <= threshold
    return {
        "batch": batch,
        "seed": seed,
        "threshold": threshold,
        "every": every,
        "steps": len(curve) * every if reached else None,
        "curve": curve,
        "seconds": round(time.perf_counter() - began, 2),
    }
