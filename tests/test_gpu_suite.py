"""`make gpu`, rehearsed on the CPU: its first run on a GPU must not die of a slip."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import ROOT, record
from benchmarks.cases import DISTANCES, Case
from benchmarks.gpu import children, report, suite
from benchmarks.gpu.__main__ import app
from benchmarks.gpu.devices import Gpu, StandIn
from mow_kernels.registry import BACKENDS, TABLE

BACKEND = "reference" if isinstance(TABLE["mmd"]["cpp"], str) else "cpp"


def command(name: str, seconds: float) -> list[str]:
    """A part of a rehearsal, as the command line starts it."""
    return [sys.executable, "-m", "benchmarks.gpu", "part", f"--rehearse={BACKEND}", name, str(seconds)]


def run(effort: suite.Effort, command: Any = command) -> tuple[dict, list[dict]]:
    """The record of a run without compilers, which take half a minute each, and every state in which it was kept."""
    kept: list[dict] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOW_COMMIT", "0123456789abcdef")
        few = {name: jobs for name, jobs in suite.parts(effort, [BACKEND]).items() if name != "compile"}
        patch.setattr(suite, "parts", lambda *_: dict(few))
        write = lambda content: kept.append(json.loads(json.dumps(content)))  # noqa: E731
        return suite.run(StandIn(), effort, [BACKEND], command, write, tell=lambda _: None), kept


@pytest.fixture(scope="module")
def rehearsal() -> tuple[dict, list[dict]]:
    return run(suite.rehearsal())


def test_a_rehearsal(rehearsal: tuple[dict, list[dict]], tmp_path: Path) -> None:
    content, _ = rehearsal
    assert not content["dropped"] and suite.is_green(content), content["cases"]
    assert {row["distance"] for row in content["cases"]} == set(DISTANCES)
    assert all(row["status"] == "measured" for row in content["cases"])
    own = [row for row in content["cases"] if row["candidate"] == BACKEND]
    assert own and all(row["ok"] and row["share"] > 0 for row in own)
    kept = [row for row in content["cases"] if row["candidate"] in (f"{BACKEND}, {how}" for how in suite.KEPT)]
    assert len(kept) == (0 if BACKEND == "reference" else 2 * len(DISTANCES)) and all(row["ok"] for row in kept)
    loops = {(row["distance"], row["candidate"]) for row in content["training"] if row["status"] == "measured"}
    assert len(loops) == len(content["training"]) == 4 * len(DISTANCES)
    assert {(distance, f"{BACKEND}, graph") for distance in DISTANCES} < loops
    content = record.read(record.write(content, tmp_path))
    assert content["commit"] == "0123456789abcdef"
    lines = list(suite.table(content))
    assert any("plain" in line and "rows" in line for line in lines) and all(len(line) < 200 for line in lines)


def test_the_record_is_written_after_every_job(rehearsal: tuple[dict, list[dict]]) -> None:
    content, kept = rehearsal
    counts = [len(state["cases"]) + len(state["training"]) for state in kept]
    assert set(range(counts[-1] + 1)) == set(counts) and counts[-1] > 50
    assert list(suite.table(kept[1])), "also a record that breaks off has its table"
    assert kept[1]["cases"] == [] or kept[1]["cases"][0]["candidate"] == BACKEND


def test_what_there_is_no_time_for_is_named(rehearsal: tuple[dict, list[dict]]) -> None:
    jobs = [job for name, part in suite.parts(suite.Effort(), [BACKEND]).items() for job in part]
    dropped = list(suite.outcomes(jobs, iter({"dropped": job.name} for job in jobs)))
    assert dropped == [(job, None) for job in jobs]
    assert all("dropped" in row for row in suite.work(StandIn(), suite.rehearsal(), jobs, 0.0))
    lines = list(suite.table({**rehearsal[0], "dropped": [job.name for job in jobs]}))
    assert f"dropped for want of time: {len(jobs)}" in lines[-1]


def test_a_failure_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(suite, "measure", out_of_memory)
    job = suite.Job(Case("mmd", 16, 1, 8), "plain", 1.0)
    assert suite.attempt(StandIn(), suite.rehearsal(), job) == {"status": "failed", "reason": "out of memory"}


# Faults


def script(text: str) -> list[str]:
    """A process that writes rows: its last argument is their file. `say` adds one."""
    say = "import json, os, sys, time\ndef say(**row):\n    print(json.dumps(row), file=open(sys.argv[-1], 'a'))\n"
    return [sys.executable, "-c", say + text]


@pytest.mark.parametrize("capable", [True, False])
def test_products_on_tensor_cores_are_measured_beside_the_others(
    capable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process with the variable that switches them on, at every size that has them."""
    monkeypatch.setattr(suite, "has_warpgroups", lambda: capable)
    parts = suite.parts(suite.Effort(), ["cuda", "triton"])
    assert ("cuda by warpgroups" in parts) is capable
    for candidate in [name for name in suite.FORMS if name in parts]:
        backend = candidate.split()[0]
        assert list(suite.variables(candidate)) == [f"MOW_{backend.upper()}_PRODUCT"] and suite.variables(backend) == {}
        cases, plain = ([job.case for job in parts[name] if hasattr(job, "case")] for name in (candidate, backend))
        assert {(case.distance, case.n, case.k, case.dim) for case in cases[:2]} == {
            (distance, 4096, 64, 64) for distance in suite.PAIRS
        }
        assert all(case in plain and case.n > 64 for case in cases) and len(cases) == 38


