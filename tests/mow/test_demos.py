"""`mow coreset` and `mow microbatch`: what they measure, and what they write."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mow.app import coreset_demo, data, micro_batch_demo
from mow.app.cli import app


def call(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture
def labelled(pictures_file: Path) -> data.PictureData:
    source = data.load(str(pictures_file))
    labels = torch.arange(len(source.train)) % 3
    return data.PictureData(source.name, source.train, source.test, source.origin, train_labels=labels)


# mow coreset


def test_covering_radius_by_hand() -> None:
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    assert coreset_demo.covering_radius(features, torch.tensor([0])) == 5
    assert coreset_demo.covering_radius(features, torch.tensor([0, 1])) == 1


def test_core_sets_are_measured_against_random_choices(labelled: data.PictureData) -> None:
    found = coreset_demo.measure(labelled, 10, 0)
    assert found["sizes"] == [4, 8, 16, 32, 64, 128]
    assert all(covered < median(drawn) for covered, drawn in zip(found["coreset"], found["random"], strict=True))
    assert found["coreset"] == sorted(found["coreset"], reverse=True)
    for shares in found["shares"].values():
        assert len(shares) == 3 and sum(shares) == pytest.approx(1)
    assert found["shares"]["random"] == pytest.approx([1 / 3] * 3, abs=0.02)
    assert 2 < found["present"]["random"] <= 3
    assert found == coreset_demo.measure(labelled, 10, 0)


def test_coreset_writes_measures_and_pictures(pictures_file: Path, tmp_path: Path) -> None:
    result = call("coreset", "--data", pictures_file, "--batch", 20, "--out", tmp_path / "new")
    assert result.exit_code == 0, (result.output, result.exception)
    assert "128 pictures: covering radius" in result.stdout
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "coreset.json",
        "coreset.png",
        "coreset-batch.png",
        "random-batch.png",
    }
    assert json.loads((tmp_path / "new" / "coreset.json").read_text())["batch"] == 20
    with Image.open(tmp_path / "new" / "coreset.png") as image:
        assert image.width > 1000


def test_a_batch_of_more_pictures_than_there_are(pictures_file: Path, tmp_path: Path) -> None:
    result = call("coreset", "--data", pictures_file, "--batch", 500, "--out", tmp_path / "new")
    assert result.exit_code == 2 and "batch is 500" in result.stderr and not (tmp_path / "new").exists()


# mow microbatch


def test_gradients_are_equal_and_the_usual_mistake_is_not(labelled: data.PictureData) -> None:
    found = micro_batch_demo.errors(labelled, 0, (7, 50, 100))
    wrong = found.pop("mean of means")
    assert len(found) == 5 and all(max(values) < 1e-12 for values in found.values())
    assert wrong[0] > 1e-3 and wrong[1:] == pytest.approx([0, 0], abs=1e-12)


def test_peak_memory_is_that_of_a_process_of_its_own() -> None:
    ballast = torch.ones(2**28)  # a GiB that a child must not be charged with
    assert 50 < micro_batch_demo.peak_mib(2, 1) < 900
    del ballast


def test_microbatch_writes_measures_and_a_picture(
    labelled: data.PictureData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro_batch_demo, "SPLITS", (30, 100))
    monkeypatch.setattr(micro_batch_demo.data, "load", lambda name, data_dir: labelled)
    monkeypatch.setattr(micro_batch_demo, "peak_mib", lambda batch, piece: 100.0 + (piece or batch))
    result = call("microbatch", "--out", tmp_path, "--largest", 256)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "whole batch         64: 164 MiB, 256: 356 MiB" in result.stdout
    assert "pieces of 8         64: 108 MiB, 256: 108 MiB" in result.stdout
    written = json.loads((tmp_path / "microbatch.json").read_text())
    assert written["splits"] == [30, 100] and len(written["peaks"]) == 6 and written["floor_mib"] == 101
    with Image.open(tmp_path / "microbatch.png") as image:
        assert image.width > 1000
