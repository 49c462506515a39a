"""The command line: what it prints, what it writes, and how it says no."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

import mow
import mow.__main__
from mow.app import grid_commands, pictures
from mow.app.cli import app
from mow.app.options import Options
from mow.app.progress import train_and_show
from mow.app.run import Run
from mow.training import checkpoint

ROOT = Path(mow.__file__).parents[1]
FILES = {"metrics.jsonl", "checkpoint.pt", "samples.png", "reconstructions.png", "interpolations.png", "report.html"}
Train = Callable[..., Any]


def call(*words: object) -> Any:
    """The command `mow ...`, within this process."""
    return CliRunner().invoke(app, [str(word) for word in words])


def assert_refused(result: Any, *parts: str) -> None:
    """Exit code 2 and one line on stderr that holds these parts, and no traceback."""
    assert result.exit_code == 2, (result.output, result.exception)
    assert result.stderr.startswith("error:") and result.stderr.endswith("\n")
    assert result.stderr.count("\n") == 1, result.stderr
    for part in parts:
        assert part in result.stderr


def contents(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the pictures and the report out, which take longer than the training."""
    monkeypatch.setattr(Run, "write_pictures", lambda run: None)
    monkeypatch.setattr(Run, "write_report", lambda run: None)


@pytest.fixture
def train(pictures_file: Path) -> Train:
    """train(out, *words): `mow train` of 40 steps on small pictures."""

    def run(out: Path, *words: object) -> Any:
        small = ("--data", pictures_file, "--n", 16, "--dim", 4, "--steps", 40, "--checkpoint-every", 10)
        return call("train", *small, "--log-every", 4, "--evaluate-every", 20, "--out", out, *words)

    return run


@pytest.fixture
def trained(train: Train, tmp_path: Path) -> Path:
    """The folder of a finished run, without its report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "write_pictures", lambda run: None)
        patch.setattr(Run, "write_report", lambda run: None)
        assert train(tmp_path / "trained").exit_code == 0
    return tmp_path / "trained"


# mow train


def test_train(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(out)
    assert result.exit_code == 0, result.output
    assert set(os.listdir(out)) == FILES
    assert result.stderr == ""
    assert "report.html" in result.stdout and "test reconstruction" in result.stdout
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps == list(range(0, 41, 4))


@pytest.mark.parametrize("model", ["cwae", "wae", "swae"])
@pytest.mark.parametrize("k", [1, pytest.param(32, marks=pytest.mark.long), 64])
def test_the_nine_main_jobs(
    model: str, k: int, pictures_file: Path, tmp_path: Path, assert_same_run: Any, no_pages: None
) -> None:
    for name in ("one", "other"):
        words = ("--model", model, "--data", pictures_file, "--n", 64, "--k", k, "--steps", 200, "--seed", 0)
        result = call("train", *words, "--out", tmp_path / name)
        assert result.exit_code == 0, result.output
    assert_same_run(tmp_path / "one", tmp_path / "other")


def test_the_options_reach_the_run(train: Train, tmp_path: Path, no_pages: None) -> None:
    words = "--model wae --k 2 --seed 7 --lr 0.002 --optimizer sgd --no-reencode --no-warm-up --root --weight 0.5"
    words += " --weighting reference --log --prior sphere --phi asymptotic --directions 9 --device cpu --threads 1"
    words += " --refresh 5 --architecture celeba --precision bf16 --checkpointing --channels-last"
    assert train(tmp_path / "run", *words.split()).exit_code == 0
    options = Run.load(tmp_path / "run").options
    expected = {"model": "wae", "k": 2, "seed": 7, "lr": 0.002, "optimizer": "sgd", "reencode": False}
    expected |= {"warm_up": False, "root": True, "weight": 0.5, "weighting": "reference", "log": True}
    expected |= {"prior": "sphere", "phi": "asymptotic", "directions": 9, "device": "cpu", "threads": 1, "n": 16}
    expected |= {"dim": 4, "steps": 40, "log_every": 4, "evaluate_every": 20, "checkpoint_every": 10}
    expected |= {
        "refresh": 5,
        "architecture": "celeba",
        "precision": "bf16",
        "checkpointing": True,
        "channels_last": True,
    }
    assert {name: getattr(options, name) for name in expected} == expected


def test_a_checkpoint_holds_plain_options(trained: Path) -> None:
    """Strings and numbers, no enumerations and no paths."""
    options = checkpoint.load(trained / "checkpoint.pt")["options"]
    assert {type(value) for value in options.values()} <= {str, int, float, bool, type(None)}


@pytest.mark.parametrize(
    "command", [[], ["train"], ["evaluate"], ["sample"], ["coreset"], ["microbatch"], ["grid"], ["reproduce"]]
)
def test_help(command: list[str]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0 and "Usage" in result.output


def test_brackets_in_names_are_names(train: Train, tmp_path: Path) -> None:
    """rich would read [bold] as a style and stumble over [/x]."""
    out = tmp_path / "[bold] a [/x]"
    result = train(out)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "[bold] a [/x]" in result.output.replace("\n", "")
    assert call("train", "--resume", out).exit_code == 0
    result = call("sample", out, "--out", out / "more.png")
    assert result.exit_code == 0 and "[bold] a [/x]" in result.output.replace("\n", "")


# mow train --resume


def test_resume(train: Train, tmp_path: Path, assert_same_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C, then --resume alone."""
    whole, out = tmp_path / "whole", tmp_path / "interrupted"
    assert train(whole, "--model", "swae", "--k", 3).exit_code == 0
    step = mow.Trainer.step

    def interrupted(trainer: mow.Trainer, x: torch.Tensor, **options: Any) -> Any:
        if trainer.steps_done == 26:
            raise KeyboardInterrupt
        return step(trainer, x, **options)

    with monkeypatch.context() as patch:
        patch.setattr(mow.Trainer, "step", interrupted)
        result = train(out, "--model", "swae", "--k", 3)
    assert result.exit_code == 130 and "--resume" in result.output and "Traceback" not in result.output
    result = call("train", "--resume", out)
    assert result.exit_code == 0, result.output
    assert_same_run(whole, out)
    assert set(os.listdir(out)) == FILES


