"""The backend "triton": one op a distance, each defined in the file of its name.

The first call imports Triton, not this file: a machine without a GPU never waits for it. torch.compile calls the ops as
they are, and a CUDA graph sees a few launches. No autograd and no checks here: mow_kernels/operators.py and
mow_kernels/functions.py have them.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mow_kernels.compiling import constant_in_graphs

INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "y", "yes")
"""Whether Triton's interpreter runs the kernels, on the CPU: slow, and for tests."""

DEVICE = "cpu" if INTERPRETED else "cuda"
"""The type of the devices that it takes; ROCm's say "cuda", too."""

MAX_DIM = 8192
"""Of MMD and Cramer-Wold: one program holds a row of the gradient."""

_SCHEMAS = {
    "mmd": "str kernel, float[] scales, str estimator",
    "cramer_wold": "float gamma, str phi",
    "sliced_wasserstein": "Tensor directions, float p",
}

OPS = tuple(_SCHEMAS)

unavailable = None if importlib.util.find_spec("triton") else "Triton is not installed"
"""Why there are no Triton kernels, or None."""


def unsupported(current: Tensor, history: Tensor, prior: Tensor | None, **options: Any) -> str | None:
    """Why a checked call on such a device cannot run here, or None."""
    if current.shape[1] > MAX_DIM and "directions" not in options:
        return f"it takes D up to {MAX_DIM} and current has D = {current.shape[1]}"
    return None if INTERPRETED else _too_old(current.device)


@constant_in_graphs
@functools.cache
def _too_old(device: torch.device) -> str | None:
    if torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0):
        return None
    return "it needs a GPU of compute capability 8.0 and {} has {}.{}".format(
        device, *torch.cuda.get_device_capability(device)
    )


def _implementation(op: str) -> Callable[..., tuple[Tensor, Tensor]]:
    @functools.cache
    def load() -> Callable[..., tuple[Tensor, Tensor]]:
        return getattr(importlib.import_module(f"{__name__}.{op}"), op)

    return lambda *arguments: load()(*arguments)


def _fake(current: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """The shapes of every op's results; the last argument is needs_grad."""
    wide = torch.float64 if current.dtype == torch.float64 else torch.float32
    return current.new_empty((), dtype=wide), current.new_empty(current.shape if arguments[-1] else 0)


_LIBRARY = torch.library.Library("mow_triton", "DEF")
for _op, _options in _SCHEMAS.items():
    _LIBRARY.define(
        f"{_op}(Tensor current, Tensor history, Tensor? prior, {_options}, bool needs_grad) "
        "-> (Tensor value, Tensor g_current)"
    )
    _LIBRARY.impl(_op, _implementation(_op), DEVICE.upper())
    torch.library.register_fake(f"mow_triton::{_op}", _fake, lib=_LIBRARY)
