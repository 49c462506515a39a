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
from benchmarks import memory, naive, peers
from benchmarks.cases import SHORT, Candidate, Case
from benchmarks.timing import Entrant
from mow.window.window import MovingWindow

DIM, DIRECTIONS = 64, 50
_LARGEST = {"direct": 16384, "plain": 4096, "compile": 4096, "rows": 65536, "rows-compile": 65536, "keops": 4096}
"""The largest window over which a candidate ends in reasonable time and memory."""
_BUILD = 3
"""Steps after which everything is at hand: what is kept begins with the second one."""


@dataclass(frozen=True)
class Window:
    """One row of the table."""

    distance: str
    n: int
    k: int
    moving: bool = False
    """Against a `mow.PriorWindow`; else N(0, I) in closed form."""

    @property
    def name(self) -> str:
        return f"window-{SHORT[self.distance]}{'-prior' * self.moving}-n{self.n}-k{self.k}"

    def describe(self) -> dict[str, Any]:
        about = {"distance": self.distance, "n": self.n, "k": self.k, "dim": DIM, "moving": self.moving}
        return {"name": self.name, **about}

    def module(self) -> mow.window.distances.KernelDistance:
        """The distance of `mow`."""
        prior = mow.PriorWindow(self.n, DIM) if self.moving else "normal"
        if self.distance == "mmd":
            return mow.MMD(prior)
        return (
            mow.CramerWold(prior) if self.distance == "cramer_wold" else mow.SlicedWasserstein(directions=_directions())
        )


TABLE = [Window(distance, n, k) for n, k in ((64, 1), (4096, 64)) for distance in SHORT]
TABLE.append(Window("mmd", 4096, 64, moving=True))
CURVE = [Window(distance, 4**j, 1) for distance in SHORT for j in range(5, 10)]


def participants(window: Window) -> list[Candidate]:
    """What is kept from step to step, the direct kernels with the same prior, the naive code and KeOps."""
    sampled = "" if window.distance == "cramer_wold" else ", sampled prior"
    labels = {
        "running": "mow-kernels, kept from step to step",
        "direct": "mow-kernels, direct",
        "plain": f"plain PyTorch{sampled}",
        "compile": f"plain PyTorch{sampled}, torch.compile",
        "rows": f"plain PyTorch, rows only{sampled}",
        "rows-compile": f"plain PyTorch, rows only{sampled}, torch.compile",
    }
    found = [
        Candidate(name, label, backend="cpp" if name == "running" else None, missing=_too_large(window, name))
        for name, label in labels.items()
        if name != "rows" or window in TABLE
    ]
    keops = next(peer for peer in peers.peers(Case(window.distance, window.n, window.k, DIM)) if peer.name == "keops")
    missing = keops.missing or _too_large(window, "keops")
    return [*found, Candidate("keops", f"KeOps{sampled}", value=keops.value, missing=missing)]


def entrant(window: Window, participant: Candidate) -> Entrant:
    """Steps of one participant over a full window of its own."""
    torch.manual_seed(0)
    kept = MovingWindow(window.n, DIM)
    kept.fill(torch.randn(window.n, DIM))
    new = itertools.cycle([torch.randn(window.k, DIM).requires_grad_() for _ in range(16)])
    pushed = itertools.cycle(torch.randn(16, window.k, DIM).unbind())
    value = _value(window, participant)

    def step() -> None:
        z = next(new)
        torch.autograd.grad(value(z, kept), z)
        kept.push(next(pushed))

    ready = Entrant(participant.name, step, participant.backend)
    with ready.setting():
        for _ in range(_BUILD):
            step()
    return ready


def peak_mib(window: Window, participant: Candidate) -> float | None:
    """MiB that a window and its first steps add to the resident set at their peak; to be asked when all is compiled."""
    return memory.peak_of(lambda: entrant(window, participant))


def _value(window: Window, participant: Candidate) -> Callable[[Tensor, MovingWindow], Tensor]:
    name = participant.name
    if name in ("running", "direct"):
        module = window.module()
        return module if name == "running" else lambda z, kept: module(z, kept.history(len(z)))
    function: Any = participant.value or getattr(naive, window.distance + "_rows" * name.startswith("rows"))
    if name.endswith("compile"):
        function = torch.compile(function)
    others = [] if window.distance == "cramer_wold" else [torch.randn(window.n, DIM)]
    if window.distance == "sliced_wasserstein":
        others.append(_directions())
    return lambda z, kept: function(z, kept.history(len(z)), *others)


def _directions() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.nn.functional.normalize(torch.randn(DIM, DIRECTIONS, generator=generator), dim=0)


def _too_large(window: Window, name: str) -> str | None:
    largest = _LARGEST.get(name, window.n)
    return f"takes too long or too much memory beyond n = {largest}" if window.n > largest else None
