"""Runs in a folder: the same twice, and the same when they were killed and resumed."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import mow
from mow.app import data
from mow.app.architectures import ARCHITECTURES
from mow.app.data import PictureData
from mow.app.options import Options
from mow.app.run import Run
from mow.training import checkpoint
from mow.training.checkpoint import CheckpointError

ROOT = Path(mow.__file__).parents[1]
MODELS = ("cwae", "wae", "swae")
FILES = {"metrics.jsonl", "checkpoint.pt", "samples.png", "reconstructions.png", "interpolations.png", "report.html"}
SameRun = Callable[[Path, Path], None]
Metrics = Callable[[Path], list[dict[str, Any]]]
OptionsOf = Callable[..., Options]


class Killed(BaseException):
    """No handler may catch it, as none can catch SIGKILL."""


@pytest.fixture
def options(pictures_file: Path) -> OptionsOf:
    """Options of a run of 60 steps."""
    defaults = {"data": str(pictures_file), "n": 16, "dim": 4, "steps": 60}
    defaults |= {"log_every": 7, "evaluate_every": 30, "checkpoint_every": 20}
    return lambda **changes: Options(**{**defaults, **changes})


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures and the report out, which take longer than the training."""
    monkeypatch.setattr(Run, "write_pictures", lambda run: None)
    monkeypatch.setattr(Run, "write_report", lambda run: None)


def finished(options: Options, out: Path) -> Path:
    Run.start(options, out).train()
    return out


def killed(run: Run, step: int) -> None:
    """Ends a run dead after so many steps."""

    def on_step(done: int, record: Any) -> None:
        if done == step:
            raise Killed

    with pytest.raises(Killed):
        run.train(on_step)


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


# What a run writes


