"""The networks of the Frechet distances."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mow.app import features
from mow.app.data import PictureData


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> PictureData:
    """Pictures that are bright on the left or on the right, by their label; and a short training."""
    monkeypatch.setattr(features, "STEPS", 60)
    generator = torch.Generator().manual_seed(0)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(0, 2, (count,), generator=generator)
        pictures = torch.randint(0, 100, (count, 1, 8, 8), generator=generator)
        pictures[labels == 0, :, :, :4] += 100
        pictures[labels == 1, :, :, 4:] += 100
        return pictures.to(torch.uint8), labels

    (train, train_labels), (test, test_labels) = draw(300), draw(100)
    return PictureData("sides", train, test, "made here", train_labels=train_labels, test_labels=test_labels)


def test_a_classifier_learns_and_is_kept(source: PictureData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.get_rng_state()
    found = features.classifier(source, cache=tmp_path / "cache")
    assert found is not None and found.accuracy > 0.95
    assert torch.equal(torch.get_rng_state(), random)
    x = found.extract(source.test)
    assert x.shape == (100, 64) and x.dtype == torch.float64 and not x.requires_grad
    monkeypatch.setattr(features, "_trained", None)  # whoever trains again fails
    again = features.classifier(source, cache=tmp_path / "cache")
    assert again is not None and (again.name, again.accuracy) == (found.name, found.accuracy)
    assert torch.equal(again.extract(source.test / 255), x), "pictures in [0, 1] are the same pictures"


def test_another_data_set_has_another_classifier(source: PictureData, tmp_path: Path) -> None:
    other = dataclasses.replace(source, train=source.train.flip(3))
    names = [features.classifier(data, cache=tmp_path).name for data in (source, other)]  # type: ignore[union-attr]
    assert names[0] != names[1]


def test_a_damaged_cache_is_made_anew(source: PictureData, tmp_path: Path) -> None:
    name = features.classifier(source, cache=tmp_path).name  # type: ignore[union-attr]
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    assert features.classifier(source, cache=tmp_path).name == name  # type: ignore[union-attr]
    assert path.stat().st_size > 100


def test_no_labels_no_classifier(source: PictureData, tmp_path: Path) -> None:
    assert features.classifier(dataclasses.replace(source, train_labels=None), cache=tmp_path) is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lacking", ["package", "weights", "nothing"])
def test_whether_inception_is_here(lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "checkpoints").mkdir()
    if lacking != "weights":
        (tmp_path / "checkpoints" / features.INCEPTION_WEIGHTS).touch()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    found = None if lacking == "package" else object()
    monkeypatch.setattr(features.importlib.util, "find_spec", lambda name: found)
    assert features.inception_is_here() == (lacking == "nothing")


def test_what_inception_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour pictures in [0, 1], the real ones told from the generated: torchmetrics itself is not asked for."""
    seen: dict[bool, list[Tensor]] = {True: [], False: []}

    class Metric:
        def __init__(self, feature: int, normalize: bool) -> None:
            assert (feature, normalize) == (2048, True)
            self.inception = torch.nn.Flatten()

        def update(self, pictures: Tensor, real: bool) -> None:
            seen[real].append(pictures)
            self.inception(pictures)

        def compute(self) -> Tensor:
            return torch.tensor(3.5)

    module = types.SimpleNamespace(FrechetInceptionDistance=Metric)
    monkeypatch.setitem(sys.modules, "torchmetrics", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", module)
    real = torch.randint(0, 256, (7, 1, 4, 4), dtype=torch.uint8)
    generated = 3 * torch.rand(5, 3, 4, 4) - 1
    assert features.inception_distance([real[:4], real[4:]], [generated], batch=3) == 3.5
    kept: dict[bool, list[Tensor]] = {True: [], False: []}
    features.inception_distance([real[:4]], [generated], features=kept)
    for is_real in (True, False):
        torch.testing.assert_close(
            torch.cat(kept[is_real]), torch.cat(seen[is_real]).flatten(1)[-len(kept[is_real][0]) :]
        )
    assert len(kept[True][0]) == 4 and len(kept[False][0]) == 5
    seen[True], seen[False] = seen[True][:3], seen[False][:2]
    assert [len(chunk) for chunk in seen[True]] == [3, 1, 3]
    torch.testing.assert_close(torch.cat(seen[True]), (real / 255).expand(-1, 3, -1, -1))
    torch.testing.assert_close(torch.cat(seen[False]), generated.clamp(0, 1))
