"""Grids of runs: their cells, and that no kill loses or repeats what is finished."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import mow
from mow.app import grid
from mow.app.grid import Cell
from mow.app.options import Options

ROOT = Path(mow.__file__).parents[1]
TINY = {"n": [16], "dim": [4], "steps": [30], "log_every": [5], "evaluate_every": [10], "checkpoint_every": [10]}


@pytest.fixture
def cells(pictures_file: Path) -> Any:
    """cells(**values): small runs on small pictures."""
    return lambda **values: grid.cells({"data": [str(pictures_file)], **TINY, **values})


def results(out: Path) -> dict[str, dict[str, Any]]:
    """What a grid's folder holds, seconds left out."""
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/result.json")}
    return {name: {key: value for key, value in result.items() if key != "seconds"} for name, result in found.items()}


def tells(events: list[tuple[str, str]]) -> grid.Event:
    return lambda name, kind, what: events.append((name, kind)) if kind != "step" else None


# Cells


def test_a_cell_for_each_combination() -> None:
    found = grid.cells({"model": ["wae"], "k": [1, 64], "lr": [1e-4, 0.5], "seed": [3]})
    assert [cell.name for cell in found] == ["k=1-lr=0.0001", "k=1-lr=0.5", "k=64-lr=0.0001", "k=64-lr=0.5"]
    assert found[1].options == Options(model="wae", k=1, lr=0.5, seed=3)


def test_pictures_are_as_many_steps_as_see_them() -> None:
    found = grid.cells({"pictures": [1000], "k": [1, 32, 64]})
    assert [cell.options.steps for cell in found] == [1000, 32, 16]
    assert grid.cells({"pictures": [1000]})[0].options.steps == 1000, "k has its default"


def test_a_name_is_that_of_one_folder() -> None:
    names = [cell.name for cell in grid.cells({"data": ["/some/where/a.npz", "../b c"], "lr": [None, 1e-3]})]
    assert names == ["data=a-lr=None", "data=a-lr=0.001", "data=b_c-lr=None", "data=b_c-lr=0.001"]
    assert grid.cells({})[0].name == "run"


def test_words_become_values() -> None:
    words = ["model=cwae,wae", "k=1,64", "lr=1e-4,none", "--warm-up=true,False", "data=a.npz", "pictures=600"]
    assert grid.parse(words) == {
        "model": ["cwae", "wae"],
        "k": [1, 64],
        "lr": [1e-4, None],
        "warm_up": [True, False],
        "data": ["a.npz"],
        "pictures": [600],
    }


