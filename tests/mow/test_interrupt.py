"""Ctrl-C in `mow train`, and what it writes where there is no terminal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import mow
from mow.app.cli import app
from mow.app.interrupt import deferred
from mow.app.run import Run
from mow.training import checkpoint

COMMON = ["--n", "8", "--k", "1", "--dim", "2", "--seed", "0", "--checkpoint-every", "30"]


@pytest.fixture
def train(pictures_file: Path) -> Any:
    def call(*words: object) -> Any:
        return CliRunner().invoke(app, ["train", "--data", str(pictures_file), *COMMON, *map(str, words)])

    return call


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "write_pictures", lambda run: None)
    monkeypatch.setattr(Run, "write_report", lambda run: None)


def step_of(out: Path) -> int:
    return int(checkpoint.load(out / "checkpoint.pt")["trainer"]["steps_done"])


@pytest.fixture
def ctrl_c(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sends the signal in the middle of a step."""

    def at(step: int, times: int = 1) -> None:
        plain = mow.Trainer.step

        def interrupted(trainer: mow.Trainer, x: torch.Tensor, **options: Any) -> Any:
            for _ in range(times if trainer.steps_done + 1 == step else 0):
                os.kill(os.getpid(), signal.SIGINT)
            return plain(trainer, x, **options)

        monkeypatch.setattr(mow.Trainer, "step", interrupted)

    return at


def test_after_the_step_that_is_under_way(train: Any, tmp_path: Path, ctrl_c: Any, no_pages: None) -> None:
    out, handler = tmp_path / "my run", signal.getsignal(signal.SIGINT)
    ctrl_c(41)
    result = train("--steps", 100, "--out", out)
    assert result.exit_code == 130, (result.output, result.exception)
    assert result.stderr == f"interrupted: mow train --resume '{out}' goes on from step 41\n"
    assert step_of(out) == 41 and signal.getsignal(signal.SIGINT) is handler


def test_a_second_one_does_not_wait(train: Any, tmp_path: Path, ctrl_c: Any, no_pages: None) -> None:
    out = tmp_path / "run"
    ctrl_c(41, times=2)
    result = train("--steps", 100, "--out", out)
    assert result.exit_code == 130
    assert result.stderr == f"interrupted: mow train --resume {out} goes on from step 30\n"
    assert step_of(out) == 30


def test_before_the_first_checkpoint(train: Any, tmp_path: Path, no_pages: None) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "evaluate", stop)
        result = train("--steps", 5, "--out", tmp_path / "run")
    assert result.exit_code == 130 and result.stderr.count("\n") == 1
    assert "before the first checkpoint: the same command begins again" in result.stderr
    assert train("--steps", 5, "--out", tmp_path / "run").exit_code == 0


def test_the_program_s_own_handler_stays() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with deferred() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_output_without_a_terminal(train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_pages: None) -> None:
    monkeypatch.setattr("mow.app.progress.SECONDS_BETWEEN_LINES", 0.0)
    result = train("--steps", 60, "--log-every", 20, "--out", tmp_path / "run")
    assert result.exit_code == 0, (result.output, result.exception)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", result.stdout + result.stderr)
    steps = re.findall(r"^step (\d+) of 60  reconstruction [\d.]+  distance ", result.stdout, re.M)
    assert steps == ["20", "40", "60"]


@pytest.mark.long
@pytest.mark.parametrize("seconds", [None, 0.0, 0.02, 0.1, 0.5, 1.0, 3.0])
def test_a_real_one_at_any_time(seconds: float | None, tmp_path: Path, pictures_file: Path) -> None:
    """From the moment at which its folder is there (None: while PyTorch is imported): one line and 130, and then the
    run goes on or begins again."""
    out, root = tmp_path / "run", Path(mow.__file__).parents[1]
    command = [sys.executable, "-m", "mow", "train", "--data", str(pictures_file), *COMMON, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    process = subprocess.Popen([*command, "--steps", "1000000"], **pipes)
    while seconds is not None and not out.exists():
        time.sleep(0.002)
        assert process.poll() is None
    time.sleep(0.5 if seconds is None else seconds)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    if seconds is not None:
        assert process.returncode == 130 and err.startswith("interrupted") and err.count("\n") == 1, err
    begun = (out / "checkpoint.pt").exists()
    steps = step_of(out) + 3 if begun else 3
    again = [sys.executable, "-m", "mow", "train", "--resume", str(out)] if begun else command
    done = subprocess.run([*again, "--steps", str(steps)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert step_of(out) == steps
