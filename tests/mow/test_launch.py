"""`mow train --processes`: PyTorch's own launcher, one error, and torchrun as it was."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from marks import needs_gloo
from typer.testing import CliRunner

import mow
from mow.app import launch
from mow.app.cli import app
from mow.app.options import Options
from mow.app.run import Run
from mow.training import checkpoint

ROOT = Path(mow.__file__).parents[1]
SMALL = ["--n", "8", "--dim", "2", "--seed", "0"]


def command(*words: object) -> subprocess.Popen[str]:
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "mow", *map(str, words)], env=environment, **pipes)


def train(*words: object) -> tuple[int, str, str]:
    process = command("train", *words)
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


@needs_gloo
@pytest.mark.long
def test_two_processes_train_what_one_does(pictures_file: Path, tmp_path: Path, read_metrics: Any) -> None:
    data = ["--data", pictures_file, *SMALL, "--k", "2", "--steps", "40", "--lr", "1e-3"]
    code, out, err = train(*data, "--processes", "2", "--out", tmp_path / "two", "--log-every", "10")
    assert (code, err) == (0, "") and out.count("done: open") == 1
    Run.start(
        Options(data=str(pictures_file), n=8, dim=2, k=2, steps=40, lr=1e-3, log_every=10), tmp_path / "one"
    ).train()
    for line, of_one in zip(read_metrics(tmp_path / "two")[1:], read_metrics(tmp_path / "one")[1:], strict=True):
        assert line == pytest.approx(of_one, rel=1e-3, abs=1e-5)
    code, out, err = train("--resume", tmp_path / "two", "--steps", "50", "--processes", "2")
    assert (code, err) == (0, "")
    assert checkpoint.load(tmp_path / "two" / "checkpoint.pt")["trainer"]["steps_done"] == 50
    code, out, err = train("--resume", tmp_path / "two", "--steps", "60", "--processes", "3")
    assert (code, err.count("\n")) == (2, 1) and "k is 2" in err
    code, out, err = train(*data, "--processes", "2", "--out", tmp_path / "two")
    assert (code, err.count("\n")) == (2, 1) and err.startswith("error: ") and "already holds a run" in err


@needs_gloo
@pytest.mark.long
@pytest.mark.parametrize("victim", ["all", "child"])
def test_a_signal(pictures_file: Path, tmp_path: Path, victim: str) -> None:
    """Ctrl-C, and a process that is killed: no process is left, one line, and the run goes on."""
    out = tmp_path / "run"
    words = ["--data", pictures_file, *SMALL, "--k", "2", "--checkpoint-every", "20", "--steps", "1000000"]
    process = command("train", *words, "--processes", "2", "--out", out)
    try:
        while not (out / "checkpoint.pt").exists():
            assert process.poll() is None
            time.sleep(0.02)
        listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
        children = [int(word) for word in listed.stdout.split()]
        time.sleep(1)
        if victim == "all":
            process.send_signal(signal.SIGINT)
        else:
            os.kill(children[-1], signal.SIGKILL)
        said, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert len(children) == 2 and not any(Path(f"/proc/{child}/cmdline").exists() for child in children)
    assert err.count("\n") == 1 and "Traceback" not in said
    if victim == "all":
        assert process.returncode == 130
        assert err == f"interrupted: mow train --resume {out} --processes 2 goes on from its checkpoint\n"
    else:
        assert process.returncode == 2 and "was ended by SIGKILL" in err
    assert 0 < Run.load(out).trainer.steps_done


# Without starting any


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What would have been launched."""
    calls: list[Any] = []
    monkeypatch.setattr(launch, "launch", lambda words, processes: calls.append((words, processes)))
    monkeypatch.delenv("RANK", raising=False)
    return calls


