"""Which backend runs a call: one table, op -> backend -> implementation or the reason why there is none.

The choice is made in plain Python from a process-wide setting and the arguments alone, so that torch.compile can
trace through it and guard on it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from mow_kernels import operators, reference

BACKENDS = ("cuda", "triton", "cpp", "reference")
"""Every backend, in the order in which "auto" tries them."""


class Call(NamedTuple):
    """A checked call of an op: what its implementations take."""

    op: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


def _supports_all(*arguments: Any, **options: Any) -> None:
    return None


@dataclass(frozen=True)
class Implementation:
    """What one backend has for one op."""

    run: Callable[..., Tensor]
    unsupported: Callable[..., str | None] = _supports_all
    """Takes the arguments of `run`; the reason why it cannot take them, or None."""


_NOT_YET = "this release has no such kernels"

TABLE: dict[str, dict[str, Implementation | str]] = {
    op: {
        "cuda": _NOT_YET,
        "triton": _NOT_YET,
        "cpp": operators.CPP if isinstance(operators.CPP, str) else Implementation(*operators.CPP[op]),
        "reference": Implementation(getattr(reference, op)),
    }
    for op in reference.__all__
}

_wanted = os.environ.get("MOW_BACKEND", "auto")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the calls inside on one backend: "reference", "cpp", "triton", "cuda", or "auto" for the first that can.

    Process-wide, like the environment variable MOW_BACKEND whose value holds outside. A call that the backend cannot
    take raises with the reason.

    Raises:
        ValueError: the name is not a backend.
    """
    global _wanted
    _check_name(name, "use_backend")
    previous, _wanted = _wanted, name
    try:
        yield
    finally:
        _wanted = previous


def select(call: Call) -> Callable[..., Tensor]:
    """The implementation that runs a call.

    Raises:
        ValueError: the wanted backend is unknown or cannot run this call, with the reason.
    """
    if _wanted == "auto":
        for backend in BACKENDS:
            if why_not(call, backend) is None:
                return TABLE[call.op][backend].run  # type: ignore[union-attr]  # why_not has ruled out a str
    _check_name(_wanted, "MOW_BACKEND")
    reason = why_not(call, _wanted)
    if reason is not None:
        raise ValueError(f"backend {_wanted!r} cannot run this {call.op}: {reason}")
    return TABLE[call.op][_wanted].run  # type: ignore[union-attr]


def why_not(call: Call, backend: str) -> str | None:
    """The reason why a backend cannot run a call, or None."""
    implementation = TABLE[call.op][backend]
    if isinstance(implementation, str):
        return implementation
    return implementation.unsupported(*call.arguments, **call.options)


@dataclass(frozen=True)
class Explanation:
    """Where a call would run, and why not elsewhere."""

    op: str
    backend: str | None
    """The backend that would run the call; None when the wanted one cannot."""
    reasons: dict[str, str]
    """Every other backend -> why it does not run the call."""

    def __str__(self) -> str:
        head = f"{self.op} runs on {self.backend!r}" if self.backend else f"{self.op} cannot run"
        return "\n".join([head, *(f"  not {backend!r}: {reason}" for backend, reason in self.reasons.items())])


def explain_call(call: Call) -> Explanation:
    """Where a checked call would run."""
    if _wanted != "auto":
        _check_name(_wanted, "MOW_BACKEND")
    chosen, reasons = None, {}
    for backend in BACKENDS:
        reason = why_not(call, backend)
        if reason is None and _wanted not in ("auto", backend):
            reason = f"{_wanted!r} was asked for"
        elif reason is None and chosen is not None:
            reason = f"{chosen!r} comes first"
        if reason is None:
            chosen = backend
        else:
            reasons[backend] = reason
    return Explanation(call.op, chosen, reasons)


def _check_name(name: str, argument: str) -> None:
    if name not in (*BACKENDS, "auto"):
        raise ValueError(f"{argument} is {name!r}; it must be one of {', '.join(map(repr, (*BACKENDS, 'auto')))}")
