"""The Triton kernels without a GPU: their tests (tests/gpu) on Triton's interpreter, in a process of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

import mow_kernels as mk
from benchmarks.gpu import report
from mow_kernels.backends import triton
from mow_kernels.registry import TABLE, Implementation
from mow_kernels.triton.thresholds import threshold

COMPILATIONS = 60
"""What `make gpu` has the time for, at about a second each."""

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(bool(triton.unavailable), reason=str(triton.unavailable))


@pytest.mark.skipif(triton.INTERPRETED, reason="this is that process")
@pytest.mark.parametrize("chosen", ["not long", pytest.param("long", marks=pytest.mark.long)])
def test_on_the_interpreter(chosen: str) -> None:
    """Triton reads the variable when it is imported, and other tests want it compiled."""
    if version("triton").startswith("3.6.") and tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4):
        pytest.skip("the interpreter of Triton 3.6 takes arrays of one element for numbers, which NumPy 2.4 refuses")
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-m", chosen, "-p", "no:cacheprovider", "-rf"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and " passed" in done.stdout, done.stdout[-8000:] + done.stderr[-2000:]
    found = re.search(r"distinct compilations: (\d+)", done.stdout)
    assert found and 20 < int(found[1]) and (chosen == "long" or int(found[1]) <= COMPILATIONS), found


@pytest.mark.parametrize("given, seen", [(None, 7), ("0", 0), ("300", 300), ("-1", None), ("many", None)])
def test_thresholds_can_be_set_for_measuring(
    given: str | None, seen: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every variable that the page names is read, and no other."""
    monkeypatch.delenv("MOW_TRITON_SINGLE", raising=False)
    if given is not None:
        monkeypatch.setenv("MOW_TRITON_SINGLE", given)
    if seen is None:
        with pytest.raises(ValueError, match=f"MOW_TRITON_SINGLE is '{given}'; it must be an integer >= 0"):
            threshold("MOW_TRITON_SINGLE", 7)
    else:
        assert threshold("MOW_TRITON_SINGLE", 7) == seen
    sources = "".join(path.read_text() for path in (ROOT / "mow_kernels/triton").glob("*.py"))
    read = set(re.findall(r'threshold\("(\w+)", ', sources))
    assert read == set(re.findall(r"`(MOW_TRITON_\w+)=", "\n".join(report.THRESHOLDS)))


@pytest.mark.skipif(triton.INTERPRETED, reason="the interpreter takes the CPU's tensors")
def test_a_cpu_never_waits_for_triton() -> None:
    current = torch.randn(2, 5)
    assert mk.explain(mk.mmd, current).reasons["triton"] == "it runs on GPUs and the tensors are on cpu"
    script = (
        "import sys, torch, mow_kernels as mk; mk.mmd(torch.randn(3, 2)); "
        "print([m for m in sys.modules if m.startswith('mow_kernels.triton.')])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_too_wide() -> None:
    entry = TABLE["mmd"]["triton"]
    assert isinstance(entry, Implementation) and entry.unsupported is not None
    with torch.device("meta"):
        current, history = torch.empty(2, triton.MAX_DIM + 1), torch.empty(0, triton.MAX_DIM + 1)
    reason = entry.unsupported(current, history, None, kernel="imq")
    assert "it takes D up to 8192 and current has D = 8193" in str(reason)
