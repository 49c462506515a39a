"""Many runs side by side, each a cell of a grid: what `mow grid` and `mow reproduce` do, also from Python.

    cells = grid.cells({"model": ["cwae"], "k": [1, 64], "lr": [1e-4, 1e-3], "seed": [0, 1, 2], "pictures": [60_000]})
    done = grid.run_cells(cells, Path("runs/grid"))

A cell is a run in a folder of its own, out/<name>, so that what the folders hold is the grid's position: a cell with a
result.json is finished, one with a checkpoint goes on from there. Any process may be killed at any moment.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import multiprocessing
import os
import re
import signal
import statistics
import threading
import typing
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, get_args

import torch

from mow.app.data import PictureWarning
from mow.app.options import FIELDS, Options, about
from mow.app.run import Run
from mow.files import json_text, write_whole

KINDS = {**typing.get_type_hints(Options), "pictures": int}
"""What a grid may vary, and the type of each."""

Event = Callable[[str, str, Any], None]
"""on_event(name, kind, what): "start", None; "step", (steps done, steps in all); "done", the result; "failed", why;
"warned", what of, which is the same for several cells and told of once."""

TABLE_SCORES = (
    "test_cost",
    "test_reconstruction",
    "test_cwae_distance_exact",
    "test_mmd",
    "test_sliced_wasserstein",
    "test_fid",
    "test_frechet_classifier",
    "test_mmd_polynomial_classifier",
)
"""The columns of `table`."""


@dataclass(frozen=True)
class Cell:
    """A run of a grid: its name, which is that of its folder, and its options."""

    name: str
    options: Options


def cells(values: Mapping[str, Sequence[Any]]) -> list[Cell]:
    """A cell for each combination of options; those that vary give its name.

    Args:
        values: the values of each option of `mow.app.options.Options`; and of "pictures", which stands for the steps in
            which so many pictures are seen.

    Raises:
        ValueError: an option that is unknown or without values, or "pictures" beside "steps".
    """
    for name, several in values.items():
        _check_known(name)
        if not several:
            raise ValueError(f"{name} has no values; it must have at least one")
    if {"pictures", "steps"} <= values.keys():
        raise ValueError("pictures and steps are given; it must be one of them")
    varying = [name for name, several in values.items() if len(several) > 1]
    found = []
    for combination in itertools.product(*values.values()):
        chosen = dict(zip(values, combination, strict=True))
        name = "-".join(f"{option}={_word(chosen[option])}" for option in varying) or "run"
        if "pictures" in chosen:
            chosen["steps"] = math.ceil(chosen.pop("pictures") / chosen.get("k", Options.k))
        found.append(Cell(name, Options(**chosen)))
    return found


def parse(assignments: Iterable[str]) -> dict[str, list[Any]]:
    """Words such as k=1,64 or lr=1e-4,1e-3 as the values that `cells` takes.

    Raises:
        ValueError: a word without "=", an unknown option, or a value that it does not take, by name.
    """
    values: dict[str, list[Any]] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip().removeprefix("--").replace("-", "_")
        if not equals or not text:
            raise ValueError(f"{assignment!r} is no assignment; it must be OPTION=VALUE or OPTION=VALUE,VALUE,...")
        _check_known(name)
        if name in values:
            raise ValueError(f"{name} is given twice; write {name}=VALUE,VALUE")
        values[name] = [_parsed(name, word.strip()) for word in text.split(",")]
    return values


def run_cells(
    cells: Sequence[Cell],
    out: Path,
    *,
    jobs: int | None = None,
    on_event: Event = lambda name, kind, what: None,
) -> dict[str, dict[str, Any]]:
    """Run the cells that are not finished, several at a time, each with one thread in a process of its own.

    Args:
        cells: with different names; they are begun in this order.
        out: the folder of the grid. May hold cells already, finished or not, and others.
        jobs: how many at a time; None for the cores that this process may use.
        on_event: called in this process, see `Event`.

    Returns:
        the results (see `run_cell`) of the finished cells by name, in the order of the cells. A cell that failed is
        left out; on_event was told why.

    Raises:
        ValueError: two cells of one name, or a cell that the folder holds with other options.
    """
    names = [cell.name for cell in cells]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"cells are named alike: {', '.join(sorted(twice))}")
    for cell in cells:
        _check(cell, out / cell.name)
    if jobs is None:
        jobs = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    results = {cell.name: found for cell in cells if (found := result_of(out / cell.name)) is not None}
    waiting = [cell for cell in cells if cell.name not in results]
    running: dict[Connection, tuple[str, Any]] = {}
    warned: set[str] = set()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                cell = waiting.pop(0)
                pipe, process = _spawn(cell, out / cell.name)
                running[pipe] = cell.name, process
                on_event(cell.name, "start", None)
            for pipe in typing.cast(list[Connection], wait(list(running))):
                name, process = running[pipe]
                try:
                    kind, what = pipe.recv()
                except (EOFError, OSError):
                    process.join()
                    kind, what = "failed", f"its process ended with exit code {process.exitcode}"
                if kind in ("done", "failed"):
                    del running[pipe]
                    pipe.close()
                    process.join()
                if kind == "done":
                    results[name] = what
                if kind == "warned":
                    if what in warned:
                        continue
                    warned.add(what)
                on_event(name, kind, what)
    finally:
        for _, process in running.values():
            process.kill()  # nothing is lost: its checkpoint goes on
        for _, process in running.values():
            process.join()
    return {name: results[name] for name in names if name in results}


def table(results: Sequence[Mapping[str, Any]], by: str = "test_cost") -> str:
    """Results as a Markdown table: a line for each combination of the options that vary, mean ± sd over the seeds.

    Args:
        results: of `run_cell`.
        by: the score by which the lines are sorted, least first; lines without it come last.

    Raises:
        ValueError: no result has that score.
    """
    if results and not any(by in result or by in result.get("left_out", {}) for result in results):
        scores = sorted({name for result in results for name in result if name.startswith("test_")})
        raise ValueError(f"by is {by!r}; it must be one of {', '.join(scores)}")
    followed = {"seed", "steps", "log_every", "evaluate_every", "checkpoint_every", "threads"}
    names = [
        name
        for name in (results[0]["resolved"] if results else ())
        if name not in followed and len({result["resolved"][name] for result in results}) > 1
    ]
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for result in results:
        groups.setdefault(tuple(result["resolved"][name] for name in names), []).append(result)
    scores = [by, *(name for name in TABLE_SCORES if name != by)]
    scores = [name for name in scores if any(name in result for result in results)]

    def values(several: Sequence[Mapping[str, Any]], name: str) -> list[float]:
        return [result[name] for result in several if name in result]

    def cell(several: Sequence[Mapping[str, Any]], name: str) -> str:
        found = values(several, name)
        if not found:
            return ""
        spread = f" ± {statistics.stdev(found):.2g}" if len(found) > 1 else ""
        return f"{statistics.fmean(found):.4g}{spread}"

    ordered = sorted(groups.items(), key=lambda item: statistics.fmean(values(item[1], by) or [math.inf]))
    head = [*names, "runs", "pictures", *(name.removeprefix("test_") for name in scores)]
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for key, several in ordered:
        words = [*(_word(value) for value in key), str(len(several)), f"{several[0]['pictures']:,}"]
        lines.append("| " + " | ".join([*words, *(cell(several, name) for name in scores)]) + " |")
    return "\n".join(lines)


def run_cell(
    cell: Cell, folder: Path, on_step: Callable[[int, int], None] = lambda step, steps: None
) -> dict[str, Any]:
    """Run a cell, or go on with it, in this process; only one process at a time does.

    Returns:
        what folder/result.json holds: name; options as asked for; resolved, the options of the run; data, one sentence;
        step, pictures, epochs, seconds; and the scores of `Run.score`.
    """
    _check(cell, folder)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        if (found := result_of(folder)) is not None:
            return found
        write_whole(folder / "cell.json", json_text(dataclasses.asdict(cell.options), indent=1))
        if (folder / "checkpoint.pt").exists():
            run = Run.resume(folder)
        else:
            run = Run.start(dataclasses.replace(cell.options, threads=cell.options.threads or 1), folder)
        steps = run.options.steps
        run.train(lambda step, record: on_step(step, steps), pages=False)
        result = {
            "name": cell.name,
            "options": dataclasses.asdict(cell.options),
            "resolved": dataclasses.asdict(run.options),
            "data": run.source.origin.split(", found")[0],
            "step": run.trainer.steps_done,
            "pictures": run.trainer.pictures_seen,
            "epochs": run.trainer.pictures_seen / len(run.source.train),
            "seconds": round(run.seconds, 2),
            **run.score(),
        }
        write_whole(folder / "result.json", json_text(result, indent=1))
    return result


def result_of(folder: Path) -> dict[str, Any] | None:
    """The result of a finished cell, else None."""
    path = folder / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _check(cell: Cell, folder: Path) -> None:
    path = folder / "cell.json"
    if not path.exists():
        return
    was, now = json.loads(path.read_text(encoding="utf-8")), dataclasses.asdict(cell.options)
    for name in now:
        if was.get(name, getattr(Options, name)) != now[name]:
            raise ValueError(
                f"{name} of cell {cell.name} is {now[name]!r}, but {folder} was begun with {was.get(name)!r}: "
                "name another folder, or remove this one"
            )


def _spawn(cell: Cell, folder: Path) -> tuple[Connection, Any]:
    pipe, end = _context().Pipe(duplex=False)
    process = _context().Process(target=_work, args=(cell, folder, end), daemon=True)
    with _ctrl_c_held():
        process.start()
    end.close()  # so that the pipe ends when the process does
    return pipe, process


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Ctrl-C waits inside, and never reaches the processes that begin there, which the parent ends: they have no word
    to say, also while they import PyTorch."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    resource_tracker.ensure_running()  # it lets Ctrl-C through when it starts, so it does so before
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _context() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mow.app.run"])  # which imports PyTorch, once for all the cells
    return context


def _work(cell: Cell, folder: Path, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    threading.Thread(target=_die_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    told, last = warnings.showwarning, 0.0

    def on_warning(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
        if issubclass(category, PictureWarning):
            pipe.send(("warned", str(message)))
        else:
            told(message, category, *where, **options)

    warnings.showwarning = on_warning

    def on_step(step: int, steps: int) -> None:
        nonlocal last
        if step / steps - last >= 0.01 or step == steps:
            last = step / steps
            pipe.send(("step", (step, steps)))

    try:
        pipe.send(("done", run_cell(cell, folder, on_step)))
    except (ValueError, TypeError, OSError) as error:
        pipe.send(("failed", " ".join(str(error).split())))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process is in here; the system ends the lock of one that was killed. .lock tells the id."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with open(folder / ".lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _word(value: Any) -> str:
    """A value within the name of a folder."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^\w.+-]+", "_", Path(text).stem if "/" in text else text)


def _check_known(name: str) -> None:
    if name not in KINDS:
        raise ValueError(f"{name} is no option; it must be one of {', '.join(sorted(KINDS))}")


def _parsed(name: str, word: str) -> Any:
    kinds = get_args(KINDS[name]) or (KINDS[name],)
    if type(None) in kinds and word.lower() == "none":
        return None
    value = _of_kind(kinds[0], name, word)
    if name in FIELDS:
        about(FIELDS[name]).check(name, value)
    return value


def _of_kind(kind: Any, name: str, word: str) -> Any:
    if kind is bool:
        if word.lower() in ("true", "false"):
            return word.lower() == "true"
        raise ValueError(f"{name} is {word!r}; it must be true or false")
    try:
        return kind(word)
    except ValueError:
        raise ValueError(f"{name} is {word!r}; it must be {'an integer' if kind is int else 'a number'}") from None
