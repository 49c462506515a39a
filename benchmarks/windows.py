"""A step over a moving window, whichever way: value and gradient over [history; z], then the push of other rows.

What is pushed are not the rows that were measured, as where new elements are encoded again after the step (the paper).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import mow
from benchmarks import naive
from benchmarks.cases import SHORT, Candidate
from benchmarks.timing import Entrant
from mow.window import MovingWindow

DIM = 64
_LARGEST = {"direct": 16384, "plain": 4096, "compile": 4096}
"""The largest window over which a candidate ends in reasonable time and memory."""

_MODULES: dict[str, Callable[[], mow.losses.Distance]] = {"mmd": mow.MMD, "cramer_wold": mow.CramerWold}


@dataclass(frozen=True)
class Window:
    """One row of the table."""

    distance: str
    n: int
    k: int

    @property
    def name(self) -> str:
        return f"window-{SHORT[self.distance]}-n{self.n}-k{self.k}"

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, "distance": self.distance, "n": self.n, "k": self.k, "dim": DIM}


TABLE = [Window(distance, n, k) for n, k in ((64, 1), (4096, 64)) for distance in _MODULES]
CURVE = [Window(distance, 4**j, 1) for distance in _MODULES for j in range(5, 10)]


def participants(window: Window) -> list[Candidate]:
    """The running sums, the direct kernels with the same prior, and the naive code; a sampled prior for its MMD."""
    sampled = ", sampled prior" if window.distance == "mmd" else ""
    labels = {
        "running": "mow-kernels, running sums",
        "direct": "mow-kernels, direct",
        "plain": f"plain PyTorch{sampled}",
        "compile": f"plain PyTorch{sampled}, torch.compile",
        "rows": f"plain PyTorch, rows only{sampled}",
        "rows-compile": f"plain PyTorch, rows only{sampled}, torch.compile",
    }
    names = list(labels) if window in TABLE else ["running", "direct", "plain", "compile", "rows-compile"]
    largest = {name: _LARGEST.get(name, window.n) for name in names}
    return [
        Candidate(
            name,
            labels[name],
            backend="cpp" if name == "running" else None,
            missing=f"takes too long or too much memory beyond n = {largest[name]}"
            if window.n > largest[name]
            else None,
        )
        for name in names
    ]


def entrant(window: Window, participant: Candidate) -> Entrant:
    """Steps of one participant over a full window of its own."""
    torch.manual_seed(0)
    kept = MovingWindow(window.n, DIM)
    kept.fill(torch.randn(window.n, DIM))
    new = itertools.cycle([torch.randn(window.k, DIM).requires_grad_() for _ in range(16)])
    pushed = itertools.cycle(torch.randn(16, window.k, DIM).unbind())
    value = _value(window, participant.name)

    def step() -> None:
        z = next(new)
        torch.autograd.grad(value(z, kept), z)
        kept.push(next(pushed))

    with Entrant("", step, participant.backend).setting():
        for _ in range(3):  # the running sums begin with the second step
            step()
    return Entrant(participant.name, step, participant.backend)


def _value(window: Window, name: str) -> Callable[[Tensor, MovingWindow], Tensor]:
    module = _MODULES[window.distance]()
    if name == "running":
        return module
    if name == "direct":
        return lambda z, kept: module(z, kept.history(len(z)))
    function: Any = getattr(naive, window.distance + "_rows" * name.startswith("rows"))
    if name.endswith("compile"):
        function = torch.compile(function)
    prior = [torch.randn(window.n, DIM)] if window.distance == "mmd" else []
    return lambda z, kept: function(z, kept.history(len(z)), *prior)