@pytest.mark.parametrize(
    "words, message",
    [
        (["k"], "'k' is no assignment"),
        (["k="], "'k=' is no assignment"),
        (["z=1"], "z is no option"),
        (["k=1", "k=2"], "k is given twice"),
        (["k=one"], "k is 'one'; it must be an integer"),
        (["k=1,"], "k is ''"),
        (["lr=fast"], "lr is 'fast'; it must be a number"),
        (["model=vae"], "model is 'vae'; it must be one of cwae, wae, swae"),
        (["root=yes"], "root is 'yes'; it must be true or false"),
        (["k=none"], "k is 'none'"),
    ],
)
def test_a_word_that_is_none(words: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid.parse(words)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"z": [1]}, "z is no option"),
        ({"k": []}, "k has no values"),
        ({"steps": [1], "pictures": [1]}, "pictures and steps are given"),
    ],
)
def test_values_that_make_no_cells(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        grid.cells(values)


# Running


def test_a_cell_in_this_process(cells: Any, tmp_path: Path) -> None:
    (cell,) = cells(k=[2], seed=[5])
    steps: list[tuple[int, int]] = []
    result = grid.run_cell(cell, tmp_path / "a", lambda *step: steps.append(step))
    assert steps == [(step, 30) for step in range(1, 31)]
    assert result == json.loads((tmp_path / "a" / "result.json").read_text())
    assert (result["step"], result["pictures"], result["resolved"]["threads"]) == (30, 60, 1)
    assert result["options"] == dataclasses.asdict(cell.options)
    assert {"test_cost", "test_mmd", "test_cwae_distance", "seconds", "data"} <= result.keys()
    again = grid.run_cell(cell, tmp_path / "a", lambda *step: pytest.fail("it is run again"))
    assert again == result


def test_cells_side_by_side(cells: Any, tmp_path: Path, assert_same_run: Any) -> None:
    """In processes of their own they give what they give here; finished ones are not run again, new ones are."""
    chosen = cells(k=[1, 4], model=["cwae", "swae"])
    events: list[tuple[str, str]] = []
    found = grid.run_cells(chosen, tmp_path / "a", jobs=2, on_event=tells(events))
    names = [cell.name for cell in chosen]
    assert list(found) == names and sorted(name for name, kind in events if kind == "done") == sorted(names)
    for cell in chosen[:2]:
        grid.run_cell(cell, tmp_path / "b" / cell.name)
        assert_same_run(tmp_path / "a" / cell.name, tmp_path / "b" / cell.name)
    mine, others = results(tmp_path / "b"), results(tmp_path / "a")
    assert all(mine[name] == others[name] for name in mine)
    events.clear()
    more = cells(k=[1, 4, 8], model=["cwae", "swae"])
    assert len(grid.run_cells(more, tmp_path / "a", jobs=2, on_event=tells(events))) == 6
    assert {name for name, kind in events} == {"k=8-model=cwae", "k=8-model=swae"}


def test_a_cell_that_fails_does_not_stop_the_others(cells: Any, tmp_path: Path) -> None:
    events: dict[str, Any] = {}
    chosen = [*cells(k=[99, 1]), Cell("dies", dataclasses.replace(cells()[0].options, data="no such file"))]
    found = grid.run_cells(
        chosen, tmp_path, jobs=1, on_event=lambda name, kind, what: events.update({name: (kind, what)})
    )
    assert list(found) == ["k=1"]
    assert events["k=99"][0] == "failed" and "k is 99" in events["k=99"][1]
    assert events["dies"][0] == "failed" and "no such file" in events["dies"][1]


def test_a_process_that_is_killed_is_a_failed_cell(cells: Any, tmp_path: Path) -> None:
    """As the system does when memory runs out. The next call goes on with the cell."""
    (cell,) = cells(steps=[5_000])
    failed: list[str] = []

    def on_event(name: str, kind: str, what: Any) -> None:
        if kind == "step":
            os.kill(int((tmp_path / "run" / ".lock").read_text()), signal.SIGKILL)
        elif kind == "failed":
            failed.append(what)

    assert grid.run_cells([cell], tmp_path, on_event=on_event) == {}
    assert failed == ["its process ended with exit code -9"]
    assert (tmp_path / "run" / "checkpoint.pt").exists() and grid.result_of(tmp_path / "run") is None


def test_a_folder_with_other_options(cells: Any, tmp_path: Path) -> None:
    (cell,) = cells()
    grid.run_cell(cell, tmp_path / cell.name)
    other = dataclasses.replace(cell, options=dataclasses.replace(cell.options, lr=0.5))
    for use in (lambda: grid.run_cells([other], tmp_path), lambda: grid.run_cell(other, tmp_path / "run")):
        with pytest.raises(ValueError, match="lr of cell run is 0.5, but .* was begun with None"):
            use()


def test_cells_of_one_name(cells: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="named alike: run"):
        grid.run_cells(cells() * 2, tmp_path)


@pytest.mark.parametrize("moments", [(1,), pytest.param((1, 3), marks=pytest.mark.long)])
def test_a_grid_that_is_killed_goes_on(
    moments: tuple[int, ...], cells: Any, pictures_file: Path, tmp_path: Path, assert_same_run: Any
) -> None:
    """At random moments, after so many checkpoints: the results and the weights are those of a grid left alone."""
    models = ["wae", "cwae"][: len(moments)]
    values = {"k": [1, 4], "model": models, "steps": [100], "evaluate_every": [50], "checkpoint_every": [10]}
    chosen = cells(**values)
    words = [
        f"{name}={','.join(map(str, several))}" for name, several in {"data": [pictures_file], **TINY, **values}.items()
    ]
    command = [sys.executable, "-m", "mow", "grid", *words, "--jobs", "2", "--out", str(tmp_path / "killed")]
    for checkpoints in moments:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and len(list((tmp_path / "killed").glob("*/checkpoint.pt"))) < checkpoints:
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.7))
        process.send_signal(signal.SIGKILL)
        _, error = process.communicate()  # whose end the workers keep open: they have died, too
        assert process.returncode in (-signal.SIGKILL, 0), error
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("*/result.json")}
    grid.run_cells(chosen, tmp_path / "killed", jobs=2)
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items()), "finished is finished"
    grid.run_cells(chosen, tmp_path / "whole", jobs=2)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    for cell in chosen:
        assert_same_run(tmp_path / "killed" / cell.name, tmp_path / "whole" / cell.name)


