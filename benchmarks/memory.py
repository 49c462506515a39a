"""Peak memory, a fresh process a candidate, measured from outside (and from inside as well).

Outside: the peak resident set that the system reports when the process has ended, less that of a process that builds
the same inputs and ends; what the call itself loads (torch.compile: a compiler) counts. Inside: the peak of a second,
warm call above the resident set before it.

This module is also the launcher of those processes, and imports no torch: a child's peak begins at its parent's.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT

SECONDS = 45
"""A process that takes longer is stopped."""
SHARE = 0.7
"""Of the memory that is available, what one process may allocate."""
INPUTS = "inputs"
"""The process that builds the inputs only."""


def measure(case: str, names: list[str]) -> Iterator[dict[str, Any]]:
    """Results of one case by name, candidate by candidate: `peak_mib`, `extra_mib`, `inside_mib` or a `reason`."""
    command = [sys.executable, "-m", "benchmarks.memory", case, *names]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        for line in launcher.stdout:
            yield json.loads(line)
    if launcher.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {launcher.returncode}")


def _launch(case: str, names: list[str]) -> None:
    floor = _run(case, INPUTS)["peak_mib"]
    for name in names:
        result = _run(case, name)
        figures = {**result, "extra_mib": result["peak_mib"] - floor}
        rounded = {key: round(value, 1) if isinstance(value, float) else value for key, value in figures.items()}
        print(json.dumps({"name": name, **rounded}), flush=True)


def _run(case: str, name: str) -> dict[str, Any]:
    """One candidate (or `INPUTS`) in a process of its own."""
    result = peak([sys.executable, "-W", "ignore", "-m", "benchmarks.memory", "--probe", case, name])
    last = result.pop("last_line")
    return result if "reason" in result else {**result, **json.loads(last)}


def peak(command: Sequence[str], seconds: float = SECONDS) -> dict[str, Any]:
    """Run a command: its `peak_mib`, its `last_line`, and the `reason` where it fails or takes longer than allowed."""
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        stop = threading.Timer(seconds, process.kill)
        stop.start()
        lines = process.stdout.read().strip().splitlines()  # type: ignore[union-attr]  # it is a pipe
        _, status, usage = os.wait4(process.pid, 0)
        timed_out = not stop.is_alive()
        stop.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    result = {
        "peak_mib": usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024**2),
        "last_line": lines[-1] if lines else "",
    }
    if timed_out:
        result["reason"] = f"stopped after {seconds:g} s"
    elif process.returncode:
        result["reason"] = result["last_line"] or f"ended with {process.returncode}"
    return result


def _probe(case_name: str, name: str) -> None:
    """Build the inputs, and call the candidate twice, unless it is `INPUTS`."""
    limit = int(SHARE * _available())
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    from benchmarks import candidates, cases, timing

    case = next(case for case in cases.MEMORY if case.name == case_name)
    given = cases.inputs(case)
    found: dict[str, Any] = {}
    if name == INPUTS:
        print(json.dumps(found))
        return
    candidate = candidates.named(case, name)
    call, _ = candidate.calls(case, given)
    try:
        with timing.Entrant(name, call, candidate.backend).setting():
            started = time.perf_counter()
            call()
            if time.perf_counter() - started < SECONDS / 3:
                found["inside_mib"] = peak_of(call)
    except RuntimeError as error:
        if "allocate memory" not in str(error):
            raise
        found["reason"] = f"wants more than {limit / 1024**3:.0f} GiB"
    print(json.dumps(found))


def peak_of(call: Callable[[], object]) -> float | None:
    """MiB that a call adds to the resident set at its peak, what it returns included; None where the system does not
    say."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # give back what the call before has left, or it would go unseen
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    except (OSError, AttributeError):
        return None
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    """A field of /proc/self/status, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def _available() -> int:
    """Bytes of memory that a process can have without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except OSError:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probe", action="store_true")
    parser.add_argument("case")
    parser.add_argument("names", nargs="+")
    arguments = parser.parse_args()
    if arguments.probe:
        _probe(arguments.case, *arguments.names)
    else:
        _launch(arguments.case, arguments.names)


if __name__ == "__main__":
    main()
