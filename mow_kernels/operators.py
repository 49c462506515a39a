"""The fused ops under autograd: the backends "cpp" and "triton", or the reason why there is none.

Each distance of csrc/library.cpp returns the value together with its gradient for `current`, so that backward is one
product.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mow_kernels import reference, tables, triton

_LIBRARY = Path(os.environ.get("MOW_NATIVE") or Path(__file__).with_name("_native.so"))
"""The environment variable MOW_NATIVE names another build of it, one with sanitizers for example."""


_OPS = (
    *(f"{op}_{part}" for op in ("mmd", "cramer_wold") for part in ("fwd", "gradient", "running_fwd", "running_push")),
    *(f"sliced_wasserstein_{part}" for part in ("fwd", "gradient", "sorted_fwd", "sorted_push")),
    "k_center",
)
"""What it has to hold, see csrc/library.cpp."""


def _load() -> str | None:
    """Loads the native library; the reason why it cannot be had, or None."""
    if not _LIBRARY.exists():
        return "the native library was not built (python setup.py build_ext --inplace builds it)"
    try:
        torch.ops.load_library(_LIBRARY)
    except OSError as error:
        return f"the native library cannot be loaded: {error}"
    if not all(hasattr(torch.ops.mow_kernels, op) for op in _OPS):
        return "the native library is of another version (python setup.py build_ext --inplace builds it anew)"
    return None


unavailable = _load()
"""Why there are no native ops, or None."""


class Implementation(NamedTuple):
    """What one backend has for one op."""

    run: Callable[..., Any]
    device: str | None = None
    """The type of the device whose tensors it takes; None for any."""
    unsupported: Callable[..., str | None] | None = None
    """Takes the arguments of `run`; the reason why it cannot take them, though they are on such a device, or None."""
    gradient: Callable[..., tuple[Tensor, Tensor | None]] | None = None
    """Of a distance: gradient(measure, current, history, prior, **options) -> the gradient for current and, with
    `measure`, the value; neither has a graph."""


class Call(NamedTuple):
    """fwd(current, history, prior, *arguments, needs_grad), and a differentiable reference(current, history, prior,
    **options) that says the same."""

    fwd: Callable[..., tuple[Tensor, Tensor]]
    gradient: Callable[..., Tensor] | None
    """gradient(current, history, prior, *arguments), where that takes less than `fwd`."""
    history: Tensor
    """Or what else stands for the rows before current."""
    prior: Tensor | None
    arguments: tuple[Any, ...]
    reference: Callable[..., Tensor]
    options: dict[str, Any]


class _Fused(torch.autograd.Function):
    """The value of a call for `current`, and in backward the gradient that came with it.

    That gradient has no graph. Where one is wanted (create_graph), backward differentiates the reference instead, so
    that a penalty on the gradient keeps its own.
    """

    @staticmethod
    def forward(ctx: Any, call: Call, current: Tensor) -> Tensor:
        value, ctx.g_current = call.fwd(current, call.history, call.prior, *call.arguments, True)
        ctx.call = call
        ctx.save_for_backward(current)
        return value

    @staticmethod
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            (current,) = ctx.saved_tensors
            value = ctx.call.reference(current, ctx.call.history, ctx.call.prior, **ctx.call.options)
            return None, *torch.autograd.grad(value, current, g_out, create_graph=True)
        return None, g_out * ctx.g_current


def run(current: Tensor, call: Call) -> Tensor:
    """The value of a call, with a gradient for current where it requires one."""
    if current.requires_grad and torch.is_grad_enabled():
        return _Fused.apply(call, current)
    return call.fwd(current, call.history, call.prior, *call.arguments, False)[0]


def gradient(measure: bool, current: Tensor, call: Call) -> tuple[Tensor, Tensor | None]:
    """`Implementation.gradient` of a call."""
    current = current.detach()
    if call.gradient is not None and not measure:
        return call.gradient(current, call.history, call.prior, *call.arguments), None
    value, g_current = call.fwd(current, call.history, call.prior, *call.arguments, True)
    return g_current, value if measure else None


def fused(
    call_of: Callable[..., Call], device: str, unsupported: Callable[..., str | None] | None = None
) -> Implementation:
    """The implementation by the calls that call_of(current, history, prior, options) gives."""

    def value(current: Tensor, history: Tensor, prior: Tensor | None, **options: Any) -> Tensor:
        return run(current, call_of(current, history, prior, options))

    def alone(
        measure: bool, current: Tensor, history: Tensor, prior: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        return gradient(measure, current, call_of(current, history, prior, options))

    return Implementation(value, device, unsupported, alone)


def by_autograd(distance: Callable[..., Tensor]) -> Implementation:
    """The implementation by a differentiable function."""

    def alone(
        measure: bool, current: Tensor, history: Tensor, prior: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        with torch.enable_grad():
            current = current.detach().requires_grad_()
            value = distance(current, history, prior, **options)
            (g_current,) = torch.autograd.grad(value, current)
        return g_current, value.detach() if measure else None

    return Implementation(distance, gradient=alone)


def mmd(current: Tensor, history: Tensor, prior: Tensor | None, options: dict[str, Any]) -> Call:
    """`mow_kernels.reference.mmd` by csrc/cpu/mmd.cpp."""
    kernel, scales, estimator = options["kernel"], options["scales"], options["estimator"]
    table = tables.mmd(current.shape[1], current.dtype, kernel, scales, estimator, prior is None)
    return Call(*_MMD, history, prior, (table,), reference.mmd, options)


def cramer_wold(current: Tensor, history: Tensor, prior: Tensor | None, options: dict[str, Any]) -> Call:
    """`mow_kernels.reference.cramer_wold` by csrc/cpu/cramer_wold.cpp."""
    table = tables.cramer_wold(current.shape[1], current.dtype, options["phi"])
    return Call(*_CRAMER_WOLD, history, prior, (table, options["gamma"]), reference.cramer_wold, options)


def sliced_wasserstein(current: Tensor, history: Tensor, prior: Tensor | None, options: dict[str, Any]) -> Call:
    """`mow_kernels.reference.sliced_wasserstein` by csrc/cpu/sliced_wasserstein.cpp."""
    bins = None
    if prior is None:
        device = current.device if current.is_cuda else None
        bins = tables.normal_bins(current.shape[0] + history.shape[0], device)
    arguments = (options["directions"], bins, options["p"])
    return Call(*_SLICED, history, prior, arguments, reference.sliced_wasserstein, options)


def k_center(x: Tensor, *, k: int, start: int) -> tuple[Tensor, Tensor, Tensor]:
    """`mow_kernels.reference.k_center` by csrc/cpu/k_center.cpp or csrc/cuda/k_center.cu."""
    return _K_CENTER(x, k, start)


def _fake(current: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """The shapes of every distance's results; the last argument is needs_grad."""
    needs_grad = arguments[-1]
    return current.new_empty(()), current.new_empty(current.shape if needs_grad else 0)