def test_workers_die_with_their_grid(pictures_file: Path, tmp_path: Path) -> None:
    words = [f"{name}={several[0]}" for name, several in {"data": [pictures_file], **TINY}.items() if name != "steps"]
    command = [sys.executable, "-m", "mow", "grid", *words, "steps=100000000", "--out", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (tmp_path / "run" / "checkpoint.pt").exists():
        time.sleep(0.01)
    process.kill()
    process.wait()
    with open(tmp_path / "run" / ".lock") as lock:
        for _ in range(1000):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which only its death sets free
                return
            except BlockingIOError:
                time.sleep(0.03)
    os.kill(int((tmp_path / "run" / ".lock").read_text()), signal.SIGKILL)
    pytest.fail("the worker lives on")


def test_two_grids_in_one_folder(cells: Any, tmp_path: Path, read_metrics: Any) -> None:
    """A cell that another grid is running is waited for, not run twice."""
    chosen = cells(steps=[200], log_every=[1])
    with ThreadPoolExecutor() as pool:
        one, other = pool.map(lambda _: grid.run_cells(chosen, tmp_path, jobs=1), range(2))
    assert one == other and list(one) == ["run"]
    assert [line["step"] for line in read_metrics(tmp_path / "run")] == list(range(201))


# The table


def result(cost: float, **options: Any) -> dict[str, Any]:
    resolved = dataclasses.asdict(Options(**options).resolved())
    return {"resolved": resolved, "pictures": 1000, "test_cost": cost, "test_mmd": 2 * cost}


def test_a_table_has_means_over_seeds_least_first() -> None:
    found = [
        result(value, lr=lr, seed=seed) for lr, seed, value in ((0.1, 0, 5), (0.1, 1, 7), (0.2, 0, 1), (0.2, 1, 3))
    ]
    assert grid.table(found).splitlines() == [
        "| lr | runs | pictures | cost | mmd |",
        "|---|---|---|---|---|",
        "| 0.2 | 2 | 1,000 | 2 ± 1.4 | 4 ± 2.8 |",
        "| 0.1 | 2 | 1,000 | 6 ± 1.4 | 12 ± 2.8 |",
    ]


def test_a_table_of_one_run_and_of_none() -> None:
    assert grid.table([result(5)]).splitlines()[2] == "| 1 | 1,000 | 5 | 10 |"
    assert grid.table([]).startswith("| runs | pictures |")


def test_a_table_of_runs_whose_scores_are_left_out() -> None:
    left_out = {"left_out": {"test_cost": "it is made of test_reconstruction"}}
    degenerate = {name: value for name, value in result(5, lr=0.1).items() if name != "test_cost"} | left_out
    assert grid.table([degenerate, result(3, lr=0.2)]).splitlines()[2:] == [
        "| 0.2 | 1 | 1,000 | 3 | 6 |",
        "| 0.1 | 1 | 1,000 |  | 10 |",
    ]
    assert grid.table([degenerate]).splitlines()[0] == "| runs | pictures | mmd |"


def test_a_table_by_a_score_that_nobody_has() -> None:
    with pytest.raises(ValueError, match="by is 'test_fid'; it must be one of test_cost, test_mmd"):
        grid.table([result(5)], by="test_fid")
