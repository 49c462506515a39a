"""Ctrl-C in every command, and what they write where there is no terminal."""

from __future__ import annotations

import io
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
from mow.app import critical_batch_demo, display
from mow.app.cli import app
from mow.app.data import base
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


# The other commands

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


@pytest.mark.parametrize("word", [["grid", "k=1,2", "steps=3"], ["reproduce", "table1", "--k", "1"]])
def test_a_grid_says_how_it_goes_on(
    word: list[str], tmp_path: Path, pictures_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "runs"

    def run_cells(cells: Any, out: Path, *, jobs: int | None, on_event: Any) -> None:
        on_event(cells[0].name, "start", None)
        on_event(cells[0].name, "done", {})
        raise KeyboardInterrupt

    monkeypatch.setattr("mow.app.grid.run_cells", run_cells)
    data = [] if word[0] == "grid" else ["--architecture", "mnist", "--data", f"mnist={pictures_file}"]
    result = CliRunner().invoke(app, [*word, *data, "--out", str(out)])
    assert result.exit_code == 130, result.output
    told = re.fullmatch(r"interrupted: the same command goes on; 1 of (\d+) runs are finished in (.*)\n", result.stderr)
    assert told and int(told[1]) >= 2 and told[2] == str(out)


def test_the_critical_batch_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critical_batch_demo, "Task", lambda source: None)
    few = torch.zeros(9, 1, 4, 4, dtype=torch.uint8)
    monkeypatch.setattr("mow.app.data.load", lambda *_, **__: base.PictureData("few", few, few, "few"))
    calls = []

    def measure(task: None, batch: int, seed: int, *, threshold: float, limit: int) -> dict[str, Any]:
        calls.append((batch, seed))
        if len(calls) == 4:
            raise KeyboardInterrupt
        line = {"batch": batch, "seed": seed, "threshold": threshold, "every": critical_batch_demo.EVERY}
        return {**line, "limit": limit, "steps": 1000 // batch + 100, "curve": []}

    monkeypatch.setattr(critical_batch_demo, "measure", measure)
    words = ["critical-batch", "--largest", "16", "--seeds", "2", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 130 and result.stderr == (
        f"interrupted: the same command goes on; 3 of 10 measurements are in {tmp_path / 'measurements.jsonl'}\n"
    )
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0 and len(calls) == len(set(calls)) + 1 == 11, "that which was interrupted, again"
    assert "measuring: 7 of 7" in result.stdout and not CONTROL.search(result.stdout + result.stderr)


@pytest.mark.parametrize("words", [["coreset"], ["microbatch"], ["evaluate", "x"], ["sample", "x", "--out", "x.png"]])
def test_what_keeps_nothing_says_so(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mow.app.data.load", stop)
    monkeypatch.setattr(Run, "load", stop)
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, result.stderr) == (130, "interrupted: the same command begins again\n")


@pytest.mark.parametrize("where", ["in a file", "between two"])
def test_an_import_does_not_read_on(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, read = [tmp_path / str(number) for number in range(1000)], []

    def one(path: Path) -> int:
        read.append(path)
        if len(read) == 40 and where == "in a file":
            os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.001)
        return 0

    def tracked(answers: Any, title: str, total: int) -> Any:
        for count, answer in enumerate(answers):
            if count == 40 and where == "between two":
                raise KeyboardInterrupt
            yield answer

    monkeypatch.setattr(base, "tracked", tracked)
    with pytest.raises(KeyboardInterrupt):
        base.each(one, paths, "reading", progress=True)
    assert len(read) < 500


def test_a_grid_without_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mow.app.display.SECONDS_BETWEEN_LINES", 0.0)

    def run_cells(cells: Any, out: Path, *, jobs: int | None, on_event: Any) -> dict[str, Any]:
        out.mkdir()
        for name, kind, what in (
            *[(cell.name, "start", None) for cell in cells],
            (cells[0].name, "step", (3, 12)),
            (cells[1].name, "warned", "a.png is left out"),
            (cells[0].name, "done", {}),
            (cells[1].name, "failed", "no room"),
        ):
            on_event(name, kind, what)
        return {}

    monkeypatch.setattr("mow.app.grid.run_cells", run_cells)
    result = CliRunner().invoke(app, ["grid", "k=1,2", "steps=12", "--out", str(tmp_path / "runs")])
    lines = result.stdout.splitlines()
    assert "0 of 2 runs are finished; k=1 at 25%" in lines and "1 of 2 runs are finished" in lines
    assert lines.count("a.png is left out") == lines.count("failed k=2: no room") == 1
    assert result.exit_code == 1 and not CONTROL.search(result.stdout + result.stderr)


def test_items_are_counted_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: clock[0])
    file = io.StringIO()
    for item in display.tracked(range(1000), "reading", 1000, file):
        clock[0] += 0.03
        assert item < 1000
    assert file.getvalue().splitlines() == [
        *(f"reading: {count} of 1,000" for count in (335, 669)),
        "reading: 1,000 of 1,000",
    ]


@pytest.mark.parametrize("way", ["python -m mow", "script", "child", "library"])
def test_while_pytorch_is_imported(way: str, tmp_path: Path) -> None:
    """One line from the command, none from a process that it launched; a program that imports mow is as it was."""
    (tmp_path / "torch.py").write_text(
        "import os, signal, time\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(5)\n"
        "except KeyboardInterrupt:\n    raise SystemExit('swallowed')\n"
    )
    (tmp_path / "mow").write_text("import sys\nfrom mow.__main__ import main\nsys.exit(main())\n")
    words = {"script": [str(tmp_path / "mow")], "library": ["-c", "import mow"]}.get(way, ["-m", "mow", "train"])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(mow.__file__).parents[1])])}
    environment |= {"MOW_LAUNCHED": "1"} if way == "child" else {}
    done = subprocess.run([sys.executable, *words], env=environment, capture_output=True, text=True)
    line = "interrupted before anything was begun: the same command begins again\n"
    told = {"child": (130, ""), "library": (1, "swallowed\n")}.get(way, (130, line))
    assert (done.returncode, done.stderr) == told


@pytest.mark.long
@pytest.mark.parametrize("seconds", [3.0, 5.0, 9.0])
def test_a_real_one_in_a_grid(seconds: float, tmp_path: Path, pictures_file: Path) -> None:
    """As a terminal sends it, to every process: while the runs import PyTorch, and in training."""
    words = [f"data={pictures_file}", "n=8", "dim=2", "seed=0,1,2", "steps=3000", "checkpoint_every=50"]
    environment = {**os.environ, "PYTHONPATH": str(Path(mow.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    command = [sys.executable, "-m", "mow", "grid", "--out", str(tmp_path / "runs"), "--jobs", "2", *words]
    process = subprocess.Popen(command, start_new_session=True, **pipes)
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    if process.returncode == 0:
        return  # it was ready
    assert process.returncode == 130 and err.startswith("interrupted") and err.count("\n") == 1, err
    assert not CONTROL.search(out + err)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0 and done.stdout.count("done") == 1, done.stderr


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
    assert process.returncode == 130 and err.startswith("interrupted") and err.count("\n") == 1, err
    begun = (out / "checkpoint.pt").exists()
    steps = step_of(out) + 3 if begun else 3
    again = [sys.executable, "-m", "mow", "train", "--resume", str(out)] if begun else command
    done = subprocess.run([*again, "--steps", str(steps)], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert step_of(out) == steps
