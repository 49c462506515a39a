"""`mow critical-batch`: what it measures, what it writes, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from mow.app import critical_batch_demo, data
from mow.app.cli import app
from mow.app.critical_batch_demo import Task, measure, networks
from mow.files import read_json_lines


@pytest.fixture(autouse=True)
def bars(pictures_file: Path, monkeypatch: pytest.MonkeyPatch) -> data.PictureData:
    """Small pictures in place of Fashion-MNIST."""
    source = data.load(str(pictures_file))
    monkeypatch.setattr(critical_batch_demo.data, "load", lambda name, data_dir: source)
    return source


def call(*words: object):
    return CliRunner().invoke(app, ["critical-batch", *map(str, words)])


def test_the_distance_is_zero_for_the_pictures_and_large_without_training(bars: data.PictureData) -> None:
    task = Task(bars)
    assert task.pictures.shape == (180, 49) and float(task.pictures.abs().max()) <= 1
    assert task.distance(task.pictures) == pytest.approx(0, abs=1e-5)
    generator, _ = networks(0)
    assert task.distance(generator(torch.randn(500, 32)).detach()) > 1


def test_a_run_ends_where_the_threshold_is_reached(bars: data.PictureData) -> None:
    task = Task(bars)
    longer = measure(task, 8, 0, threshold=0, every=5, limit=20)
    assert longer["steps"] is None and len(longer["curve"]) == 4
    third = longer["curve"][2]
    assert third < min(longer["curve"][:2])
    shorter = measure(task, 8, 0, threshold=third, every=5, limit=20)
    assert shorter["steps"] == 15 and shorter["curve"] == longer["curve"][:3]


def test_the_command_writes_measures_and_a_picture_and_goes_on(tmp_path: Path) -> None:
    words = ("--out", tmp_path, "--largest", 4, "--threshold", 1e6)
    first = call(*words, "--seeds", 1)
    assert first.exit_code == 0, (first.output, first.exception)
    assert "noise scale, K = K_min (1 + B_c/b): critical batch" in first.output
    path = tmp_path / "measurements.jsonl"
    lines = path.read_text().splitlines()
    assert [json.loads(line)["batch"] for line in lines] == [1, 2, 4]
    assert {json.loads(line)["steps"] for line in lines} == {critical_batch_demo.EVERY}
    with Image.open(tmp_path / "critical-batch.png") as image:
        assert image.width > 1000

    path.write_text("\n".join(lines) + '\n{"batch": 1, "se')  # killed while it wrote
    assert call(*words, "--seeds", 2).exit_code == 0
    found = [(line["batch"], line["seed"]) for line in read_json_lines(path)]
    assert found == [(1, 0), (2, 0), (4, 0), (1, 1), (2, 1), (4, 1)]
    assert path.read_text().splitlines()[:3] == lines


def test_measurements_of_another_threshold_do_not_count(tmp_path: Path) -> None:
    for threshold in (1e6, 1e5):
        words = ("--out", tmp_path, "--largest", 4, "--seeds", 1, "--threshold", threshold)
        assert "       4     1 " in call(*words).output
    assert len(read_json_lines(tmp_path / "measurements.jsonl")) == 6


def test_runs_that_never_got_there_are_left_out_and_named(tmp_path: Path) -> None:
    result = call("--out", tmp_path, "--largest", 4, "--seeds", 1, "--threshold", 0, "--limit", 10)
    assert "left out: (batch, seed) = [(1, 0), (2, 0), (4, 0)]" in result.output
    assert result.exit_code == 2 and "batch_sizes holds 0 different ones with steps" in result.stderr