def _fake_gradient(current: Tensor, *arguments: Any) -> Tensor:
    return torch.empty_like(current, memory_format=torch.contiguous_format)


def _over(op: Callable[..., tuple[Tensor, Tensor]], prior: bool = True) -> Callable[..., tuple[Tensor, Tensor]]:
    """An op over what a window keeps, and perhaps a prior's, with the arguments in the order of a `Call`."""
    if prior:
        return lambda current, kept, *arguments: op(kept, current, *arguments)
    return lambda current, kept, _, *arguments: op(kept, current, *arguments)


def _fake_k_center(x: Tensor, k: int, start: int) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(k, dtype=torch.int64), x.new_empty(()), x.new_empty(k, dtype=torch.int64)


def _by_triton(op: str) -> Implementation:
    """`mow_kernels.reference` by mow_kernels/triton, whose ops take the options in the order in which they come."""
    fwd, slow = getattr(torch.ops.mow_triton, op).default, getattr(reference, op)

    def call(current: Tensor, history: Tensor, prior: Tensor | None, options: dict[str, Any]) -> Call:
        return Call(fwd, None, history, prior, tuple(options.values()), slow, options)

    return fused(call, triton.DEVICE, triton.unsupported)


Backend = dict[str, Implementation] | str
"""op -> implementation, or the reason why there is none."""

TRITON: Backend = triton.unavailable or {op: _by_triton(op) for op in triton.OPS}
CPP: Backend

Kept = tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., None]]
"""(`fwd` of a `Call`, push) over what `mow_kernels.running` keeps of a window."""

RUNNING: dict[str, Kept] = {}
"""op -> those of its running sums."""
SORTED: Kept
"""Those of sorted projections."""

if unavailable is None:
    _MMD, _CRAMER_WOLD, _SLICED = (
        (getattr(torch.ops.mow_kernels, op + "_fwd").default, getattr(torch.ops.mow_kernels, op + "_gradient").default)
        for op in ("mmd", "cramer_wold", "sliced_wasserstein")
    )
    for _fwd, _gradient in (_MMD, _CRAMER_WOLD, _SLICED):
        torch.library.register_fake(_fwd, _fake)
        torch.library.register_fake(_gradient, _fake_gradient)
    RUNNING["mmd"] = (
        _over(torch.ops.mow_kernels.mmd_running_fwd.default),
        torch.ops.mow_kernels.mmd_running_push.default,
    )
    RUNNING["cramer_wold"] = (
        _over(torch.ops.mow_kernels.cramer_wold_running_fwd.default),
        torch.ops.mow_kernels.cramer_wold_running_push.default,
    )
    SORTED = (
        _over(torch.ops.mow_kernels.sliced_wasserstein_sorted_fwd.default, prior=False),
        torch.ops.mow_kernels.sliced_wasserstein_sorted_push.default,
    )
    _K_CENTER = torch.ops.mow_kernels.k_center.default
    torch.library.register_fake(_K_CENTER, _fake_k_center)
    CPP = {call_of.__name__: fused(call_of, "cpu") for call_of in (mmd, cramer_wold, sliced_wasserstein)}
    CPP["k_center"] = Implementation(k_center, "cpu")
else:
    CPP = unavailable