def test_products_on_tensor_cores_are_tested_and_probed(monkeypatch: pytest.MonkeyPatch) -> None:
    """By every sanitizer and against float64, in an environment that has small windows take them as well."""
    commands: list[list[str]] = []
    monkeypatch.setattr(suite, "has_warpgroups", lambda: True)
    monkeypatch.setattr(suite.shutil, "which", lambda *_, **__: "compute-sanitizer")
    monkeypatch.setattr(
        children, "finish", lambda command, _: commands.append(list(command)) or children.Finished(0, "")
    )
    done = {(group, name) for group, name, _ in suite.checks(["cuda", "triton"], 5.0)}
    for form, variables in suite.FORMS.items():
        assert {("sanitizer", f"{tool}, {form}") for tool in suite.SANITIZERS} < done
        assert {("tests", f"{form} pairs-mmd"), ("tests", f"{form} pairs-cramer-wold")} < done
        given = ["env", *(f"{name}={value}" for name, value in variables.items()), "MOW_CUDA_SINGLE=0"]
        of_this = [command for command in commands if command[: len(given)] == given]
        assert len(of_this) == len(suite.SANITIZERS) + 2
        assert [command[-2:] == ["probe", form] for command in of_this].count(True) == len(suite.SANITIZERS)
    monkeypatch.setitem(suite.FORMS, form := f"{BACKEND} on tensor cores", {})
    suite.probe(StandIn(), [BACKEND], form)


@pytest.mark.parametrize(
    "fault, reason",
    [
        ("time.sleep(60)", "it hangs (in b)"),
        ("os.abort()", "the process ended with -6:  (in b)"),
        ("raise RuntimeError('CUDA error: an illegal memory access')", "illegal memory access (in b)"),
        ("sys.exit(3)", "the process ended with 3:  (in b)"),
    ],
)
def test_a_fault_costs_its_own_part(fault: str, reason: str) -> None:
    """What was measured before it stands; the next part runs."""
    text = f"say(begins='a', limit=9); say(job='a', us=1); say(begins='b', limit=0.5)\n{fault}"
    jobs = [SimpleNamespace(name=name) for name in "abc"]
    (_, first), *failed = suite.outcomes(jobs, children.rows(script(text), 20.0))
    assert first == {"us": 1}
    assert [(job.name, row["status"]) for job, row in failed] == [("b", "failed"), ("c", "failed")]
    assert all(row["reason"].endswith(reason) for _, row in failed), failed


def test_a_broken_part_is_not_green_and_the_others_are_measured(rehearsal: tuple[dict, list[dict]]) -> None:
    """The others repeat what the rehearsal has measured."""
    effort = suite.rehearsal()
    measured = iter((*rehearsal[0]["cases"], *rehearsal[0]["training"]))
    rows = {f"{row.get('name', 'training-' + row['distance'])} {row['candidate']}": row for row in measured}

    def broken(name: str, seconds: float) -> list[str]:
        if name == BACKEND:
            return script("os.abort()")
        jobs = suite.parts(effort, [BACKEND]).get(name, ())
        return script(f"for row in {[{**rows[job.name], 'job': job.name} for job in jobs]!r}: say(**row)")

    content, _ = run(effort, broken)
    candidates = {row["candidate"]: row["status"] for row in content["cases"]}
    assert candidates[BACKEND] == "failed" and candidates["plain"] == candidates["rows"] == "measured"
    assert not suite.is_green(content) and list(suite.table(content))


