"""Which backend runs a call: one table, op -> backend -> implementation or the reason why there is none.

The choice is made in plain Python from a process-wide setting and the arguments alone, so that torch.compile can
trace through it and guard on it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from mow_kernels import cuda, operators, reference
from mow_kernels.operators import Implementation

BACKENDS = ("cuda", "triton", "cpp", "reference")
"""Every backend, in the order in which "auto" tries them."""


class Call(NamedTuple):
    """A checked call of an op: what its implementations take."""

    op: str
    arguments: tuple[Any, ...]
    options: dict[str, Any]


_NOT_YET = "this release has no such kernels"


def _entry(backend: operators.Backend, op: str) -> Implementation | str:
    """What a backend's own table, or the reason why there is none, says of an op."""
    return backend if isinstance(backend, str) else backend.get(op, _NOT_YET)


def _reference(op: str) -> Implementation:
    function = getattr(reference, op)
    return Implementation(function) if op == "k_center" else operators.by_autograd(function)


TABLE: dict[str, dict[str, Implementation | str]] = {
    op: {
        "cuda": _entry(cuda.CUDA, op),
        "triton": _entry(operators.TRITON, op),
        "cpp": _entry(operators.CPP, op),
        "reference": _reference(op),
    }
    for op in reference.__all__
}

_PLACES = {"cpu": "the CPU", "cuda": "GPUs"}


def _candidates(op: str, device: str | None) -> list[Implementation]:
    return [entry for entry in TABLE[op].values() if not isinstance(entry, str) and entry.device in (None, device)]


_CANDIDATES = {(op, device): _candidates(op, device) for op in TABLE for device in (None, *_PLACES)}
"""(op, type of device or None for another) -> its implementations in the order of "auto", the reference last: it takes
every call."""

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


def allows(backend: str) -> bool:
    """Whether the wanted backend is this one or "auto"."""
    return _wanted in ("auto", backend)


def select(op: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Implementation:
    """The implementation that runs a checked call.

    Raises:
        ValueError: the wanted backend is unknown or cannot run this call, with the reason.
    """
    if _wanted == "auto":
        device = arguments[0].device.type
        for implementation in _CANDIDATES[op, device if device in _PLACES else None]:
            if implementation.unsupported is None or implementation.unsupported(*arguments, **options) is None:
                return implementation
    if _wanted not in TABLE[op]:
        _check_name(_wanted, "MOW_BACKEND")
    wanted = TABLE[op][_wanted]
    reason = why_not(wanted, arguments, options)
    if reason is not None:
        raise ValueError(f"backend {_wanted!r} cannot run this {op}: {reason}")
    return wanted  # type: ignore[return-value]  # a str is its reason


def why_not(implementation: Implementation | str, arguments: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    """The reason why an entry of the table cannot run a call, or None."""
    if isinstance(implementation, str):
        return implementation
    device = arguments[0].device
    if implementation.device not in (None, device.type):
        return f"it runs on {_PLACES[implementation.device]} and the tensors are on {device}"
    return None if implementation.unsupported is None else implementation.unsupported(*arguments, **options)


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
        reason = why_not(TABLE[call.op][backend], call.arguments, call.options)
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
