"""The processes of a run. Each is a group of its own that ends with its time: a fault costs what it was at, no more."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import ROOT

Row = dict[str, Any]

LOOK = 0.1
"""Seconds between two looks at a process."""


class Child:
    """A command with all that it starts, and what it says. As a context manager it leaves no process behind."""

    def __init__(self, command: Sequence[str]) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # unlike a pipe never full, and no process holds it open
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdout=self._said, stderr=subprocess.STDOUT, start_new_session=True
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._said.close()

    def status(self, wait: float = 0.0) -> int | None:
        """The exit status, or None if it still runs after so many seconds."""
        try:
            return self._process.wait(max(0.0, wait))
        except subprocess.TimeoutExpired:
            return None

    def said(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")


class Finished(NamedTuple):
    """How a command ended."""

    status: int | None
    """None: its time was up."""
    output: str


def finish(command: Sequence[str], seconds: float) -> Finished:
    """Runs a command for so many seconds at most."""
    with Child(command) as child:
        return Finished(child.status(seconds), child.said())


def rows(command: Sequence[str], seconds: float) -> Iterator[Row]:
    """The lines of JSON that a command adds to a file, whose path is its last argument, as they come.

    A line {"begins": name, "limit": seconds} announces what may take so long at most. Where the command does not end
    well, the last row is {"broke": reason}.
    """
    deadline = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, Child([*command, str(Path(folder, "rows"))]) as child:
        path, read, limit, broke = Path(folder, "rows"), 0, deadline, None
        while broke is None:
            status = child.status(LOOK)
            lines = path.read_text().split("\n")[:-1] if path.exists() else []  # the last one may be half written
            for line in lines[read:]:
                row = json.loads(line)
                limit = min(deadline, time.monotonic() + row["limit"]) if "limit" in row else deadline
                yield row
            read = len(lines)
            if status == 0:
                return
            if status is not None:
                broke = f"the process ended with {status}: {last_line(child.said())}"
            elif time.monotonic() > deadline:
                broke = "the time of its part is up"
            elif time.monotonic() > limit:
                broke = "it hangs"
        yield {"broke": broke}


def last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]
