"""Who takes part in a case: the library's backends, the naive code, the peers and the floors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

import mow_kernels as mk
from benchmarks import floors, naive
from benchmarks.cases import Candidate, Case, Inputs, inputs, library, library_gradient
from benchmarks.peers import peers

OURS = "cpp"
"""The backend that the tables are about."""

ALONE = f"{OURS}-gradient"
"""Its gradient without the value, which is what the rows-only code computes."""

BASELINES = ("plain", "compile", "rows", "rows-compile")
"""What the main table gives speed-ups against: time of the baseline / time of the candidate."""

FLOORS = ("empty", "product")
"""What costs are given against: time of the candidate / time of the floor."""

_VARIANTS = {
    "mmd": ("normal", "normal prior in closed form", {"prior": "normal"}),
    "cramer_wold": ("exact", "exact phi", {"phi": "exact"}),
    "sliced_wasserstein": ("normal", "normal prior in closed form", {"prior": "normal"}),
}
"""What the library also offers in place of each case: name, label and options."""


def candidates(case: Case) -> list[Candidate]:
    """All candidates of a case, also those that cannot run here (with the reason)."""
    return [*_own(case), *peers(case), *_floors(case)]


def named(case: Case, name: str) -> Candidate:
    """One candidate; a peer is imported only if it is the one."""
    for group in (_own, peers):
        for candidate in group(case):
            if candidate.name == name:
                return candidate
    raise KeyError(name)


def variant(distance: str) -> str:
    """The name of what the library offers in place of a case."""
    return f"{OURS}-{_VARIANTS[distance][0]}"


def _own(case: Case) -> list[Candidate]:
    """The library's backends and the naive code."""
    _, label, changes = _VARIANTS[case.distance]
    return [
        _library(case, OURS, OURS, "", {}),
        _library(case, variant(case.distance), OURS, f", {label}", changes),
        *([_gradient_alone(case)] if case.what == "fwd+bwd" else []),
        _library(case, "reference", "reference", "", {}),
        *_naive(case),
    ]


def _gradient_alone(case: Case) -> Candidate:
    return Candidate(
        ALONE,
        f"mow-kernels, {OURS}, the gradient alone",
        gradient=library_gradient(case.distance, case.options),
        checks=("gradient",),
        backend=OURS,
        missing=_why_not(OURS, case, case.options),
    )


def _library(case: Case, name: str, backend: str, label: str, changes: Mapping[str, Any]) -> Candidate:
    options = {**case.options, **changes}
    return Candidate(
        name,
        f"mow-kernels, {backend}{label}",
        library(case.distance, options),
        options=changes,
        backend=backend,
        missing=_why_not(backend, case, options),
    )


def _why_not(backend: str, case: Case, options: Mapping[str, Any]) -> str | None:
    """Why a backend cannot run a case, in the library's own words."""
    arguments: Sequence[Any] = inputs(case).arguments(options)
    keywords = {name: value for name, value in options.items() if name != "prior"}
    if case.distance == "sliced_wasserstein":
        *arguments, keywords["directions"] = arguments
    with mk.use_backend(backend):
        explanation = mk.explain(getattr(mk, case.distance), *arguments, **keywords)
    return None if explanation.backend == backend else explanation.reasons[backend]


def _naive(case: Case) -> list[Candidate]:
    """Plain PyTorch, the whole window and the rows only, each eager and compiled."""
    if case.options.get("kernel") == "gaussian":
        return [Candidate("plain", "plain PyTorch", missing="GeomLoss (tensorized) is that code")]

    def twice(name: str, label: str, value: Callable[..., Tensor], *checks: str) -> list[Candidate]:
        eager = Candidate(name, label, value, checks=checks)
        compiled = "compile" if name == "plain" else f"{name}-compile"
        return [eager, replace(eager, name=compiled, label=f"{label}, torch.compile", compiled=True)]

    found = twice("plain", "plain PyTorch", getattr(naive, case.distance), "value", "gradient")
    if case.what == "fwd+bwd":  # the rows alone have no value
        found += twice("rows", "plain PyTorch, rows only", getattr(naive, f"{case.distance}_rows"), "gradient")
    return found


def _floors(case: Case) -> list[Candidate]:
    def empty(current: Tensor, *_: Tensor) -> Tensor:
        return floors.Empty.apply(current)

    def product(given: Inputs) -> Callable[[], Tensor]:
        return floors.matrix_product(case.dots, case.dim, given.current.dtype)

    return [
        Candidate("empty", "floor: an empty autograd Function", empty, checks=()),
        Candidate("product", "floor: one matrix product, one core", work=product, checks=(), threads=1),
    ]
