"""What public objects say they are."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from marks import needs_native
from torch import nn

import mow
import mow_kernels as mk
from mow.app.data import LazyPictures, PictureData
from mow.neighbours.gan import GANTrainer
from mow.training.compiled import CompiledStep


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


def test_the_rest(tmp_path: Path) -> None:
    lazy = LazyPictures(tmp_path, ["a.png", "b.png"], np.load, (1, 8, 8))
    assert repr(lazy) == f"LazyPictures(folder={str(tmp_path)!r}, shape=[2, 1, 8, 8], left_out=0)"
    optimizer = torch.optim.SGD(nn.Linear(2, 1).parameters(), lr=0.1)
    assert repr(mow.Cosine(optimizer, 30)) == "Cosine(steps=30, steps_done=0)"
    assert repr(mk.Ring(torch.zeros(4, 2), torch.tensor(0))) == "Ring(slots=[4, 2], device='cpu')"
    assert repr(mk.use_backend("reference")) == "use_backend('reference')"
    assert repr(CompiledStep(optimizer)) == "CompiledStep(optimizer=SGD(lr=0.1), seconds=0)"


def public_classes() -> Iterator[type]:
    """Those that the pages of the reference name, or that a module has which they name."""
    for page in Path(__file__).parents[2].glob("docs/api/*.md"):
        for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            parent, _, name = path.rpartition(".")
            found = getattr(importlib.import_module(parent), name)
            within = vars(found).values() if inspect.ismodule(found) else [found]
            classes = [each for each in within if inspect.isclass(each) and not each.__name__.startswith("_")]
            yield from (each for each in classes if each.__module__.partition(".")[0] in ("mow", "mow_kernels"))


def test_every_public_class_says_what_it_is() -> None:
    classes = list(public_classes())
    assert len(classes) > 30
    assert [each for each in classes if each.__repr__ is object.__repr__] == []
