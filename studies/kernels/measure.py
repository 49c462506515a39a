"""Time and memory of a kernel's loss, ours and that of the library that has it, on the same samples.

    python -m studies.kernels.measure NAME ours|theirs|inputs

is one call in a process of its own, for its peak memory.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import mow_kernels as mk
from benchmarks import record, timing
from studies.kernels import peaks

SEED = 0

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A loss between two samples of n rows of width dim."""

    loss: str
    n: int
    dim: int = 64
    backward: bool = True
    """Whether the gradient for the first sample is part of it."""
    backend: str = "tensorized"
    """GeomLoss's: all pairs as tensors, or "online", by KeOps, which has no matrix of them either."""

    @property
    def name(self) -> str:
        online = "-online" if self.backend == "online" else ""
        return f"{self.loss}-n{self.n}-d{self.dim}{online}"


CASES = [
    *(Case(loss, n) for loss in ("energy", "laplacian", "gaussian", "rational_quadratic") for n in (64, 1024, 4096)),
    *(Case(loss, n, backend="online") for loss in ("energy", "laplacian", "gaussian") for n in (1024, 4096)),
    *(Case("polynomial", n, 2048, backward=False) for n in (1000, 10_000)),
]


def inputs(case: Case) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(SEED)
    x, y = (torch.randn(case.n, case.dim, generator=generator) for _ in range(2))
    return x, y + 0.1


def ours(case: Case) -> Loss:
    """By our stand-in for the library, or by `mow_kernels` itself."""
    if case.loss == "rational_quadratic":
        return lambda x, y: mk.mmd(x, None, y, kernel="rational_quadratic", estimator="biased")
    if case.loss == "polynomial":
        return lambda x, y: mk.mmd(x, None, y, kernel="polynomial")
    from mow.adapters.geomloss import SamplesLoss

    return SamplesLoss(case.loss, blur=case.dim**0.5)


def theirs(case: Case) -> Loss:
    """By GeomLoss, by torchmetrics, or by the matrices that MMD-GANs' code has."""
    if case.loss == "rational_quadratic":
        return _by_matrices
    if case.loss == "polynomial":
        from torchmetrics.image.kid import poly_mmd

        return lambda x, y: poly_mmd(x, y)
    from geomloss import SamplesLoss

    loss: Loss = SamplesLoss(case.loss, blur=case.dim**0.5, backend=case.backend)
    return loss


def _by_matrices(x: Tensor, y: Tensor) -> Tensor:
    def mean(a: Tensor, b: Tensor) -> Tensor:
        r = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T
        values: Any = sum((1 + r / (2 * alpha)) ** -alpha for alpha in (0.2, 0.5, 1.0, 2.0, 5.0))
        return values.mean()

    return mean(x, x) + mean(y, y) - 2 * mean(x, y)


SIDES = {"ours": ours, "theirs": theirs}


def call_of(case: Case, side: str, backward: bool) -> Callable[[], object]:
    """The value, and with `backward` the gradient for x."""
    (x, y), loss = inputs(case), SIDES[side](case)
    if not backward:
        return lambda: loss(x, y)
    x.requires_grad_()
    return lambda: torch.autograd.grad(loss(x, y), x)


def measured(case: Case, seconds: float) -> dict[str, Any]:
    """Times on all cores that this process may use (64 rows: on one), interleaved, and memory of a process each."""
    entry: dict[str, Any] = {"name": case.name, "loss": case.loss, "n": case.n, "dim": case.dim}
    entry["backend"] = case.backend
    entry["threads"] = record.cores() if case.n > 64 else 1
    entry["load_before"] = list(os.getloadavg())
    samples = inputs(case)
    entry["value"] = {side: float(loss(case)(*samples)) for side, loss in SIDES.items()}
    for what in ("forward", "both") if case.backward else ("forward",):
        entrants = [
            timing.Entrant(
                side, call_of(case, side, what == "both"), threads=entry["threads"], gradients=what == "both"
            )
            for side in SIDES
        ]
        effort = timing.Effort(seconds=seconds / (2 if case.backward else 1))
        for entrant in entrants:
            entrant.warm_up(effort)
        found = timing.interleave(entrants, effort, SEED)
        entry[what] = {side: [record.short(second) for second in found[side]] for side in SIDES}
    if case.n > 64:
        entry["memory"] = peaks.extra_mib(case.name, list(SIDES))
    entry["load_after"] = list(os.getloadavg())
    return entry


def _probe(name: str, what: str) -> None:
    case = next(case for case in CASES if case.name == name)
    for side in SIDES.values():  # what is imported is no part of the difference
        side(case)
    call = call_of(case, "ours" if what == "inputs" else what, case.backward)
    if what != "inputs":
        with torch.set_grad_enabled(case.backward):
            call()


if __name__ == "__main__":
    _probe(*sys.argv[1:])
