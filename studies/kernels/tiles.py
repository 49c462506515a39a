"""Whether a CPU gains by bfloat16 limbs: tiles of products, compiled from tiles.cpp for a processor that has AMX."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import ROOT

SIDES = {"float32": "float32", "avx512_bf16": "six of limbs, AVX512-BF16", "amx": "six of limbs, AMX"}

FLAGS = (
    *("-O3", "-std=c++17", "-fno-math-errno", "-fno-trapping-math", "-I", str(ROOT / "csrc")),
    *("-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl"),
    *("-mprefer-vector-width=512", "-mtune=skylake-avx512", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
)
"""As CMakeLists.txt has them for AVX-512, and what the limbs need."""


def measured() -> Iterator[dict[str, Any]]:
    """Of each width the error of a product, in units of its standard deviation, and the nanoseconds of a tile's rounds.

    Raises:
        RuntimeError: the processor has no AMX, or the program cannot be compiled or run, with what was said.
    """
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if "amx_bf16" not in flags or "avx512_bf16" not in flags:
        raise RuntimeError("this processor has no AMX-BF16 and AVX512-BF16, which is what is measured here")
    sources = [str(Path(__file__).with_suffix(".cpp")), str(ROOT / "csrc/cpu/pieces.cpp")]
    with tempfile.TemporaryDirectory() as folder:
        program = str(Path(folder) / "tiles")
        for command in ([shutil.which("g++") or "c++", *FLAGS, *sources, "-o", program], [program]):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(done.stderr)
    yield from map(json.loads, done.stdout.splitlines())