def test_resume_with_more_steps(train: Train, tmp_path: Path, assert_same_run: Any, no_pages: None) -> None:
    whole, out = tmp_path / "whole", tmp_path / "extended"
    assert train(whole, "--steps", 80).exit_code == 0
    assert train(out).exit_code == 0
    assert call("train", "--resume", out, "--steps", 80).exit_code == 0
    assert_same_run(whole, out)


@pytest.mark.parametrize(
    "words",
    [
        ["--k", "1"],  # also when it is what the run has
        ["--seed", "1"],
        ["--model", "cwae", "--lr", "0.1"],
        ["--steps", "80", "--no-reencode"],
        ["--log"],
        ["--data", "elsewhere"],
        ["--out", "elsewhere"],
        ["--download"],
    ],
)
def test_resume_with_other_options(words: list[str], trained: Path) -> None:
    before = contents(trained)
    named = {"--no-reencode": "--reencode"}
    given = [named.get(word, word) for word in words if word.startswith("--") and word != "--steps"]
    assert_refused(call("train", "--resume", trained, *words), "--resume", *given)
    assert contents(trained) == before


def test_a_folder_that_holds_a_run(train: Train, trained: Path) -> None:
    before = contents(trained)
    assert_refused(train(trained), str(trained), "already holds a run", "--resume")
    assert contents(trained) == before


# mow report, evaluate, sample, reconstruct, interpolate, encode


def test_report_of_a_run_that_has_none(trained: Path) -> None:
    before = contents(trained)
    assert before.keys() < FILES
    result = call("report", trained)
    assert result.exit_code == 0 and result.stdout == f"step 40: open {trained / 'report.html'}\n", result.output
    after = contents(trained)
    assert after.keys() == FILES and before.items() <= after.items()


def test_version() -> None:
    assert call("--version").stdout == f"mow {mow.__version__}, PyTorch {torch.__version__}\n"


