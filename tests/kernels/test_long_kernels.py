"""Ctrl-C while a kernel runs that would take minutes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from marks import needs_native

PROGRAM = """
import os, signal, sys, threading
import torch
import mow_kernels as mk

torch.set_num_threads(2)
rows, current = torch.randn(400_000, 64), torch.randn(64, 64)
calls = {
    "value": lambda: mk.mmd(current, rows),
    "gradient": lambda: mk.gradient(mk.cramer_wold, rows, rows),
    "directions": lambda: mk.sliced_wasserstein(current, rows[:50_000], directions=20_000),
    "k_center": lambda: mk.k_center(rows, 200_000),
}
for name in sys.argv[1:]:
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        calls[name]()
    except KeyboardInterrupt:
        print(name, flush=True)

seen = []
signal.signal(signal.SIGINT, lambda *_: seen.append(True))
right = mk.mmd(current, rows[:20_000])
threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
while not seen:  # a handler that does not raise changes nothing
    assert mk.mmd(current, rows[:20_000]).equal(right)
print("handled")
"""


@needs_native
@pytest.mark.parametrize(
    "names", [["value"], pytest.param(["gradient", "directions", "k_center"], marks=pytest.mark.long)], ids=str
)
def test_a_long_kernel_ends(names: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *names], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == [*names, "handled"], done.stderr
