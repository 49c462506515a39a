"""The native library (csrc): its ops, NAME_fwd, NAME_gradient and NAME_ring for a distance NAME, as implementations."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from mow_kernels import autograd
from mow_kernels.registry import DistanceOp, Implementation, Op

_LIBRARY = Path(os.environ.get("MOW_NATIVE") or Path(__file__).with_name("_native.so"))
"""The environment variable MOW_NATIVE names another build of it, one with sanitizers for example."""


def build_failed() -> str:
    """What to add to the reason why something is missing: where its build said why, if it failed."""
    log = _LIBRARY.with_suffix(".log")
    return f"; {log} says why it failed here" if log.exists() else ""


def _load() -> str | None:
    """Loads the library; the reason why it cannot be had, or None."""
    if not _LIBRARY.exists():
        return f"the native library was not built (python setup.py build_ext --inplace builds it{build_failed()})"
    try:
        torch.ops.load_library(_LIBRARY)
    except OSError as error:
        return f"the native library cannot be loaded: {error}"
    return None


unavailable = _load()
"""Why there are no native ops, or None."""


def implementation(op: Op, device: str, **fields: Any) -> Implementation | str:
    """What the library has for an op on one type of device, or the reason why it has nothing.

    Args:
        op: its row.
        device: "cpu" or "cuda".
        fields: further ones of the `Implementation`.
    """
    if unavailable is not None:
        return unavailable
    if not isinstance(op, DistanceOp):
        run = _op(op.name, device)
        if run is None or op.fake is None:
            return _MISSING
        _fake(run, op.fake)
        return Implementation(_with_options(run), device, **fields)
    fwd, gradient = _op(f"{op.name}_fwd", device), _op(f"{op.name}_gradient", device)
    if fwd is None or op.fused_arguments is None:
        return _MISSING
    _fake(fwd, autograd.fake)
    if gradient is not None:
        _fake(gradient, autograd.fake_gradient)
    running = None
    if op.keeps is not None:
        running = _op(f"{op.name}_{op.keeps.suffix}_fwd", device), _op(f"{op.name}_{op.keeps.suffix}_push", device)
    return autograd.fused(
        fwd,
        gradient,
        op.fused_arguments,
        op.reference,
        _op(f"{op.name}_ring", device),
        device=device,
        running=None if running is None or None in running else running,
        **fields,
    )


_MISSING = "the native library has no such kernels; if it is of another version, build it anew (see docs/cuda.md)"


def _op(name: str, device: str) -> Callable[..., Any] | None:
    """An op of the library, if it has kernels for such a device."""
    return getattr(torch.ops.mow_kernels, name).default if has(name, device) else None


@functools.cache
def has(name: str, device: str) -> bool:
    """Whether the library has kernels of an op for such a device."""
    there = unavailable is None and hasattr(torch.ops.mow_kernels, name)
    return there and torch._C._dispatch_has_kernel_for_dispatch_key(f"mow_kernels::{name}", device.upper())


def _with_options(op: Callable[..., Any]) -> Callable[..., Any]:
    """An op that takes the options of a call in their order."""
    return lambda *arguments, **options: op(*arguments, *options.values())


@functools.cache
def _fake(op: Any, shapes: Callable[..., Any]) -> None:
    """What torch.compile traces in place of an op; once, since two backends share it."""
    torch.library.register_fake(op, shapes)
