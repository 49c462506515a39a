"""The files of results: what they were measured on, and how they are written."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

import mow_kernels
from benchmarks import ROOT
from mow.files import write_whole

RESULTS = ROOT / "benchmarks" / "results"
SCHEMA = 1

_PACKAGES = ("mow-kernels", "torch", "numpy", "POT", "geomloss", "pykeops")


def head(command: str, seed: int) -> dict[str, Any]:
    """What the figures depend on besides the code of a candidate. No host name."""
    return {
        "schema": SCHEMA,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
        "seed": seed,
        "commit": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", ":(exclude)**/results/**")),  # results measure nothing
        "machine": machine(),
        "versions": versions(),
    }


def machine() -> dict[str, Any]:
    """Processor, cores that this process may use, memory and system."""
    return {
        "cpu": _processor(),
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1024**3, 1),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions() -> dict[str, str | None]:
    """Python's, and those of the packages; None for what is not installed."""
    found = {"python": platform.python_version(), **{package: version(package) for package in _PACKAGES}}
    return found | {"mow-kernels": mow_kernels.__version__}  # also where it runs from the source tree


def version(package: str) -> str | None:
    """Of an installed package; None for what is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def short(value: float) -> float:
    """The four digits of a figure that a record keeps."""
    return float(f"{value:.4g}")


def reason(error: Exception) -> str:
    """What a record keeps of an error: its kind and the first line of what it says."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"


def write(content: dict[str, Any], folder: Path = RESULTS) -> Path:
    """A run in a new file, which no other overwrites.

    It is named by date, machine and commit; a number tells apart what would have the same name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    commit = (content["commit"] or "no-commit")[:7] + "-dirty" * content["dirty"]
    stem = f"{content['created'][:10]}-{_slug(content['machine']['cpu'])}-{commit}"
    descriptor, partial = tempfile.mkstemp(dir=folder, prefix=".", suffix=".part")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text(content))
        os.chmod(partial, 0o644)
        for number in range(1, 1000):
            path = folder / (f"{stem}.json" if number == 1 else f"{stem}-{number}.json")
            try:
                os.link(partial, path)  # unlike a rename, fails where a file is
                return path
            except FileExistsError:
                continue
        raise FileExistsError(f"{folder} holds 999 runs named {stem}")
    finally:
        os.unlink(partial)


def keep(path: Path, content: dict[str, Any]) -> Path:
    """The newest result of a study, in place of the one before it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(path, json.dumps(content, indent=1) + "\n")


def newest(folder: Path = RESULTS) -> Path:
    """The file of the latest run.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = list(folder.glob("*.json"))
    if not paths:
        raise FileNotFoundError(f"{folder} holds no results; make some with: python -m benchmarks run")
    return max(paths, key=lambda path: read(path)["created"])


def read(path: Path) -> dict[str, Any]:
    """What `write` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such file.
    """
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a result of schema {SCHEMA}")
    return content


def text(content: dict[str, Any]) -> str:
    """JSON with one entry a line, and each list of numbers on one line."""
    spread = json.dumps(content, indent=1, allow_nan=False)
    return re.sub(r"\[[-+\d.e,\s]+\]", lambda numbers: " ".join(numbers[0].split()), spread) + "\n"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().replace("(r)", "").replace("(tm)", "")).strip("-")
