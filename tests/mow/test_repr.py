"""What public objects say they are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from marks import needs_native
from torch import nn

import mow
import mow_kernels as mk
from mow.app.data import PictureData
from mow.neighbours.gan import GANTrainer


@pytest.mark.parametrize(
    "distance, said",
    [
        (mow.CramerWold(), "CramerWold()"),
        (mow.CramerWold(log=True), "CramerWold(log=True)"),
        (mow.MMD(kernel="gaussian", estimator="biased"), "MMD(kernel='gaussian', estimator='biased')"),
        (mow.MMD(scales=np.ones(2)), "MMD(scales=array([1., 1.]))"),
        (mow.SlicedWasserstein(), "SlicedWasserstein()"),
        (mow.SlicedWasserstein(directions=20, keep=3), "SlicedWasserstein(directions=20, keep=3)"),
        (mow.SlicedWasserstein(directions=torch.eye(2)), "SlicedWasserstein(directions=[2, 2])"),
    ],
)
def test_distances_show_what_differs_from_the_defaults(distance: nn.Module, said: str) -> None:
    assert repr(distance) == said


def test_trainer() -> None:
    trainer = mow.Trainer(nn.Linear(3, 2), nn.Linear(2, 3), mow.CramerWold(log=True), mow.MovingWindow(8, 2), k=2)
    trainer.fit(torch.zeros(16, 3), 3)
    said = repr(trainer)
    assert said.startswith(
        "Trainer(k=2, n=8, distance=CramerWold(log=True), weighting='compensated', optimizer=Adam(lr="
    )
    assert said.endswith("), steps_done=3)")


def test_sampler() -> None:
    assert repr(mow.CoresetSampler(torch.ones(9, 4), 2)) == "CoresetSampler(features=[9, 4], batch_size=2, factor=8)"


@needs_native
def test_running_sums() -> None:
    sums = mk.RunningSums(mk.mmd, 16, 2, estimator="biased")
    assert repr(sums) == "RunningSums(mmd, 16, 2, estimator='biased'; rows=0)"


def test_pictures_are_counted_not_printed() -> None:
    pictures = torch.zeros(5, 1, 4, 6, dtype=torch.uint8)
    assert repr(PictureData("mine", pictures, pictures[:2], "here")) == (
        "PictureData('mine', train=5, test=2, picture=1x4x6)"
    )


def test_priors_and_their_windows() -> None:
    window = mow.PriorWindow(8, 2, "uniform")
    assert repr(window) == "PriorWindow(n=8, dim=2, prior=Uniform())"
    assert repr(mow.priors.Normal(torch.Generator())) == "Normal()"
    trainer = mow.Trainer(nn.Linear(3, 2), nn.Linear(2, 3), mow.MMD(window), mow.MovingWindow(8, 2))
    assert "distance=MMD((prior): PriorWindow(n=8, dim=2, prior=Uniform())), weighting" in repr(trainer)


def test_a_stream_says_where_it_is() -> None:
    stream = mow.ShuffledStream(torch.zeros(9, 3), seed=4)
    stream.take(5)
    assert repr(stream) == "ShuffledStream(seed=4, epoch=0, offset=5, pictures=9, drop_last=False)"


def test_neighbours() -> None:
    scale = mow.GradientNoiseScale(nn.Linear(3, 2).parameters())
    assert repr(scale) == "GradientNoiseScale(parameters=2, decay=0.99, value=nan)"
    gan = GANTrainer(nn.Linear(2, 3), nn.Linear(3, 1), 2, penalty=0.5)
    assert repr(gan) == (
        "GANTrainer(dim=2, prior=Normal(), penalty=0.5, generator_optimizer=Adam(lr=0.0001), "
        "discriminator_optimizer=Adam(lr=0.0003))"
    )
    fitted = mow.fit_critical_batch([1, 4, 16, 64], [4000, 1100, 390, 210])
    assert repr(fitted).startswith("CriticalBatch(measurements=4, hyperbola=LawFit(law='hyperbola', critical_batch=")
    assert "tensor" not in repr(fitted) and "\n" not in repr(fitted)