def test_the_files_of_a_run(options: OptionsOf, tmp_path: Path) -> None:
    out = finished(options(), tmp_path / "deep" / "down")
    assert set(os.listdir(out)) == FILES
    for name in FILES:
        assert (out / name).stat().st_size > 0
        assert not name.endswith("png") or (out / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_logged(options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    out = finished(options(evaluate_every=25), tmp_path)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 7, 14, 21, 25, 28, 35, 42, 49, 50, 56, 60]
    for line in lines:
        evaluated = {"test_reconstruction", "test_cramer_wold"} if line["step"] in (0, 25, 50, 60) else set()
        assert line.keys() == {"step", "pictures", "loss", "reconstruction", "distance", "seconds"} | evaluated
        assert line["step"] == 0 or all(isinstance(value, int | float) for value in line.values())
    assert [lines[0][name] for name in ("loss", "reconstruction", "distance")] == [None] * 3, "no step was done yet"
    seconds = [line["seconds"] for line in lines]
    assert seconds == sorted(seconds) and seconds[0] == 0 < seconds[-1]


def test_a_logged_line_is_what_the_step_returned(
    options: OptionsOf, tmp_path: Path, read_metrics: Metrics, no_pages: None
) -> None:
    """Of 180 pictures 12 warm the window up; the first pass goes on with 42 batches of 4, the next have 45."""
    run, results = Run.start(options(k=4, steps=100, log_every=1), tmp_path), []
    step = run.trainer.step
    run.trainer.step = lambda x, **asked: results.append(step(x, **asked)) or results[-1]
    run.train()
    lines = read_metrics(tmp_path)
    assert [line["pictures"] for line in lines] == list(range(0, 401, 4))
    for name in ("loss", "reconstruction", "distance"):
        assert [line[name] for line in lines[1:]] == [result[name].item() for result in results]


def test_the_last_evaluation_is_that_of_the_weights_kept(
    options: OptionsOf, tmp_path: Path, read_metrics: Metrics, no_pages: None
) -> None:
    out = finished(options(), tmp_path)
    scores = Run.load(out).evaluate()
    assert scores == {name: value for name, value in read_metrics(out)[-1].items() if name.startswith("test_")}


def test_the_last_step_is_kept(options: OptionsOf, tmp_path: Path, read_metrics: Metrics, no_pages: None) -> None:
    """Also where neither a checkpoint nor an evaluation is due."""
    out = finished(options(steps=53), tmp_path)
    assert Run.load(out).trainer.steps_done == 53
    assert read_metrics(out)[-1]["step"] == 53 and "test_reconstruction" in read_metrics(out)[-1]


@pytest.mark.parametrize("model", MODELS)
def test_a_run_learns(model: str, options: OptionsOf, tmp_path: Path, read_metrics: Metrics, no_pages: None) -> None:
    first, *_, last = read_metrics(finished(options(model=model, k=8, steps=300, lr=1e-3), tmp_path))
    assert last["test_reconstruction"] < 0.2 * first["test_reconstruction"]
    assert last["test_cramer_wold"] < 0.5 * first["test_cramer_wold"]


def test_options_reach_the_trainer(options: OptionsOf, tmp_path: Path) -> None:
    chosen = {"k": 3, "lr": 0.01, "optimizer": "sgd", "weight": 2.5, "weighting": "reference", "log": True}
    chosen |= {"reencode": False, "root": True, "prior": "uniform", "model": "swae", "directions": 13}
    trainer = Run.start(options(**chosen), tmp_path).trainer
    assert isinstance(trainer.optimizer, torch.optim.SGD) and trainer.optimizer.param_groups[0]["lr"] == 0.01
    assert (trainer.k, trainer.weight, trainer.weighting) == (3, 2.5, "reference")
    assert (trainer.reencode, trainer.root, trainer.window.n, trainer.window.dim) == (False, True, 16, 4)
    distance = trainer.distance
    assert isinstance(distance, mow.SlicedWasserstein) and isinstance(distance.prior, mow.priors.Uniform)
    assert (distance.log, distance.count) == (True, 13)


@pytest.mark.parametrize("model, kind", [("cwae", mow.CramerWold), ("wae", mow.MMD), ("swae", mow.SlicedWasserstein)])
def test_the_models_and_their_defaults(model: str, kind: type, options: OptionsOf, tmp_path: Path) -> None:
    run = Run.start(options(model=model, k=4, dim=None), tmp_path)
    assert type(run.trainer.distance) is kind and run.trainer.distance.prior == "normal"
    assert run.trainer.distance.log == (model == "cwae")
    assert run.trainer.weighting == "compensated" and run.trainer.reencode and not run.trainer.root
    assert isinstance(run.trainer.optimizer, torch.optim.Adam)
    assert run.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(2e-3 * (4 / 64) ** 0.5)
    assert run.trainer.window.dim == 32
    assert run.trainer.weight == (1 if model == "cwae" else 10)


@pytest.mark.parametrize(
    "name, architecture, dim",
    [
        ("mnist", "mnist", 20),
        ("fashion-mnist", "mnist", 8),
        ("cifar-10", "cifar-10", 64),
        ("celeba", "celeba", 32),
        ("ffhq", "ffhq", 64),
        ("own.npz", "small", 32),
    ],
)
def test_architectures_and_latent_widths_by_the_data(name: str, architecture: str, dim: int) -> None:
    options = Options(data=name).resolved()
    assert (options.architecture, options.dim, options.size) == (architecture, dim, None)
    chosen = Options(data=name, architecture="fashion-mnist", dim=3).resolved()
    assert (chosen.architecture, chosen.dim) == ("fashion-mnist", 3)


def test_an_architecture_brings_its_width_and_its_pictures_size(tmp_path: Path) -> None:
    options = Options(data=str(tmp_path), architecture="ffhq").resolved()
    assert (options.dim, options.size) == (64, 1024)
    assert Options(data=str(tmp_path), architecture="ffhq", size=256).resolved().size == 256
    assert Options(data=str(tmp_path)).resolved().size is None


@pytest.mark.parametrize("architecture", ["mnist", "celeba", None])
def test_the_networks_are_the_architectures(
    architecture: str | None, options: OptionsOf, tmp_path: Path, no_pages: None
) -> None:
    run = Run.start(options(architecture=architecture), tmp_path)
    expected = ARCHITECTURES[architecture or "small"].build((1, 8, 8), 4)
    for network, made in zip((run.encoder, run.decoder), expected, strict=True):
        assert [type(layer) for layer in network] == [type(layer) for layer in made]
    assert Run.load(tmp_path).options.architecture == (architecture or "small")


def test_a_run_from_before_there_was_a_choice_goes_on(options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    killed(Run.start(options(architecture="mnist"), tmp_path), 39)
    state = checkpoint.load(tmp_path / "checkpoint.pt")
    del state["mow"], state["options"]["architecture"]
    checkpoint.save(tmp_path / "checkpoint.pt", state)
    assert Run.load(tmp_path).options.architecture == "mnist"


def test_a_run_on_a_folder_that_is_read_when_used(
    options: OptionsOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, assert_same_run: SameRun
) -> None:
    """The same run as over the same pictures in memory, resumed, and tied to the files' names and sizes."""
    folder = tmp_path / "own"
    folder.mkdir()
    for number in range(20):
        Image.new("L", (8, 8), 12 * number).save(folder / f"{number}.png")
    whole = finished(options(data=str(folder)), tmp_path / "whole")
    monkeypatch.setattr("mow.app.data.pictures.IN_MEMORY", 100)
    out = tmp_path / "killed"
    killed(Run.start(options(data=str(folder)), out), 39)
    run = Run.resume(out)
    assert isinstance(run.source.train, data.LazyPictures)
    run.train()
    assert_same_run(whole, out)
    assert set(os.listdir(out)) == FILES
    (folder / "0.png").write_bytes((folder / "0.png").read_bytes() + b"x")
    with pytest.raises(ValueError, match="data .*own.* is not what"):
        _ = Run.load(out).source


# The same twice


def test_a_run_is_the_same_twice(options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None) -> None:
    """Whatever was drawn before it. (Every model and k: test_cli.py.)"""
    chosen = options(model="swae", prior="uniform", k=5)
    torch.manual_seed(123)
    one = finished(chosen, tmp_path / "one")
    torch.manual_seed(456)
    assert_same_run(one, finished(chosen, tmp_path / "other"))


def test_another_seed_is_another_run(options: OptionsOf, tmp_path: Path, read_metrics: Metrics, no_pages: None) -> None:
    one, other = (finished(options(seed=seed), tmp_path / str(seed)) for seed in (0, 1))
    assert read_metrics(one)[0] != read_metrics(other)[0] and read_metrics(one)[-1] != read_metrics(other)[-1]


def test_logging_evaluating_and_saving_do_not_change_the_weights(
    options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None
) -> None:
    one = finished(options(model="swae", log_every=1, evaluate_every=1, checkpoint_every=1), tmp_path / "one")
    other = finished(options(model="swae", log_every=60, evaluate_every=60, checkpoint_every=60), tmp_path / "other")
    for out in (one, other):
        (out / "metrics.jsonl").write_text("")
    assert_same_run(one, other)


# Resumed


@pytest.mark.parametrize("step", [1, 19, 20, 21, 30, 39, 59])
@pytest.mark.parametrize("model", MODELS)
def test_a_run_that_died_goes_on_bit_for_bit(
    model: str, step: int, options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None
) -> None:
    whole = finished(options(model=model), tmp_path / "whole")
    killed(Run.start(options(model=model), tmp_path / "killed"), step)
    Run.resume(tmp_path / "killed").train()
    assert_same_run(whole, tmp_path / "killed")


@pytest.mark.parametrize(
    "changes",
    [
        {"k": 7},  # short last batches
        {"k": 16},
        {"warm_up": False},
        {"refresh": 4},
        {"n": 130, "refresh": 7, "warm_up": False},
        {"n": 140, "adaptive": True, "log_every": 16},
        {"n": 140, "correct_drift": True},
        {"n": 300, "adaptive": True, "model": "wae", "k": 3, "prior": "uniform", "prior_window": True},
        {"prior": "sphere", "model": "wae", "reencode": False},
        {"optimizer": "sgd", "lr": 0.01, "root": True, "schedule": "cosine"},
        {"weighting": "paper", "lr": 1e-4, "phi": "asymptotic"},
        {"seed": 2**40},
        {"architecture": "celeba"},
        {"n": 130, "model": "wae", "prior": "uniform", "prior_window": True, "k": 7},
        {"n": 130, "model": "swae", "keep_directions": 20},
        {"precision": "bf16", "checkpointing": True, "channels_last": True},
        {"precision": "fp16", "k": 4},
    ],
)
def test_every_option_is_restored(
    changes: dict[str, Any], options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None
) -> None:
    whole = finished(options(**changes), tmp_path / "whole")
    killed(Run.start(options(**changes), tmp_path / "killed"), 33)
    Run.resume(tmp_path / "killed").train()
    assert Run.load(tmp_path / "killed").options == Run.load(whole).options
    assert_same_run(whole, tmp_path / "killed")


def test_scaled_gradients_and_a_refresh_over_a_sharded_window(
    options: OptionsOf, tmp_path: Path, no_pages: None
) -> None:
    """Of one rank, so to the figures of an ordinary window, which is measured by other means."""
    changes = {"precision": "fp16", "refresh": 4, "model": "wae", "k": 4}
    one, other = (finished(options(shard=shard, **changes), tmp_path / str(shard)) for shard in (False, True))
    ordinary, sharded = (Run.load(out).trainer.state_dict() for out in (one, other))
    assert sharded["scaler"] == ordinary["scaler"]
    torch.testing.assert_close(sharded["window"]["latents"], ordinary["window"]["latents"], rtol=1e-2, atol=1e-2)


def test_a_run_that_died_again_and_again(
    options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None
) -> None:
    whole = finished(options(checkpoint_every=5), tmp_path / "whole")
    out = tmp_path / "killed"
    killed(Run.start(options(checkpoint_every=5), out), 3)
    for step in (4, 9, 16, 17, 18, 44, 59):
        killed(Run.resume(out), step)
    Run.resume(out).train()
    assert_same_run(whole, out)


def test_lines_after_the_checkpoint_are_cut(options: OptionsOf, tmp_path: Path, read_metrics: Metrics) -> None:
    killed(Run.start(options(), tmp_path), 39)
    assert [line["step"] for line in read_metrics(tmp_path)] == [0, 7, 14, 21, 28, 30, 35]
    before = (tmp_path / "metrics.jsonl").read_text().splitlines()
    Run.resume(tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text().splitlines() == before[:3]


@pytest.mark.parametrize("rest", ['{"step": 3', '{"step": 42, "pictures": 42}', "{", '{"step": 4, "loss": 1.2'])
def test_a_last_line_that_breaks_off(
    rest: str, options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None
) -> None:
    whole = finished(options(), tmp_path / "whole")
    out = tmp_path / "killed"
    killed(Run.start(options(), out), 39)
    with open(out / "metrics.jsonl", "a") as file:
        file.write(rest)
    Run.resume(out).train()
    assert_same_run(whole, out)


@pytest.mark.parametrize("number", [2, 3, 4])
@pytest.mark.parametrize("after", [False, True])
def test_a_run_that_died_while_it_saved(
    number: int,
    after: bool,
    options: OptionsOf,
    tmp_path: Path,
    assert_same_run: SameRun,
    no_pages: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, out = finished(options(), tmp_path / "whole"), tmp_path / "killed"
    replace, calls = os.replace, []

    def dying(source: Any, target: Any) -> None:
        calls.append(Path(target).name)
        last = calls[-1] == "checkpoint.pt" and calls.count("checkpoint.pt") == number
        if after or not last:
            replace(source, target)
        if last:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed):
            Run.start(options(), out).train()
    Run.resume(out).train()
    assert_same_run(whole, out)


@pytest.mark.parametrize("moment", ["evaluate", "save"])
def test_a_run_that_died_before_its_first_checkpoint_is_no_dead_end(
    moment: str,
    options: OptionsOf,
    tmp_path: Path,
    assert_same_run: SameRun,
    no_pages: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Either the folder is free for a new start, or the run in it can be resumed."""
    whole, out = finished(options(), tmp_path / "whole"), tmp_path / "killed"

    def dying(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*((Run, "evaluate") if moment == "evaluate" else (checkpoint, "save")), dying)
        with pytest.raises(Killed):
            Run.start(options(), out)
    try:
        run = Run.resume(out)
    except FileNotFoundError:
        run = Run.start(options(), out)
    run.train()
    assert_same_run(whole, out)


def test_seconds_go_on(options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    killed(Run.start(options(), tmp_path), 45)
    Run.resume(tmp_path).train()
    seconds = [json.loads(line)["seconds"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert seconds == sorted(seconds)


def test_steps_extend_a_run(options: OptionsOf, tmp_path: Path, assert_same_run: SameRun) -> None:
    whole = finished(options(steps=90), tmp_path / "whole")
    out = finished(options(steps=60), tmp_path / "extended")
    report = (out / "report.html").read_text()
    Run.resume(out, steps=90).train()
    assert_same_run(whole, out)
    assert (out / "report.html").read_text() != report
    assert Run.load(out).options == Run.load(whole).options


def test_an_extended_run_goes_on_along_the_longer_curve(options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    out = finished(options(steps=20, schedule="cosine", lr=0.01), tmp_path)
    assert Run.load(out).trainer.optimizer.param_groups[0]["lr"] == 0
    run = Run.resume(out, steps=60)
    for step in range(20, 24):
        rate = 0.01 * (1 + math.cos(math.pi * step / 60)) / 2
        assert run.trainer.optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-12)
        next(run.trainer.run(run.stream, step + 1))


def test_an_extension_is_an_option_that_is_restored(
    options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None
) -> None:
    whole = finished(options(steps=120), tmp_path / "whole")
    out = finished(options(steps=60), tmp_path / "extended")
    killed(Run.resume(out, steps=120), 85)
    Run.resume(out).train()
    assert_same_run(whole, out)


def test_a_finished_run_stays_as_it_is(options: OptionsOf, tmp_path: Path, read_metrics: Metrics) -> None:
    out = finished(options(), tmp_path)
    before = contents(out)
    Run.resume(out).train()
    assert contents(out) == before


def test_load_writes_nothing(options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    killed(Run.start(options(), tmp_path), 39)
    before = contents(tmp_path)
    run = Run.load(tmp_path)
    run.evaluate()
    run.sample(5)
    assert contents(tmp_path) == before and run.trainer.steps_done == 20


def test_resume_from_another_folder(
    options: OptionsOf,
    pictures_file: Path,
    tmp_path: Path,
    assert_same_run: SameRun,
    no_pages: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = finished(options(), tmp_path / "whole")
    monkeypatch.chdir(pictures_file.parent)
    killed(Run.start(options(data=pictures_file.name), tmp_path / "killed"), 39)
    monkeypatch.chdir(tmp_path)
    Run.resume(Path("killed")).train()
    assert_same_run(whole, tmp_path / "killed")


# Data


def test_other_pictures_under_the_same_name(options: OptionsOf, tmp_path: Path, other_pictures: Any) -> None:
    path, out = other_pictures(tmp_path / "own.npz"), tmp_path / "run"
    killed(Run.start(options(data=str(path)), out), 39)
    before = contents(out)
    path.write_bytes(Path(options().data).read_bytes())
    for use in (Run.load, Run.resume):
        with pytest.raises(ValueError, match="data .*own.npz.* is not what"):
            _ = use(out).source
    assert contents(out) == before


def test_pictures_that_are_gone(options: OptionsOf, tmp_path: Path, other_pictures: Any) -> None:
    path, out = other_pictures(tmp_path / "own.npz"), tmp_path / "run"
    killed(Run.start(options(data=str(path)), out), 39)
    before = contents(out)
    path.unlink()
    with pytest.raises(ValueError, match="own.npz"):
        Run.resume(out)
    assert contents(out) == before


@pytest.fixture
def collections(pictures_file: Path, tmp_path: Path, other_pictures: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A small embedded set, and whether "the full set" is found on this machine."""
    small = dataclasses.replace(data.load(pictures_file), name="fashion-mnist", embedded=True)
    full = dataclasses.replace(data.load(other_pictures(tmp_path / "full.npz")), name="fashion-mnist")

    class Machine:
        has_the_full_set = False

        def load(self, name: str, **_: Any) -> PictureData:
            assert name == "fashion-mnist"
            return full if self.has_the_full_set else small

    machine = Machine()
    monkeypatch.setattr(data, "embedded", lambda name: small)
    monkeypatch.setattr(data, "load", machine.load)
    return machine


def test_an_embedded_run_stays_embedded(
    collections: Any, options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None
) -> None:
    """Its pictures are the full set's test pictures: it must not be scored on those, nor go on with the others."""
    chosen = options(data="fashion-mnist")
    whole, out = finished(chosen, tmp_path / "whole"), tmp_path / "killed"
    killed(Run.start(chosen, out), 39)
    collections.has_the_full_set = True
    assert Run.load(out).source.embedded
    Run.resume(out).train()
    assert_same_run(whole, out)


def test_a_run_on_the_full_set_does_not_go_on_with_the_embedded_one(
    collections: Any, options: OptionsOf, tmp_path: Path, no_pages: None
) -> None:
    collections.has_the_full_set = True
    killed(Run.start(options(data="fashion-mnist"), tmp_path), 39)
    collections.has_the_full_set = False
    with pytest.raises(ValueError, match="data 'fashion-mnist' is not what"):
        Run.resume(tmp_path)


# Bad input


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"model": "vae"}, "model is 'vae'"),
        ({"optimizer": "lion"}, "optimizer is 'lion'"),
        ({"architecture": "resnet"}, "architecture is 'resnet'; it must be one of mnist, .*small"),
        ({"architecture": ""}, "architecture is ''"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"cuda_graph": True, "precision": "fp16"}, "cuda_graph is True and precision is 'fp16'"),
        ({"cuda_graph": True, "checkpointing": True}, "cuda_graph is True and checkpointing is True"),
        ({"weighting": "fair"}, "weighting is 'fair'"),
        ({"phi": "rough"}, "phi is 'rough'"),
        ({"prior": "cauchy"}, "prior is 'cauchy'"),
        ({"prior_window": True}, "prior is 'normal'"),
        ({"keep_directions": 0}, "keep_directions is 0"),
        ({"n": 0}, "n is 0"),
        ({"k": 0}, "k is 0"),
        ({"k": 17}, "k is 17.* n = 16"),
        ({"dim": 0}, "dim is 0"),
        ({"dim": -1}, "dim is -1"),
        ({"lr": 0.0}, "lr is 0.0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"k": -1}, "k is -1"),
        ({"weight": -1.0}, "weight is -1.0"),
        ({"steps": 0}, "steps is 0"),
        ({"log_every": 0}, "log_every is 0"),
        ({"evaluate_every": 0}, "evaluate_every is 0"),
        ({"checkpoint_every": -5}, "checkpoint_every is -5"),
        ({"model": "swae", "directions": 0}, "directions is 0"),
        ({"root": True, "weighting": "paper"}, "root is True"),
        ({"phi": "asymptotic", "dim": 1}, "phi is 'asymptotic'"),
        ({"threads": 0}, "threads is 0"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"data": "nowhere.npz"}, "nowhere.npz"),
        ({"size": 8}, "size is 8"),
        ({"data_dir": "somewhere"}, "data_dir"),
    ],
)
def test_a_bad_option_makes_no_folder(
    changes: dict[str, Any], message: str, options: OptionsOf, tmp_path: Path
) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        Run.start(options(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run(options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    out = finished(options(), tmp_path)
    before = contents(out)
    with pytest.raises(FileExistsError, match="already holds a run.*--resume"):
        Run.start(options(seed=1), out)
    assert contents(out) == before


def test_other_files_in_the_folder_are_left_alone(options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    finished(options(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("steps", [0, -3])
def test_resume_to_no_steps(steps: int, options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    out = finished(options(), tmp_path)
    before = contents(out)
    with pytest.raises(ValueError, match=f"steps is {steps}"):
        Run.resume(out, steps=steps)
    assert contents(out) == before


def test_resume_with_another_option(options: OptionsOf, tmp_path: Path, no_pages: None) -> None:
    killed(Run.start(options(), tmp_path), 39)
    before = contents(tmp_path)
    with pytest.raises(ValueError, match="k, seed changes as a run goes on; only steps, on_nonfinite may"):
        Run.resume(tmp_path, seed=1, steps=90, k=2)
    assert contents(tmp_path) == before


def test_no_run_to_resume(tmp_path: Path) -> None:
    folder = tmp_path / "alone" / "quite" / "empty"  # beside tmp_path lie the runs of other tests
    folder.mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match="holds no run: .*mow train --out.*checkpoint.pt; there is none near it"
    ):
        Run.resume(folder)
    assert os.listdir(folder) == []


def test_no_run_but_one_beside_it(tmp_path: Path) -> None:
    tmp_path = tmp_path / "alone"  # beside it lie the runs of other tests
    (tmp_path / "there").mkdir(parents=True)
    (tmp_path / "there" / "checkpoint.pt").touch()
    for folder in (tmp_path, tmp_path / "nothere"):
        with pytest.raises(FileNotFoundError, match=rf"^{folder} .*; near it: {tmp_path / 'there'}$"):
            Run.load(folder)
    runs = tmp_path / "runs" / "first"
    runs.mkdir(parents=True)
    (runs / "checkpoint.pt").touch()
    with pytest.raises(FileNotFoundError, match=rf"near it: {runs}, {tmp_path / 'there'}$"):
        Run.load(tmp_path / "first")


@pytest.mark.parametrize("damage", ["half of it", "empty", "another file"])
def test_a_damaged_checkpoint(damage: str, options: OptionsOf, tmp_path: Path) -> None:
    killed(Run.start(options(), tmp_path), 39)
    path = tmp_path / "checkpoint.pt"
    content = path.read_bytes()
    path.write_bytes({"half of it": content[: len(content) // 2], "empty": b"", "another file": b"hello"}[damage])
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="checkpoint.pt is not a checkpoint of mow"):
        Run.resume(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("missing", ["options", "data", "trainer", "stream", "seconds", "random"])
def test_a_checkpoint_of_something_else(missing: str, options: OptionsOf, tmp_path: Path) -> None:
    killed(Run.start(options(), tmp_path), 39)
    path = tmp_path / "checkpoint.pt"
    state = checkpoint.load(path)
    del state[missing]
    checkpoint.save(path, state)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="checkpoint.pt is not a checkpoint of mow"):
        Run.resume(tmp_path)
    assert contents(tmp_path) == before


# No room left


def test_a_full_disk_loses_nothing_that_was_written(
    options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None, small_files: Any
) -> None:
    """The checkpoint breaks off in the midst; the one before and the metrics stay, and the run goes on from there."""
    whole, out = finished(options(), tmp_path / "whole"), tmp_path / "full"
    run = Run.start(options(), out)
    before = (out / "checkpoint.pt").read_bytes()
    with small_files(len(before) // 2), pytest.raises(OSError):
        run.train()
    assert (out / "checkpoint.pt").read_bytes() == before
    assert set(os.listdir(out)) == {"checkpoint.pt", "metrics.jsonl"}
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3
    Run.resume(out).train()
    assert_same_run(whole, out)


def test_metrics_that_break_off_in_a_line(
    options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None, small_files: Any
) -> None:
    chosen = options(checkpoint_every=1000)
    whole, out = finished(chosen, tmp_path / "whole"), tmp_path / "full"
    run = Run.start(chosen, out)
    room = (out / "metrics.jsonl").stat().st_size + 200
    with small_files(room), pytest.raises(OSError):
        run.train()
    text = (out / "metrics.jsonl").read_text()
    assert len(text) == room and not text.endswith("\n")
    Run.resume(out).train()
    assert_same_run(whole, out)


def test_a_resume_without_room_changes_nothing(options: OptionsOf, tmp_path: Path, small_files: Any) -> None:
    killed(Run.start(options(), tmp_path), 39)
    before = contents(tmp_path)
    with small_files(10), pytest.raises(OSError):
        Run.resume(tmp_path)
    assert contents(tmp_path) == before


def test_a_folder_that_cannot_be_made(options: OptionsOf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OSError):
            Run.start(options(), out)
    assert (tmp_path / "file").read_text() == "in the way"


# SIGKILL


def train_and_kill(arguments: list[str], out: Path, lines: int, delay: float) -> None:
    """Runs the command line until the run has logged so many lines, and a moment longer, then kills it."""
    command = [sys.executable, "-m", "mow", "train", *arguments]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    path = out / "metrics.jsonl"
    try:
        while process.poll() is None and not (path.exists() and path.read_text().count("\n") >= lines):
            time.sleep(0.005)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0), error


def test_sigkill(options: OptionsOf, tmp_path: Path, assert_same_run: SameRun, no_pages: None) -> None:
    """Killed at some moment between the first checkpoints and the end, wherever that falls."""
    chosen = options(steps=700, threads=1, log_every=10, evaluate_every=100, checkpoint_every=25)
    whole, out = finished(chosen, tmp_path / "whole"), tmp_path / "killed"
    train_and_kill([*command_line(chosen), "--out", str(out)], out, lines=4, delay=random.uniform(0, 0.3))
    Run.resume(out).train()
    assert_same_run(whole, out)


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS)
def test_sigkill_at_random_moments(model: str, options: OptionsOf, tmp_path: Path, assert_same_run: SameRun) -> None:
    """Also within the first moments of a run and of a resumed one: 21 runs, each killed once to three times."""
    chosen = options(model=model, steps=1500, threads=1, log_every=3, evaluate_every=50, checkpoint_every=5)
    whole = finished(chosen, tmp_path / "whole")
    for number in range(7):
        out = tmp_path / str(number)
        train_and_kill([*command_line(chosen), "--out", str(out)], out, lines=1, delay=random.uniform(0, 1.5))
        for _ in range(number % 3):
            if (out / "checkpoint.pt").exists():
                lines = (out / "metrics.jsonl").read_text().count("\n")
                train_and_kill(["--resume", str(out)], out, lines=lines + 1, delay=random.uniform(0, 0.5))
        try:
            run = Run.resume(out)
        except FileNotFoundError:
            run = Run.start(chosen, out)
        run.train()
        assert_same_run(whole, out)
        assert FILES <= set(os.listdir(out))


def command_line(options: Options) -> list[str]:
    chosen = {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}
    changed = {name: value for name, value in chosen.items() if value != getattr(Options, name)}
    return [word for name, value in changed.items() for word in ("--" + name.replace("_", "-"), str(value))]


# The main job


def test_one_picture_a_step_on_fashion_mnist(
    tmp_path: Path, read_metrics: Metrics, no_pages: None, monkeypatch: Any
) -> None:
    monkeypatch.setattr(data, "load", lambda *_, **__: data.embedded_fashion_mnist())
    run = Run.start(Options(k=1, steps=3000, threads=1), tmp_path)
    run.train()
    first, *_, last = read_metrics(tmp_path)
    baseline = mow.app.evaluation.mean_picture_error(run.source.train, run.source.test)
    assert 60 < baseline < 75
    assert last["test_reconstruction"] < 0.65 * baseline
    assert last["test_cramer_wold"] < 0.5 * first["test_cramer_wold"]
