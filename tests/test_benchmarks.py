"""The benchmarks' own code: the naive distances are right, the records are whole, the tables say what was measured."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import mow_kernels as mk
from benchmarks import ROOT, against, cases, floors, naive, plots, record, report, runner
from benchmarks.cases import Candidate, Case
from benchmarks.timing import Effort, Entrant
from benchmarks.windows import Window

BRIEF = Effort(rounds=(2, 2), seconds=0.0, sample_seconds=1e-5)
OPTIONS = {"mmd": {}, "cramer_wold": {"phi": "asymptotic"}, "sliced_wasserstein": {}}


def both(function, given, *changes):
    """Value and gradient for current."""
    value = function(*given.arguments({}), *changes)
    return value, torch.autograd.grad(value, given.current)[0]


@pytest.mark.parametrize("distance", cases.DISTANCES)
@pytest.mark.parametrize(("n", "k", "dim"), [(6, 1, 5), (64, 1, 20), (40, 7, 20), (12, 12, 3)])
def test_naive_equals_the_reference(reference, distance: str, n: int, k: int, dim: int) -> None:
    given = cases.inputs(Case(distance, n, k, dim, dtype="float64"))
    value, gradient = both(cases.library(distance, OPTIONS[distance]), given)
    naive_value, naive_gradient = both(getattr(naive, distance), given)
    _, rows_gradient = both(getattr(naive, f"{distance}_rows"), given)
    torch.testing.assert_close(naive_value, value, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(naive_gradient, gradient, rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(rows_gradient, gradient, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("distance", ["mmd", "cramer_wold"])
def test_rows_only_differ_by_a_constant(distance: str) -> None:
    first = cases.inputs(Case(distance, 20, 5, 8, dtype="float64"))
    differences = []
    for given in (first, first._replace(current=3 * first.current + 1)):
        arguments = given.arguments({})
        differences.append(getattr(naive, distance)(*arguments) - getattr(naive, f"{distance}_rows")(*arguments))
    torch.testing.assert_close(*differences)


@pytest.mark.parametrize("case", [*cases.MAIN, Case("mmd", 5, 1, 7)], ids=lambda case: case.name)
def test_the_product_has_the_multiply_adds_of_the_case(case: Case) -> None:
    product = floors.matrix_product(case.dots, 1, torch.float32)()
    assert case.dots <= product.numel() <= 1.01 * case.dots + case.n


def test_the_empty_function_has_a_gradient() -> None:
    current = torch.ones(1, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(floors.Empty.apply(current), current)
    assert gradient.shape == current.shape


def test_every_job_has_a_name_and_the_names_of_the_cases_differ() -> None:
    names = [case.name for case in (*cases.FULL, *cases.MEMORY)]
    assert len(set(names)) == len(names)
    assert {job.section for job in runner.plan()} == {job.section for job in runner.plan(quick=True)}
    assert {job.name for job in runner.plan(patterns=["step-*-sgd"])} == {"step-mmd-sgd", "step-cw-sgd", "step-sw-sgd"}
    with pytest.raises(ValueError, match="cases is 'nothing'"):
        runner.plan(patterns=["nothing"])


SMALL = [Case(name, 16, 1, 8, ("main", "scaling"), options=OPTIONS[name]) for name in cases.DISTANCES]
TAKING_PART = ("cpp", "cpp-gradient", "reference", "plain", "rows", "empty", "product")


@pytest.fixture(scope="module")
def measured() -> dict:
    """A record of small cases, without what takes time: compilers, training steps, processes."""
    entries = [runner.measure(case, 1, BRIEF, TAKING_PART) for case in SMALL]
    over = [runner.measure_window(Window("mmd", n, 1), 1, BRIEF, ("running", "direct", "plain")) for n in (128, 256)]
    for entry in over:
        for row in entry["candidates"]:
            row["peak_mib"] = float(entry["n"])  # what so small windows take may lie in memory that was there before
    empty: dict = {"steps": [], "memory": [], "failed": []}
    return {**record.head("python -m benchmarks run", 0), "cases": entries, "windows": over, **empty}


def rows(content: dict, name: str) -> list[dict]:
    return [row for entry in content["cases"] for row in entry["candidates"] if row["name"] == name]


def test_a_record_says_what_was_measured(measured: dict) -> None:
    assert measured["machine"].keys() == {"cpu", "cores", "memory_gib", "instructions", "system"}
    assert {"created", "command", "seed", "commit", "dirty", "versions", "schema"} <= measured.keys()
    for case, entry in zip(SMALL, measured["cases"], strict=True):
        assert case.describe().items() <= entry.items()
        assert {"threads", "load_before", "load_after"} <= entry.keys()
    for row in rows(measured, "reference"):
        assert row["match"]["ok"] and set(row["match"]["errors"]) == {"value", "gradient"}
        assert row["speedup"].keys() == {"plain", "rows"} and row["cost"].keys() == {"empty", "product"}
        assert len(row["rounds_us"]) == 2 and 0 < row["us"]["p20"] <= row["us"]["median"] <= row["us"]["p80"]
    for row in rows(measured, "rows") + rows(measured, "cpp-gradient"):
        assert row["match"]["ok"] and set(row["match"]["errors"]) == {"gradient"}


def test_threads_and_backend_are_as_before(measured: dict) -> None:
    def state() -> tuple:
        return torch.get_num_threads(), mk.explain(mk.mmd, torch.ones(2, 2)), torch.is_grad_enabled()

    before = state()
    runner.measure(replace(SMALL[0], what="fwd"), before[0] + 1, BRIEF, ("reference", "product"))
    assert state() == before
    with Entrant("one", list, threads=before[0] + 1, backend="reference", gradients=False).setting():
        assert state() != before
    assert state() == before


def test_a_wrong_result_has_no_speed_up_and_a_failure_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of luck\nmore")

    wrong = Candidate("wrong", "wrong", lambda *a: 1.01 * naive.mmd(*a))
    broken = Candidate("broken", "broken", fail)
    lost = Candidate("lost", "lost", lambda *a: float("nan") * naive.mmd(*a))
    right = Candidate("plain", "plain", naive.mmd)
    monkeypatch.setattr(runner, "candidates", lambda case: [right, wrong, lost, broken])
    plain, off, nan, failed = runner.measure(SMALL[0], 1, BRIEF)["candidates"]
    assert plain["match"]["ok"] and plain["speedup"] == {}  # against the wrong one
    assert off["status"] == "measured" and not off["match"]["ok"] and off["speedup"] == {}
    assert nan["match"] == {"errors": {"value": 1e9, "gradient": 1e9}, "ok": False}
    assert failed["status"] == "failed" and failed["reason"] == "RuntimeError: out of luck"


def test_records_are_never_overwritten(measured: dict, tmp_path) -> None:
    first, second = record.write(measured, tmp_path), record.write({**measured, "seed": 1}, tmp_path)
    assert first != second and [record.read(path)["seed"] for path in (first, second)] == [0, 1]
    assert sorted(tmp_path.iterdir()) == sorted([first, second])
    assert first.name.startswith(measured["created"][:10])
    later = record.write({**measured, "created": "9999-01-01T00:00:00+00:00"}, tmp_path)
    assert record.newest(tmp_path) == later
    with pytest.raises(ValueError, match="dumps|serializable|JSON"):
        record.write({**measured, "seed": float("nan")}, tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(ValueError, match="not a result"):
        record.read(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match="python -m benchmarks run"):
        record.newest(tmp_path / "nowhere")


def test_the_report_is_made_from_the_record(measured: dict, tmp_path) -> None:
    source = record.write(measured, tmp_path)
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- benchmarks:start -->\nstale table\n<!-- benchmarks:end -->\nafter\n")
    written = report.write_report(source, tmp_path / "docs", readme)
    page, text = (tmp_path / "docs" / "benchmarks.md").read_text(), readme.read_text()
    assert source.name in page and measured["machine"]["cpu"] in page and measured["command"] in page
    assert text.startswith("before\n") and text.endswith("after\n") and "stale" not in text
    assert page.count("Cramer-Wold, n = 16, k = 1, D = 8, normal prior") == 3  # the main table, and twice in full
    assert written == [  # one size of the cases is no curve
        tmp_path / "docs" / "images" / "bench_window.svg",
        tmp_path / "docs" / "images" / "bench_window_memory.svg",
        tmp_path / "docs" / "benchmarks.md",
        readme,
    ]
    for n in (128, 256):
        assert f"| MMD, n = {n}, k = 1 | " in page
    report.write_report(source, tmp_path / "docs", readme)
    assert readme.read_text() == text


def test_the_tables_hold_losses_and_hide_wrong_results(measured: dict) -> None:
    content = copy.deepcopy(measured)
    entry = content["cases"][0]
    ours = next(row for row in entry["candidates"] if row["name"] == "cpp")
    figures = {"median": 0.4321, "p20": 0.4, "p80": 0.6}
    ours |= {
        "status": "measured",
        "us": {"median": 31.25, "p20": 30.0, "p80": 1500.0},
        "speedup": {"plain": figures},
        "cost": {"empty": {"median": 1.5, "p20": 1.4, "p80": 1.6}},
        "match": {"ok": True, "errors": {"value": 1e-7}},
    }
    alone = next(row for row in entry["candidates"] if row["name"] == "cpp-gradient")
    alone["speedup"]["rows"] = {"median": 7.25, "p20": 7.1, "p80": 7.5}
    line = next(line for line in report.page(content, "x.json").splitlines() if "31.2 µs (30 µs – 1.5 ms)" in line)
    assert line.count("7.25× (7.1 – 7.5)") == 1
    assert "0.432× (0.4 – 0.6)" in line and "1.5× (1.4 – 1.6) an empty autograd call" in line
    ours |= {"match": {"ok": False, "errors": {"value": 0.1}}, "speedup": {}}
    page = report.page(content, "x.json")
    assert "**no** (value 1e-01)" in page and "0.432× (0.4 – 0.6)" not in page
    ours |= {"status": "missing", "reason": "not built"}
    assert "| not built |" in report.summary(content)


def test_curves_need_two_sizes(measured: dict, tmp_path) -> None:
    entries = [{**entry, "n": n, "dim": 64} for entry in measured["cases"] for n in (16, 64)]
    written = report.write_report(record.write({**measured, "cases": entries}, tmp_path), tmp_path)
    assert [path.name for path in written] == [
        "bench_n.svg",
        "bench_window.svg",
        "bench_window_memory.svg",
        "benchmarks.md",
    ]
    assert "images/bench_n.svg" in (tmp_path / "benchmarks.md").read_text()
    assert plots.scaling([entry for entry in entries if entry["n"] == 64], "n") is None


def test_a_readme_without_markers_is_left_alone(measured: dict, tmp_path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text := "<!-- benchmarks:end --><!-- benchmarks:start -->")
    with pytest.raises(ValueError, match="markers"):
        report.write_report(record.write(measured, tmp_path), tmp_path / "docs", readme)
    assert readme.read_text() == text and not (tmp_path / "docs").exists()


def test_memory_is_seen_from_outside() -> None:
    hold = "x = bytearray({} * 2**20); print('held')"
    codes = [hold.format(50), hold.format(150), "raise SystemExit('no luck')", "import time; time.sleep(9)"]
    launcher = (  # small: the peak of a child begins at its parent's
        "import json, sys; from benchmarks import memory\n"
        "print(json.dumps([memory.peak([sys.executable, '-c', code], 1.0 if 'sleep' in code else 60.0)\n"
        "    for code in json.loads(sys.argv[1])]))"
    )
    command = [sys.executable, "-c", launcher, json.dumps(codes)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    small, large, failed, slow = json.loads(done.stdout)
    assert 99 < large["peak_mib"] - small["peak_mib"] < 101.5
    assert large["last_line"] == "held" and "reason" not in large
    assert failed["reason"] == "no luck" and slow["reason"] == "stopped after 1 s"


def test_a_call_is_timed_in_the_process_of_its_checkout(tmp_path: Path) -> None:
    questions = [against.Case(op, 8, 2, 3, sample) for op in OPTIONS for sample in (False, True)]
    questions.append(against.Case("no_distance", 8, 2, 3, False))
    answers = io.StringIO()
    against.serve(io.StringIO("\n".join(json.dumps([*case, 0.0]) for case in questions)), answers)
    *seconds, failed = answers.getvalue().splitlines()
    assert len(seconds) == 6 and all(0 < float(each) < 60 for each in seconds)
    assert failed.startswith("AttributeError") and "no_distance" in failed
    with pytest.raises(ValueError, match="holds no mow_kernels"):
        next(against.measure(ROOT, tmp_path))


def test_the_ratios_of_a_checkout_to_another() -> None:
    case = against.Case("mmd", 64, 1, 20, False)
    assert against.line(case, [0.5, 1.0, 2.0, 1.0, 1.5]) == [
        "mmd, n = 64, k = 1, D = 20, to N(0, I)", "1.00", "0.90", "1.60",
    ]  # fmt: skip
    assert against.line(case._replace(sample=True), [0.5])[1:] == ["0.50"] * 3
    assert against.line(case._replace(sample=True), [0.5])[0].endswith("to a sample")


@pytest.mark.long
def test_a_checkout_is_as_fast_as_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The figure is for who reads it; here, that both sides are timed and the broken one is named."""
    monkeypatch.setattr(against, "CASES", against.CASES[:1])
    ((case, ratios),) = against.measure(ROOT, ROOT, rounds=3, seconds=0.0)
    assert case == against.CASES[0] and len(ratios) == 3 and min(ratios) > 0
    (tmp_path / "mow_kernels").mkdir()
    (tmp_path / "mow_kernels" / "__init__.py").write_text("raise RuntimeError('broken on purpose')\n")
    with pytest.raises(ValueError, match=f"{tmp_path} cannot run mmd: RuntimeError: broken on purpose"):
        next(against.measure(ROOT, tmp_path, rounds=1, seconds=0.0))
