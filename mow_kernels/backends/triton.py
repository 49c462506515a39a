"""The backend "triton": Triton kernels for tensors on GPUs (mow_kernels/triton), one op a distance.

The first call imports Triton, not this file: a machine without a GPU never waits for it. torch.compile calls the ops as
they are, and a CUDA graph sees a few launches.
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

from mow_kernels import autograd
from mow_kernels.compiling import constant_in_graphs
from mow_kernels.registry import DistanceOp, Implementation, Op, Options

NAME = "triton"

INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "y", "yes")
"""Whether Triton's interpreter runs the kernels, on the CPU: slow, and for tests."""

DEVICE = "cpu" if INTERPRETED else "cuda"
"""The type of the devices that it takes; ROCm's say "cuda", too."""

unavailable = None if importlib.util.find_spec("triton") else "Triton is not installed"
"""Why there are no Triton kernels, or None."""

MAX_DIM = 8192
"""The widest latents of a sum over pairs: one program holds a row of the gradient."""

_SCHEMAS = {
    "mmd": "str kernel, float[] scales, str estimator",
    "cramer_wold": "float gamma, str phi",
    "sliced_wasserstein": "Tensor directions, float p",
}
"""op -> its options, as its function in the file of its name takes them after the samples."""

_LIBRARY = torch.library.Library("mow_triton", "DEF")


def implementation(op: Op) -> Implementation | str:
    """What mow_kernels/triton has for an op."""
    if unavailable is not None:
        return unavailable
    if op.name not in _SCHEMAS or not isinstance(op, DistanceOp):
        return "this release has no such kernels"
    return autograd.fused(*_defined(op.name), _in_order, op.reference, device=DEVICE, **_FIELDS[op.name])


@functools.cache
def _defined(name: str) -> tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., Tensor]]:
    """The ops of one distance, defined: value and gradient, and the gradient alone."""
    samples, launch, alone = "Tensor current, Tensor history, Tensor? prior", _kernels(name), f"{name}_gradient"
    _LIBRARY.define(f"{name}({samples}, {_SCHEMAS[name]}, bool needs_grad) -> (Tensor value, Tensor g_current)")
    _LIBRARY.define(f"{alone}({samples}, {_SCHEMAS[name]}) -> Tensor g_current")
    _LIBRARY.impl(name, launch, DEVICE.upper())
    _LIBRARY.impl(alone, lambda *arguments: launch(*arguments, True, False)[1], DEVICE.upper())
    torch.library.register_fake(f"mow_triton::{name}", autograd.fake, lib=_LIBRARY)
    torch.library.register_fake(f"mow_triton::{alone}", autograd.fake_gradient, lib=_LIBRARY)
    return getattr(torch.ops.mow_triton, name).default, getattr(torch.ops.mow_triton, alone).default


def _kernels(name: str) -> Callable[..., tuple[Tensor, Tensor]]:
    """The launcher of one distance, on the device of its tensors: the only way to the kernels."""

    @functools.cache
    def load() -> Callable[..., tuple[Tensor, Tensor]]:
        return getattr(importlib.import_module(f"mow_kernels.triton.{name}"), name)

    def launch(current: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
        with torch.cuda.device_of(current):  # Triton launches on the current device, wherever the tensors are
            return load()(current, *arguments)

    return launch


def _in_order(like: Tensor, n: int, normal: bool, options: Options) -> tuple[Any, ...]:
    return tuple(options.values())


def _any_width(current: Tensor, *samples: Any, **options: Any) -> str | None:
    return None if INTERPRETED else _too_old(current.device)


def _pairs_unsupported(current: Tensor, *samples: Any, **options: Any) -> str | None:
    if current.shape[1] > MAX_DIM:
        return f"it takes D up to {MAX_DIM} and current has D = {current.shape[1]}"
    return _any_width(current)


_FIELDS: dict[str, dict[str, Any]] = {
    "mmd": {"unsupported": _pairs_unsupported},
    "cramer_wold": {"unsupported": _pairs_unsupported},
    "sliced_wasserstein": {"unsupported": _any_width},
}
"""op -> fields of its `Implementation`."""


@constant_in_graphs
@functools.cache
def _too_old(device: torch.device) -> str | None:
    if torch.version.hip or torch.cuda.get_device_capability(device) >= (8, 0):
        return None
    return "it needs a GPU of compute capability 8.0 and {} has {}.{}".format(
        device, *torch.cuda.get_device_capability(device)
    )