def test_the_processes_get_every_option_that_was_given(started: list[Any], tmp_path: Path) -> None:
    out = tmp_path / "a run"
    words = ["--k", "2", "--n", "8", "--no-reencode", "--drop-last", "--log", "--processes", "2", "--timeout", "9"]
    result = CliRunner().invoke(app, ["train", *words, "--out", str(out)])
    assert result.exit_code == 0, result.output
    ((given, processes),) = started
    assert processes == 2 and given[0] == "train" and "--processes" not in given
    expected = "--k 2 --n 8 --no-reencode --drop-last --log --timeout 9.0 --out".split()
    assert sorted(given[1:]) == sorted([*expected, str(out)])
    assert CliRunner().invoke(app, ["train", "--resume", str(out), "--steps", "9", "--processes", "3"]).exit_code == 0
    assert started[1] == (["train", "--steps", "9", "--resume", str(out)], 3)


@pytest.mark.parametrize(
    "words, said",
    [
        (["--processes", "2"], "k is 1 and processes 2; k must be at least as many"),
        (["--processes", "2", "--k", "2", "--lr", "-1"], "lr is -1.0; it must be"),
        (["--processes", "2", "--k", "2", "--dim", "x"], "Invalid value for '--dim'"),
        (["--processes", "0"], "Invalid value for '--processes'"),
    ],
)
def test_a_wrong_option_is_told_of_once_before_any_starts(started: list[Any], words: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["train", *words, "--out", "nowhere"])
    assert result.exit_code == 2 and " ".join(result.stderr.replace("│", "").split()).count(said) == 1, result.stderr
    assert started == [] and not Path("nowhere").exists()


def test_not_within_torchrun(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    result = CliRunner().invoke(app, ["train", "--processes", "2", "--k", "2", "--out", "nowhere"])
    assert result.exit_code == 2 and "processes is 2 within torchrun" in result.stderr and started == []


def test_a_gpu_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("RANK", raising=False)
    launch.check(2, Options(k=8, device="cuda"))
    with pytest.raises(ValueError, match="processes is 3; there are 2 GPUs, one for each"):
        launch.check(3, Options(k=8, device="cuda"))
    launch.check(3, Options(k=8, device="cpu"))


def failure(exitcode: int, timestamp: float, message: str | None = None) -> Any:
    data = {} if message is None else {"message": {"message": message, "extraInfo": {}}}
    return SimpleNamespace(exitcode=exitcode, timestamp=timestamp, error_file_data=data)


def test_the_process_that_failed_by_itself_says_why(tmp_path: Path) -> None:
    lost = failure(2, 1, "RankError: rank 0: data is 'x'")
    assert launch._told({1: lost, 0: failure(2, 3, "DataError: data is 'x',\n which is: no name")}, 2, tmp_path) == (
        "data is 'x', which is: no name"
    )
    assert launch._told({0: lost, 2: failure(-9, 2)}, 3, tmp_path) == "process 3 of 3 was ended by SIGKILL"
    assert launch._told({0: lost}, 2, tmp_path) == "rank 0: data is 'x'"
    log = tmp_path / "id" / "attempt_0" / "1" / "stderr.log"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback ...\nKeyError: 'a'\n")
    said = launch._told({1: failure(1, 2), 0: lost}, 2, tmp_path)
    assert said == "process 2 of 2 ended with exit code 1; it said:\nTraceback ...\nKeyError: 'a'"


def test_an_error_is_handed_over_by_what_was_launched_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under torchrun, which sets the same file, a rank tells of it itself."""
    file = tmp_path / "error.json"
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(file))
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path)])
    assert result.exit_code == 2 and "holds no run" in result.stderr and not file.exists()
    monkeypatch.setenv("MOW_LAUNCHED", "1")
    result = CliRunner().invoke(app, ["evaluate", str(tmp_path)])
    assert result.exit_code == 2 and result.stderr == "" and "holds no run" in file.read_text()


def test_environment_logging_and_handlers_are_as_before() -> None:
    environment, level, handler = dict(os.environ), logging.root.manager.disable, signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), launch._quiet(), launch._environment({"OMP_NUM_THREADS": "3", "PATH": "none"}):
        assert os.environ["PATH"] == environment["PATH"] and "OMP_NUM_THREADS" in os.environ
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyError
    assert dict(os.environ) == environment and logging.root.manager.disable == level
    assert signal.getsignal(signal.SIGTERM) is handler