def test_evaluate(trained: Path, read_metrics: Any) -> None:
    before = contents(trained)
    result = call("evaluate", trained)
    assert result.exit_code == 0 and result.stderr == ""
    last = read_metrics(trained)[-1]
    scores = json.loads(result.stdout)
    assert scores == {**scores, **{name: last[name] for name in ("step", "test_reconstruction", "test_cramer_wold")}}
    assert {"test_cwae_distance", "test_wae_distance", "test_sliced_wasserstein", "test_cost"} <= scores.keys()
    assert {"test_skewness", "test_kurtosis", "test_cost_mmd", "test_cost_log_cw"} <= scores.keys()
    assert call("evaluate", trained).stdout == result.stdout
    assert json.loads(call("evaluate", trained, "--seed", 1).stdout)["test_wae_distance"] != scores["test_wae_distance"]
    assert contents(trained) == before


def strictly(text: str) -> Any:
    """JSON as the standard has it: no NaN, no Infinity."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_degenerate_model_is_scored_reported_and_printed(
    value: float, pictures_file: Path, tmp_path: Path, read_metrics: Any
) -> None:
    """Equal latents, or none that are finite, from the first step to the page."""
    options = Options(data=str(pictures_file), n=16, dim=4, k=4, steps=4, log_every=1, on_nonfinite="skip")
    run = Run.start(options, tmp_path)
    for parameter in (*run.encoder.parameters(), *run.decoder.parameters()):
        parameter.data.fill_(value)
    run.trainer.optimizer.param_groups[0]["lr"] = 0.0
    train_and_show(run, Console(quiet=True))
    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        strictly(line)
    finite = value == 0
    last = read_metrics(tmp_path)[-1]
    assert (last["test_reconstruction"] is not None) is finite and (tmp_path / "report.html").exists()
    result = call("evaluate", tmp_path)
    assert result.exit_code == 0, (result.output, result.exception)
    scores = strictly(result.stdout)
    assert ("test_reconstruction" in scores) is finite and "test_skewness" in scores["left_out"]
    assert ("test_cost" in scores) is finite and ("test_cost" in scores["left_out"]) is not finite


@pytest.mark.parametrize("prior", ["normal", "uniform", "sphere"])
def test_sample(prior: str, train: Train, tmp_path: Path, no_pages: None) -> None:
    run, pages = tmp_path / "run", tmp_path / "pages"
    pages.mkdir()
    assert train(run, "--prior", prior).exit_code == 0
    before = contents(run)
    for name, words in {"a": [], "b": [], "c": ["--seed", 1], "d": ["--count", 5, "--columns", 2]}.items():
        result = call("sample", run, "--out", pages / f"{name}.png", *words)
        assert result.exit_code == 0, result.output
    made = contents(pages)
    assert made["a.png"] == made["b.png"] != made["c.png"]
    (wide, high), (narrow, low) = (Image.open(pages / f"{name}.png").size for name in "ad")
    step_x, step_y = (wide - narrow) / 8, (high - low) / 3  # 6 rows of 10, and 3 rows of 2
    assert step_x == step_y > 8 and wide < 10 * step_x < wide + step_x / 2
    assert contents(run) == before


def test_reconstruct_and_interpolate(trained: Path, tmp_path: Path) -> None:
    before = contents(trained)
    run = Run.load(trained)
    walks = {"test": run.pictures("test"), "train": run.pictures("train")}
    for of, shown in walks.items():
        a, b = tmp_path / f"{of}-a.png", tmp_path / f"{of}-b.png"
        result = call("reconstruct", trained, "--out", a, "--count", 6, "--columns", 3, "--of", of)
        assert result.exit_code == 0 and f"6 reconstructions in {a}" in result.output.replace("\n", "")
        expected = pictures.reconstruction_grid(shown[:6], run.reconstruct(shown[:6]), 3)
        assert Image.open(a).tobytes() == expected.tobytes()
        result = call("interpolate", trained, "--out", b, "--rows", 2, "--stages", 4, "--of", of)
        assert result.exit_code == 0 and f"2 interpolations in {b}" in result.output.replace("\n", "")
        expected = pictures.interpolation_grid(run.interpolate(shown[:2], shown[-2:], 4))
        assert Image.open(b).tobytes() == expected.tobytes()
    assert call("interpolate", trained, "--out", tmp_path / "c.png", "--rows", 1000).exit_code == 0
    assert contents(trained) == before


@pytest.mark.parametrize("of", ["test", "train"])
def test_encode(of: str, trained: Path, tmp_path: Path) -> None:
    before = contents(trained)
    run = Run.load(trained)
    for name in ("z.npy", "z.npz"):
        result = call("encode", trained, "--out", tmp_path / name, "--of", of)
        assert result.exit_code == 0, result.output
        found = np.load(tmp_path / name)
        latents = found if name == "z.npy" else found["latents"]
        assert torch.equal(torch.tensor(latents), run.encode(of)) and len(latents) == len(run.pictures(of))
        assert name == "z.npy" or found.files == ["latents"], "no labels in the data set"
    assert contents(trained) == before


def test_encode_with_labels(train: Train, tmp_path: Path, no_pages: None) -> None:
    pictures, labels = np.zeros((30, 8, 8), np.uint8), np.arange(30) % 3
    path = tmp_path / "own.npz"
    np.savez(path, train=pictures[:20], test=pictures[20:], train_labels=labels[:20], test_labels=labels[20:])
    assert train(tmp_path / "run", "--data", path).exit_code == 0
    assert call("encode", tmp_path / "run", "--out", tmp_path / "z.npz").exit_code == 0
    assert np.load(tmp_path / "z.npz")["labels"].tolist() == labels[20:].tolist()


# mow grid, mow reproduce


def test_grid(pictures_file: Path, tmp_path: Path) -> None:
    words = [f"data={pictures_file}", "n=16", "dim=4", "pictures=32", "k=1,16", "seed=0,1"]
    result = call("grid", *words, "--out", tmp_path, "--by", "test_mmd", "--jobs", 2)
    assert result.exit_code == 0, (result.output, result.exception)
    table = (tmp_path / "table.md").read_text()
    assert table in result.stdout and table.startswith("| k | lr | runs | pictures | mmd | cost |")
    found = json.loads((tmp_path / "results.json").read_text())
    assert [entry["name"] for entry in found] == ["k=1-seed=0", "k=1-seed=1", "k=16-seed=0", "k=16-seed=1"]
    moments = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/result.json")}
    again = call("grid", *words, "--out", tmp_path)
    assert again.exit_code == 0 and moments == {path: path.stat().st_mtime_ns for path in moments}
    failing = call("grid", *words[:-2], "k=16,17", "--out", tmp_path / "failing")
    assert failing.exit_code == 1 and "k is 17" in failing.output and "1 of 2 runs failed" in failing.output
    assert len(json.loads((tmp_path / "failing" / "results.json").read_text())) == 1


def test_reproduce(pictures_file: Path, tmp_path: Path) -> None:
    words = (
        "reproduce",
        "table3",
        "--data",
        f"mnist={pictures_file}",
        "--k",
        "64",
        "--scale",
        0.002,
        "--out",
        tmp_path,
    )
    result = call(*words, "--data-dir", tmp_path)
    assert result.exit_code == 0, (result.output, result.exception)
    assert "without cifar-10" in result.output and "report.md" in result.output.replace("\n", "")
    page = (tmp_path / "report.md").read_text()
    assert "| MNIST | CWAE | 64 | paper | 0.01 |" in page and "CIFAR-10: not run." in page
    assert set(json.loads((tmp_path / "report.json").read_text())["results"]) == {
        "mnist-cwae-k64-published-seed0",
        "mnist-cwae-k64-ours-seed0",
    }


def test_reproduce_has_its_runs_compiled(pictures_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells: list[Any] = []
    monkeypatch.setattr(grid_commands, "_run", lambda console, found, out, jobs: cells.extend(found) or {})
    for words in ([], ["--compile"]):
        call("reproduce", "table3", "--data", f"mnist={pictures_file}", "--k", "1", "--out", tmp_path, *words)
    assert [cell.options.compile for cell in cells] == [False, False, True, True]


# Bad input


@pytest.mark.parametrize(
    "words, parts",
    [
        (["encode", "RUN", "--out", "z.txt"], ["out is", "z.txt", ".npy or .npz"]),
        (["encode", "RUN", "--out", "trained/checkpoint.pt/z.npy"], ["checkpoint.pt"]),
        (["grid", "k", "--out", "g"], ["'k' is no assignment"]),
        (["grid", "k=1,2", "z=1", "--out", "g"], ["z is no option"]),
        (["reproduce", "table9"], ["what is 'table9'"]),
        (["reproduce", "table1", "--k", "few"], ["k is 'few'"]),
        (["reproduce", "table1", "--data", "digits.npz"], ["data is 'digits.npz'", "NAME=PATH"]),
        (["reproduce", "table2", "--scale", "0"], ["scale is 0"]),
    ],
)
def test_a_use_that_is_refused(
    words: list[str], parts: list[str], trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = contents(trained)
    assert_refused(call(*(trained if word == "RUN" else word for word in words)), *parts)
    assert contents(trained) == before and os.listdir(tmp_path) == ["trained"]


BAD_OPTIONS = {
    "--k 17": ["k is 17", "16"],
    "--k 0": ["k is 0"],
    "--n 0": ["n is 0"],
    "--dim 0": ["dim is 0"],
    "--dim -1": ["dim is -1"],
    "--steps 0": ["steps is 0"],
    "--lr -1": ["lr is -1"],
    "--lr nan": ["lr is nan"],
    "--weight -1": ["weight is -1"],
    "--model swae --directions 0": ["directions is 0"],
    "--log-every 0": ["log_every is 0"],
    "--root --weighting paper": ["root is True"],
    "--phi asymptotic --dim 1": ["phi is 'asymptotic'"],
    "--device abacus": ["abacus"],
    "--device cuda:7": ["cuda"],
    "--threads 0": ["threads"],
    "--cuda-graph --device cpu": ["cuda_graph is True", "cpu"],
    "--beta1 1": ["beta1 is 1"],
    "--beta2 -0.5": ["beta2 is -0.5"],
    "--beta2 0.9 --optimizer sgd": ["beta2 is 0.9", "adam"],
    "--size 8": ["size is 8"],
    "--download": ["download"],
    "--data nowhere.npz": ["nowhere.npz"],
    "--data fashon-mnist": ["data is 'fashon-mnist'", "did you mean 'fashion-mnist'?"],
    "--data [/nowhere].npz": ["[/nowhere].npz"],
    "--data [red]nowhere": ["[red]nowhere"],
    "--data fashion-mnist --data-dir /nowhere/at/all": ["/nowhere/at/all"],
}


@pytest.mark.parametrize("words", BAD_OPTIONS)
def test_a_bad_option(words: str, train: Train, tmp_path: Path) -> None:
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("this machine has one")
    assert_refused(train(tmp_path / "run", *words.split()), *BAD_OPTIONS[words])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words", ["--model vae", "--prior cauchy", "--optimizer lion", "--k one", "--steps 1.5", "--x 1"]
)
def test_a_word_that_is_no_option(words: str, train: Train, tmp_path: Path) -> None:
    """typer itself says no to these."""
    result = train(tmp_path / "run", *words.split())
    assert result.exit_code == 2
    assert words.split()[0] in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_neither_out_nor_resume(pictures_file: Path) -> None:
    assert_refused(call("train", "--data", pictures_file), "--out")


def test_a_file_in_the_place_of_the_folder(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    assert_refused(train(tmp_path / "file"), "file")
    assert_refused(train(tmp_path / "file" / "run"), "file")
    assert (tmp_path / "file").read_text() == "mine"


USES: dict[str, Callable[[Path], list[object]]] = {
    "resume": lambda out: ["train", "--resume", out],
    "evaluate": lambda out: ["evaluate", out],
    "sample": lambda out: ["sample", out, "--out", out.parent / "samples.png"],
    "reconstruct": lambda out: ["reconstruct", out, "--out", out.parent / "samples.png"],
    "interpolate": lambda out: ["interpolate", out, "--out", out.parent / "samples.png"],
    "encode": lambda out: ["encode", out, "--out", out.parent / "samples.npy"],
}


@pytest.mark.parametrize("use", USES)
def test_a_folder_without_a_run(use: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "absent"):
        assert_refused(call(*USES[use](tmp_path / folder)), folder, "checkpoint.pt")
    assert os.listdir(tmp_path) == ["empty"] and os.listdir(tmp_path / "empty") == []


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("use", USES)
def test_checkpoints_that_are_none(use: str, trained: Path, tmp_path: Path) -> None:
    path, trace = trained / "checkpoint.pt", tmp_path / "it ran"
    good = path.read_bytes()
    foreign = {"empty": {"mow": 1}, "bomb": {"mow": 1, "options": Bomb(trace)}, "strange": {"epoch": 3}}
    bad = {"none": b"", "truncated": good[:-100], "half": good[: len(good) // 2], "text": b"hello, world\n"}
    for name, content in foreign.items():
        torch.save(content, path)
        bad[name] = path.read_bytes()
        bad[f"pickled {name}"] = pickle.dumps(content)
    for name, content in bad.items():
        path.write_bytes(content)
        before = contents(trained)
        result = call(*USES[use](trained))
        assert_refused(result, "checkpoint.pt is not a checkpoint of mow")
        assert contents(trained) == before, name
    assert not trace.exists()
    assert not (tmp_path / "samples.png").exists() and not (tmp_path / "samples.npy").exists()


@pytest.mark.parametrize("use", [use for use in USES if use != "sample"])
def test_other_pictures(use: str, train: Train, tmp_path: Path, other_pictures: Any, no_pages: None) -> None:
    path, out = other_pictures(tmp_path / "own.npz"), tmp_path / "run"
    assert train(out, "--data", path).exit_code == 0
    before = contents(out)
    np.savez(path, np.zeros((200, 8, 8), np.uint8))
    assert_refused(call(*USES[use](out)), "own.npz", "is not what")
    assert contents(out) == before


def test_samples_need_no_pictures(train: Train, tmp_path: Path, other_pictures: Any, no_pages: None) -> None:
    path, out = other_pictures(tmp_path / "own.npz"), tmp_path / "run"
    assert train(out, "--data", path).exit_code == 0
    path.unlink()
    assert call(*USES["sample"](out)).exit_code == 0 and (tmp_path / "samples.png").exists()


def test_resume_to_no_steps(trained: Path) -> None:
    assert_refused(call("train", "--resume", trained, "--steps", 0), "steps is 0")


def test_a_sample_that_cannot_be_written(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_refused(call("sample", trained, "--out", tmp_path / "file" / "samples.png"), "file")
    assert call("sample", trained, "--out", tmp_path / "new" / "samples.png").exit_code == 0


def test_a_full_disk(train: Train, tmp_path: Path, small_files: Any) -> None:
    out = tmp_path / "run"
    with small_files(100_000):
        assert_refused(train(out))
    assert not any(name.endswith(".part") for name in os.listdir(out))


def test_a_mistake_of_ours_keeps_its_traceback(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Run, "evaluate", wrong)
    assert isinstance(train(tmp_path / "run").exception, ZeroDivisionError)


# As a program


def test_python_m_mow(pictures_file: Path, tmp_path: Path) -> None:
    """From any folder; the messages are for a person, the exit code is for a script."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    words = ["train", "--data", str(pictures_file), "--steps", "5", "--out", "run", "--k", "65"]
    command = [sys.executable, "-m", "mow", *words]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error:") and "k is 65" in done.stderr and done.stderr.count("\n") == 1


def test_without_the_extra_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "typer", None)
    monkeypatch.delitem(sys.modules, "mow.app.cli")
    with pytest.raises(SystemExit, match=r"needs typer: pip install 'mow-kernels\[train\]'"):
        mow.__main__.main()
