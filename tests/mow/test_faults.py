"""What goes wrong in the middle of a run: a clear error, and nothing lost that the last checkpoint had."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from marks import needs_gloo, needs_permissions
from torch import Tensor, nn

import mow
from mow import MovingWindow, Trainer, files
from mow.app import run as run_module
from mow.app.data import DataError
from mow.app.options import Options
from mow.app.run import Run

ROOT = Path(mow.__file__).parents[1]
SameRun = Callable[[Path, Path], None]
Metrics = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def options(pictures_file: Path) -> Callable[..., Options]:
    """Options of a run of 60 steps."""
    defaults = {"data": str(pictures_file), "n": 16, "k": 2, "dim": 4, "steps": 60, "lr": 1e-3}
    defaults |= {"log_every": 7, "evaluate_every": 30, "checkpoint_every": 20}
    return lambda **changes: Options(**{**defaults, **changes})


@pytest.fixture
def no_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Run, "write_pictures", lambda run: None)
    monkeypatch.setattr(Run, "write_report", lambda run: None)


# A full disk


class FullDisk:
    """Files that take half of what is written into them."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *error: Any) -> None:
        self.file.close()

    def write(self, content: Any) -> None:
        self.file.write(content[: len(content) // 2])
        self.file.flush()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.file.name)


@pytest.mark.parametrize("where", ["checkpoint", "checkpoint's fsync", "metrics"])
def test_a_full_disk(
    where: str, options: Any, tmp_path: Path, assert_same_run: SameRun, no_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the third checkpoint's file, of what the system promised of it, of a line of the log."""
    whole, out = tmp_path / "whole", tmp_path / "full"
    Run.start(options(), whole).train()
    run = Run.start(options(), out)

    def is_full() -> bool:
        return run.trainer.steps_done >= 40

    def fsync(descriptor: int) -> None:
        if is_full():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def opened(path: Any, mode: str = "r", **rest: Any) -> Any:
        file = open(path, mode, **rest)
        return FullDisk(file) if is_full() and mode[0] in "xaw" else file

    with monkeypatch.context() as patch:
        if where == "checkpoint's fsync":
            patch.setattr(os, "fsync", fsync)
        else:
            patch.setattr(files if where == "checkpoint" else run_module, "open", opened, raising=False)
        with pytest.raises(OSError, match="No space left on device"):
            run.train()
    assert not [name for name in os.listdir(out) if name.endswith(".part")]
    resumed = Run.resume(out)
    assert resumed.trainer.steps_done == (40 if where == "metrics" else 20)
    resumed.train()
    assert_same_run(whole, out)


# A folder that cannot be written


def test_a_folder_that_is_gone(options: Any, tmp_path: Path, assert_same_run: SameRun, no_pages: None) -> None:
    whole, out, away = tmp_path / "whole", tmp_path / "run", tmp_path / "away"
    Run.start(options(), whole).train()
    run = Run.start(options(), out)

    def on_step(step: int, record: Any) -> None:
        if step == 33:
            out.rename(away)

    with pytest.raises(FileNotFoundError, match="run/metrics.jsonl"):
        run.train(on_step)
    away.rename(out)
    Run.resume(out).train()
    assert_same_run(whole, out)


@needs_permissions
def test_a_folder_without_permission(options: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            Run.start(options(), tmp_path / "run")
    finally:
        tmp_path.chmod(0o700)


# A picture that cannot be decoded


class Photographs:
    """The pictures of a run, of which a file may be broken."""

    def __init__(self, pictures: Tensor, broken: int | None) -> None:
        self.pictures, self.broken = pictures, broken

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Tensor:
        if index == self.broken:
            raise DataError(f"photos/{index}.png: it is truncated")
        return self.pictures[index]


def test_a_picture_that_cannot_be_decoded(
    options: Any, tmp_path: Path, assert_same_run: SameRun, no_pages: None
) -> None:
    """It is named, the step was not begun, and the same run goes on once the file is whole."""
    whole, out = tmp_path / "whole", tmp_path / "broken"
    Run.start(options(), whole).train()
    run = Run.start(options(), out)
    photographs = Photographs(run.source.train, int(run.stream._order[14 + 2 * 25 + 1]))  # 14 warm the window up
    run.stream.pictures = photographs
    with pytest.raises(DataError, match=rf"photos/{photographs.broken}\.png"):
        run.train()
    assert (run.trainer.steps_done, run.stream.offset) == (25, 14 + 2 * 25)
    photographs.broken = None
    run.train()  # the same object goes on, too
    assert_same_run(whole, out)


# A loss that is not finite


def test_stop_leaves_everything_as_it_was() -> None:
    trainer, x = small_trainer(), torch.randn(2, 5)
    trainer.step(x)
    before = frozen(trainer)
    with pytest.raises(FloatingPointError, match="loss of step 2 is not finite.*step 1"):
        trainer.step(torch.tensor([[0.0] * 5, [0, 0, math.nan, 0, 0]]))
    assert same(before, frozen(trainer))
    trainer.step(x)
    assert trainer.steps_done == 2


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_skip_counts(value: float) -> None:
    """1e30 is finite, its square is not."""
    trainer, x = small_trainer(on_nonfinite="skip"), torch.randn(2, 5)
    trainer.step(x)
    before = frozen(trainer)
    result = trainer.step(torch.full((2, 5), value))
    assert not math.isfinite(result["loss"]) and (trainer.steps_done, trainer.pictures_seen) == (2, 4)
    assert same(before, frozen(trainer)) and trainer.state_dict()["steps_skipped"] == trainer.steps_skipped == 1
    trainer.step(x)
    assert not same(before, frozen(trainer))


def test_a_gradient_of_the_distance_that_is_not_finite() -> None:
    """A decoder may hide what its latents are."""
    encoder = nn.Linear(5, 2)
    decoder = nn.Sequential(nn.Linear(2, 5), Hidden())
    trainer = Trainer(encoder, decoder, mow.SlicedWasserstein(), MovingWindow(8, 2), k=2, on_nonfinite="skip")
    trainer.step(torch.randn(2, 5))
    before = frozen(trainer)
    trainer.step(torch.full((2, 5), math.nan))
    assert trainer.steps_skipped == 1 and same(before, frozen(trainer))


class Hidden(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.nan_to_num(0)


def test_ignore_does_not_look() -> None:
    trainer = small_trainer(on_nonfinite="ignore")
    trainer.step(torch.full((2, 5), math.nan))
    assert trainer.steps_skipped == 0 and all(map(is_nan, trainer.encoder.parameters()))


def test_an_unknown_choice() -> None:
    with pytest.raises(ValueError, match="on_nonfinite is 'hope'; it must be one of 'stop', 'skip', 'ignore'"):
        small_trainer(on_nonfinite="hope")


def test_the_state_of_an_older_version() -> None:
    trainer = small_trainer()
    state = trainer.state_dict()
    del state["steps_skipped"]
    trainer.load_state_dict(state)
    assert trainer.steps_skipped == 0


def test_a_run_that_stopped_at_a_nan_can_skip_it(
    options: Any, tmp_path: Path, read_metrics: Metrics, no_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_nan(monkeypatch, at=14 + 2 * 25 + 1)
    with pytest.raises(FloatingPointError, match="loss of step 26 is not finite"):
        Run.start(options(log_every=1), tmp_path).train()
    assert read_metrics(tmp_path)[-1]["step"] == 25
    Run.resume(tmp_path, on_nonfinite="skip").train()
    lines = {line["step"]: line for line in read_metrics(tmp_path)}
    assert set(lines) == set(range(61)) and "skipped" not in lines[25]
    assert [lines[26][name] for name in ("loss", "reconstruction", "distance", "skipped")] == [None, None, None, 1]
    assert lines[60]["skipped"] == 1 and math.isfinite(lines[60]["loss"]) and lines[60]["pictures"] == 120
    assert Run.load(tmp_path).options.on_nonfinite == "skip"
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def one_nan(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Every run reads a NaN at this place of its first pass."""
    begin = Run.__init__

    def with_a_nan(run: Run, *arguments: Any) -> None:
        begin(run, *arguments)
        pictures = run.source.train / 255
        pictures[run.stream._order[at], 0, 0, 0] = math.nan
        run.stream.pictures = pictures

    monkeypatch.setattr(Run, "__init__", with_a_nan)


def small_trainer(**options: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(nn.Linear(5, 2), nn.Linear(2, 5), mow.CramerWold(), MovingWindow(8, 2), k=2, **options)


def frozen(trainer: Trainer) -> list[Tensor]:
    state = trainer.state_dict()
    moments = [value for of_one in state["optimizer"]["state"].values() for value in of_one.values()]
    values = [value for part in ("encoder", "decoder", "window") for value in state[part].values()]
    return [value.detach().clone() for value in [*values, *moments]]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def is_nan(parameter: Tensor) -> bool:
    return bool(parameter.isnan().all())


# A rank that dies


TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def start_ranks(words: list[str], folder: Path) -> list[subprocess.Popen[str]]:
    """Two ranks of `mow train`, as torchrun would start them, but without its watch over them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(2):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "mow", "train", *words]
        with open(folder / f"rank{rank}.txt", "w") as said:
            processes.append(
                subprocess.Popen(command, cwd=ROOT, env={**os.environ, **place}, stdout=said, stderr=said, text=True)
            )
    return processes


def wait_for_lines(process: subprocess.Popen[str], out: Path, count: int) -> None:
    path = out / "metrics.jsonl"
    while process.poll() is None and not (path.exists() and path.read_text().count("\n") >= count):
        time.sleep(0.02)


def words_of(options: Options, out: Path) -> list[str]:
    words = ["--out", str(out)]
    for name in ("data", "n", "k", "dim", "steps", "lr", "log_every", "evaluate_every", "checkpoint_every"):
        words += ["--" + name.replace("_", "-"), str(getattr(options, name))]
    return words


TRAIN_AND_LIST_THREADS = """
import os, sys
from pathlib import Path
from mow.app.cli import app
app(sys.argv[1:], standalone_mode=False)
threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
Path(__file__).with_name(f"threads{os.environ['RANK']}.txt").write_text("".join(threads))
"""


@pytest.fixture(scope="module")
def by_torchrun(pictures_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Options, Path]:
    """A run of two ranks that nothing disturbed, and beside it the names of the threads that each had in the end."""
    chosen = Options(data=str(pictures_file), n=16, k=3, dim=4, steps=300, lr=1e-3, log_every=5, evaluate_every=100)
    chosen = Options(**{**vars(chosen), "checkpoint_every": 30})
    out = tmp_path_factory.mktemp("torchrun") / "run"
    script = out.with_name("train.py")
    script.write_text(TRAIN_AND_LIST_THREADS)
    command = [*TORCHRUN, "--", script, "train", *words_of(chosen, out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return chosen, out


@needs_gloo
def test_torchrun_trains_what_one_process_trains(by_torchrun: Any, tmp_path: Path, read_metrics: Metrics) -> None:
    chosen, out = by_torchrun
    assert {path.suffix for path in out.iterdir()} == {".jsonl", ".pt", ".png", ".html"}
    Run.start(chosen, tmp_path).train()
    got, expected = read_metrics(out), read_metrics(tmp_path)
    assert len(got) == len(expected) == 61
    for line, of_one in zip(got[1:], expected[1:], strict=True):
        assert line == pytest.approx(of_one, rel=1e-3, abs=1e-5)
    torch.testing.assert_close(*(weights_of(folder) for folder in (out, tmp_path)), rtol=1e-3, atol=1e-4)


@needs_gloo
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="names of threads are read from Linux's /proc")
def test_nothing_of_gloo_is_left_when_a_rank_ends(by_torchrun: Any) -> None:
    """A thread of gloo that waits for the interpreter when it ends calls terminate: the rank is aborted after its
    work, and torchrun kills the others in theirs."""
    _, out = by_torchrun
    for rank in range(2):
        assert "gloo" not in out.with_name(f"threads{rank}.txt").read_text()


def weights_of(out: Path) -> dict[str, Tensor]:
    return Run.load(out).trainer.state_dict()["decoder"]


@needs_gloo
def test_a_rank_that_is_killed(by_torchrun: Any, tmp_path: Path, assert_same_run: SameRun) -> None:
    """At some step between the first checkpoints and the end. The other rank says so and ends; two ranks go on from the
    last checkpoint, to the same bits as if nothing had happened, and so does one, up to rounding."""
    chosen, whole = by_torchrun
    out, victim = tmp_path / "run", random.randrange(2)
    processes = start_ranks([*words_of(chosen, out), "--timeout", "60"], tmp_path)
    try:
        wait_for_lines(processes[0], out, random.randrange(8, 20))
        processes[victim].send_signal(signal.SIGKILL)
        processes[1 - victim].wait(60)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    said = " ".join((tmp_path / f"rank{1 - victim}.txt").read_text().split())
    assert processes[1 - victim].returncode == 2, said
    assert "error: step" in said and "another rank died" in said and "--resume" in said and "Traceback" not in said
    steps_done = Run.load(out).trainer.steps_done
    assert 0 < steps_done < chosen.steps

    alone = tmp_path / "alone"
    shutil.copytree(out, alone)
    Run.resume(alone).train()
    torch.testing.assert_close(weights_of(alone), weights_of(whole), rtol=1e-3, atol=1e-4)

    for process in start_ranks(["--resume", str(out)], tmp_path):
        assert process.wait(120) == 0, (tmp_path / "rank0.txt").read_text()
    assert_same_run(whole, out)


@needs_gloo
@pytest.mark.long
def test_a_rank_that_hangs(by_torchrun: Any, tmp_path: Path) -> None:
    """It is given up after the time-out."""
    chosen, _ = by_torchrun
    out = tmp_path / "run"
    processes = start_ranks([*words_of(chosen, out), "--timeout", "10", "--steps", "100000"], tmp_path)
    try:
        wait_for_lines(processes[0], out, 8)
        processes[1].send_signal(signal.SIGSTOP)
        assert processes[0].wait(60) == 2
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert "did not answer in time" in " ".join((tmp_path / "rank0.txt").read_text().split())
    assert json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])["step"] > 0


@needs_gloo
@pytest.mark.long
def test_a_mistake_ends_every_rank(by_torchrun: Any, tmp_path: Path) -> None:
    """A folder that already holds a run, which rank 0 alone looks at; and a k that does not do for two ranks."""
    chosen, whole = by_torchrun
    for words, message in [(words_of(chosen, whole), "already holds a run"), (["--out", "x", "--k", "1"], "k is 1")]:
        processes = start_ranks(words, tmp_path)
        assert [process.wait(120) for process in processes] == [2, 2]
        for rank in range(2):
            said = " ".join((tmp_path / f"rank{rank}.txt").read_text().split())
            assert message in said and "Traceback" not in said
    assert not (ROOT / "x").exists()


def test_rows_that_were_left_out_are_in_the_metrics(
    options: Any, tmp_path: Path, read_metrics: Metrics, no_pages: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_nan(monkeypatch, at=3)  # in the warm-up
    Run.start(options(log_every=1, on_nonfinite="skip"), tmp_path).train()
    lines = read_metrics(tmp_path)
    assert "rows_left_out" not in lines[0] and {line["rows_left_out"] for line in lines[1:]} == {1}
    assert "skipped" not in lines[-1]