def test_a_device_that_does_not_come_back_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sticky error: no further job is begun."""

    def lost(machine: StandIn) -> None:
        raise RuntimeError("CUDA error: device-side assert")

    monkeypatch.setattr(StandIn, "check", lost)
    jobs = [suite.Job(Case("mmd", 16, 1, 8), "plain", 1.0)] * 2
    rows = []
    with pytest.raises(RuntimeError, match="device-side assert"):
        rows.extend(suite.work(StandIn(), suite.rehearsal(), jobs, 60.0))
    # Seen one by one, as the process writes them.
    done = suite.work(StandIn(), suite.rehearsal(), jobs, 60.0)
    assert next(done)["begins"] == next(done)["job"] == jobs[0].name


def test_a_part_ends_with_its_time() -> None:
    rows = list(children.rows(script("say(begins='a', limit=60)\ntime.sleep(60)"), 1.0))
    assert rows[1:] == [{"broke": "the time of its part is up"}]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to look for processes")
def test_no_process_is_left_behind(tmp_path: Path) -> None:
    """Not even one that a process has started and that holds its output open."""
    text = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\ntime.sleep(60)"
    )
    began = time.monotonic()
    assert children.finish([sys.executable, "-c", text], 2.0).status is None and time.monotonic() - began < 20
    assert gone(int((tmp_path / "pid").read_text()))


def test_a_rehearsal_by_no_backend_writes_nothing(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["run", "--rehearse", "--help", f"--out={tmp_path}"])
    assert done.exit_code == 2 and "is '--help'; it must be one of" in done.output and not any(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux to look for processes")
def test_a_killed_run_leaves_its_record_and_no_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "run", f"--rehearse={BACKEND}", f"--out={tmp_path}"]
    with children.Child(command) as child:
        path = None
        while path is None or not record.read(path)["cases"]:
            assert child.status(0.1) is None, child.said()
            path = next(tmp_path.glob("*.json"), None)
        parts = [int(pid) for task in tasks(child.pid) for pid in task.read_text().split()]
        assert parts
        os.kill(child.pid, signal.SIGTERM)
        assert child.status(20.0) == 143, child.said()
    content = record.read(path)
    assert content["cases"][0]["candidate"] == BACKEND and list(suite.table(content))
    assert all(gone(pid) for pid in parts)


def tasks(pid: int) -> Iterator[Path]:
    """Where Linux lists the children of a process."""
    return Path(f"/proc/{pid}/task").glob("*/children")


def gone(pid: int) -> bool:
    """Whether a process ends within five seconds."""
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    "does, word, green",
    [
        ("exit 0", "no errors", True),
        ("echo '========= ERROR SUMMARY: 2 errors'; exit 9", "failed: ========= ERROR SUMMARY: 2 errors", False),
        ("echo '========= Error: Device not supported'; exit 1", "unavailable: ========= Error: Device not supp", True),
        ("echo 'ValueError: the probe'; exit 1", "failed: ValueError: the probe", False),
        ("sleep 60 & sleep 60", "unfinished", False),
    ],
)
def test_the_word_of_a_sanitizer(
    does: str, word: str, green: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "compute-sanitizer"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    said = suite.sanitizer("memcheck", time.monotonic() + (1.0 if word == "unfinished" else 20.0))
    assert said.startswith(word)
    content: dict = {"tests": {}, "backends": [], "cases": [], "training": [], "sanitizer": {"memcheck": said}}
    assert suite.is_green(content) is green


def test_the_time_counts_from_the_beginning_of_the_build() -> None:
    recipe = (ROOT / "Makefile").read_text().split("\ngpu:\n")[1].split("\n\n")[0]
    assert recipe.index("since=$$(date +%s)") < recipe.index("timeout 240") < recipe.index("run --since $$since")
    assert suite.Effort().seconds + suite.PATIENCE / 3 <= 480


def test_wrong_results_and_failed_tests_are_not_green() -> None:
    good = {"candidate": BACKEND, "status": "measured", "ok": True}
    content = {"tests": {"pairs": {"passed": 3, "failed": 0}}, "backends": [BACKEND], "training": [good]}
    content["sanitizer"] = {"memcheck": "unavailable", "racecheck": "no errors"}
    assert suite.is_green({**content, "cases": [good]})
    assert not suite.is_green({**content, "cases": [{**good, "ok": False}]})
    assert not suite.is_green({**content, "cases": [good], "tests": {"pairs": {"unfinished": ""}}})
    assert not suite.is_green({**content, "cases": [good], "tests": {"pairs": {"passed": 3, "failed": 1}}})
    assert not suite.is_green({**content, "cases": [good], "training": [{**good, "ok": False}]})
    assert not suite.is_green({**content, "cases": [good], "sanitizer": {"racecheck": "failed: 1 hazard"}})


def test_the_important_jobs_come_first() -> None:
    names = [job.name for job in suite.plan(suite.Effort(), ["triton"])]
    assert len(set(names)) == len(names)
    assert names[0] == "mmd-n64-k1 triton"
    assert names.index("mmd-n65536-k64 triton") < names.index("mmd-n64-k1 compile") < names.index("mmd-n1024-k1 triton")


def test_junit_reports_are_counted(tmp_path: Path) -> None:
    report_ = tmp_path / "report.xml"
    report_.write_text(
        '<testsuites><testsuite tests="4" failures="1" errors="1" skipped="1"><testcase name="a"/>'
        '<testcase name="b"><failure/></testcase><testcase name="c"><error/></testcase></testsuite></testsuites>'
    )
    assert suite._counts(report_) == {"passed": 1, "failed": 2, "skipped": 1, "first_failure": "b"}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so() -> None:
    done = CliRunner().invoke(app, ["run"])
    assert done.exit_code == 1 and "There is no GPU here" in done.output


def test_only_backends_that_can_run_take_part() -> None:
    assert suite.backends(torch.device("cpu")) == ([] if BACKEND == "reference" else ["cpp"])
    suite.probe(StandIn(), [BACKEND])
    assert Gpu.device.type == "cuda"


def test_the_order_of_the_backends_is_what_the_newest_record_says() -> None:
    def rows(name: str, **us: float) -> list[dict]:
        return [{"name": name, "candidate": who, "status": "measured", "us": time} for who, time in us.items()]

    def ordered(*cases: dict) -> list[str]:
        return report.order({"backends": ["cuda", "triton"], "cases": list(cases)})

    small, large = rows("small", cuda=2.0, triton=5.0, plain=1.0), rows("large", cuda=300.0, triton=100.0)
    assert ordered(*small) == ordered() == ["cuda", "triton"]
    assert ordered(*small, *large) == ["triton", "cuda"]
    assert ordered(*small, *rows("huge", triton=1.0)) == ["cuda", "triton"], "what one of them has not measured"
    assert ordered(*small, *({**row, "ok": False} for row in large)) == ["cuda", "triton"], "wrong results"
    for path in report.runs()[-1:]:
        content = record.read(path)
        assert [name for name in BACKENDS if name in content["backends"]] == report.order(content)


def test_products_on_tensor_cores_are_published_where_they_pay() -> None:
    def rows(n: int, **us: float) -> list[dict]:
        names = {"plain": "cuda", "warp": "cuda on tensor cores", "group": suite.BY_WARPGROUPS, "other": "triton"}
        case = {"name": f"mmd-n{n}", "distance": "mmd", "n": n, "m": n, "status": "measured"}
        return [{**case, "candidate": names[who], "us": time} for who, time in us.items()]

    def pays(*cases: dict) -> dict:
        return report.products({"backends": ["cuda"], "cases": list(cases)})

    small, large = rows(1024, plain=10, warp=11, group=9, other=5), rows(4096, plain=90, warp=40, group=30, other=5)
    assert pays(*small, *large) == {"cuda": ("cuda by warpgroups", 2048)}
    assert pays(*small, *large[:2]) == {"cuda": ("cuda on tensor cores", 8192)}
    assert pays(*small, *large[:2], *rows(16384, plain=9, warp=10)) == pays() == {}, "it has to win at all larger sizes"
    assert pays(*large, {**small[2], "us": 1, "ok": False}, small[0]) == {"cuda": ("cuda by warpgroups", 8192)}, (
        "wrong results"
    )
    assert pays(*large[1:]) == {}, "beside nothing"
    slow = rows(4096, plain=90, warp=40, group=50)
    assert pays(*slow) == {"cuda": ("cuda on tensor cores", 8192)}, "the better one"
    shown = report.published({"backends": ["cuda"], "cases": [*small, *slow]})["cases"]
    candidates = [(row["n"], row["candidate"]) for row in shown]
    on_tensor_cores = [found for found in candidates if found[1] in suite.FORMS]
    assert on_tensor_cores == [(4096, "cuda on tensor cores")] and len(candidates) == 4
    for path in report.runs()[-1:]:
        assert report.products(record.read(path)) == {}, "they pay: the backends should take them from there on"


def test_the_page_is_made_from_the_record(tmp_path: Path) -> None:
    page = report.write_page(tmp_path / "gpu.md")
    assert page.read_text() == report.PAGE.read_text()
    rows = json.loads(report.STATIC.read_text())["rows"]
    assert {row["target"] for row in rows} == {"sm_80", "sm_90", "sm_100", "sm_120", "gfx942"}
    spilled = [row for row in rows if row["spills"] and row["target"] in ("sm_80", "sm_90")]
    assert not spilled
