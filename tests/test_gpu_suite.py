"""`make gpu`, rehearsed on the CPU: its first run on a GPU must not die of a slip."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import ROOT, record
from benchmarks.cases import DISTANCES, Case
from benchmarks.gpu import report, suite
from benchmarks.gpu.devices import Gpu, StandIn
from mow_kernels.registry import TABLE

BACKEND = "reference" if isinstance(TABLE["mmd"]["cpp"], str) else "cpp"


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> dict:
    """A run without compilers, which take half a minute each."""
    monkeypatch.setenv("MOW_COMMIT", "0123456789abcdef")
    jobs = [job for job in suite.plan(suite.rehearsal(), [BACKEND]) if "compile" not in job.candidate]
    monkeypatch.setattr(suite, "plan", lambda *_: jobs)
    return suite.run(StandIn(), suite.rehearsal(), [BACKEND], tell=lambda _: None)


def test_a_rehearsal(rehearsed: dict, tmp_path: Path) -> None:
    assert not rehearsed["dropped"] and suite.is_green(rehearsed), rehearsed["cases"]
    assert {row["distance"] for row in rehearsed["cases"]} == set(DISTANCES)
    assert all(row["status"] == "measured" for row in rehearsed["cases"])
    own = [row for row in rehearsed["cases"] if row["candidate"] == BACKEND]
    assert own and all(row["ok"] for row in own)
    loops = {(row["distance"], row["candidate"]) for row in rehearsed["training"] if row["status"] == "measured"}
    assert len(loops) == len(rehearsed["training"]) == 4 * len(DISTANCES)
    assert {(distance, f"{BACKEND}, graph") for distance in DISTANCES} < loops
    content = record.read(suite.write(rehearsed, tmp_path))
    assert content["commit"] == "0123456789abcdef"
    lines = list(suite.table(content))
    assert any("plain" in line and "rows" in line for line in lines) and all(len(line) < 200 for line in lines)


def test_what_there_is_no_time_for_is_named(rehearsed: dict) -> None:
    effort = suite.replace(suite.rehearsal(), seconds=0.0)
    content = suite.run(StandIn(), effort, [BACKEND], tell=lambda _: None)
    assert len(content["dropped"]) == len(rehearsed["cases"]) + len(rehearsed["training"]) and not content["cases"]
    assert "dropped" in list(suite.table(content))[-1]


def test_a_failure_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("no room")

    monkeypatch.setattr(suite, "measure", out_of_memory)
    job = suite.Job(Case("mmd", 16, 1, 8), "plain", 1.0)
    assert suite.attempt(StandIn(), suite.rehearsal(), job, {}) == {"status": "failed", "reason": "out of memory"}


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
    command = [sys.executable, "-m", "benchmarks.gpu", "run"]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "There is no GPU here" in done.stdout, done.stderr


def test_only_backends_that_can_run_take_part() -> None:
    assert suite.backends(torch.device("cpu")) == ([] if BACKEND == "reference" else ["cpp"])
    suite.probe(StandIn(), [BACKEND])
    assert Gpu.device.type == "cuda"


def test_the_page_is_made_from_the_record(tmp_path: Path) -> None:
    page = report.write_page(tmp_path / "gpu.md")
    assert page.read_text() == report.PAGE.read_text()
    rows = json.loads(report.STATIC.read_text())["rows"]
    assert {row["target"] for row in rows} == {"sm_80", "sm_90", "sm_100", "sm_120", "gfx942"}
    spilled = [row for row in rows if row["spills"] and row["target"] in ("sm_80", "sm_90")]
    assert not spilled
