"""Implementations of the distances from what computes them: fused ops under autograd, or plain differentiable code.

A fused op returns the value together with its gradient for `current`, so that backward is one product.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mow_kernels.registry import Implementation, Options

Arguments = Callable[[Tensor, int, bool, Options], tuple[Any, ...]]
"""How the options travel to a fused op, see `DistanceOp.fused_arguments`."""


class Launch(NamedTuple):
    """What a fused op is launched with."""

    fwd: Callable[..., tuple[Tensor, Tensor]]
    """fwd(current, history, prior, *arguments, needs_grad) -> value, gradient."""
    alone: Callable[..., Tensor] | None
    """alone(current, history, prior, *arguments) -> that gradient, where it takes less by itself."""
    history: Tensor
    """[h, D], or what else stands for the rows before current."""
    prior: Tensor | None
    arguments: Arguments
    reference: Callable[..., Tensor]
    """reference(current, history, prior, **options): differentiable, and says the same as `fwd`."""
    options: Options
    stays: bool = True
    """Whether history and prior stay as they are until backward. Where they do not, what a window keeps for one, the
    reference knows by itself what was measured, and gets None for them."""

    def samples(self, current: Tensor) -> tuple[Any, ...]:
        """(current, history, prior, *arguments)."""
        n = current.shape[0] + self.history.shape[0]
        arguments = self.arguments(current, n, self.prior is None, self.options)
        return current, self.history, self.prior, *arguments


class _ValueWithGradient(torch.autograd.Function):
    """The value of a launch for `current`, and in backward the gradient that came with it.

    That gradient has no graph. Where one is wanted (create_graph), backward differentiates the reference instead, so
    that a penalty on the gradient keeps its own; the samples must be those that were measured then. Without, they may
    be overwritten. PyTorch saves every tensor, and frees it after backward.
    """

    @staticmethod
    def forward(ctx: Any, launch: Launch, current: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # where nothing is differentiated twice
            value, g_current = launch.fwd(*launch.samples(current), True)
            ctx.save_for_backward(g_current)
            return value
        tensors = {name: option for name, option in launch.options.items() if isinstance(option, Tensor)}
        ctx.reference, ctx.tensors = launch.reference, tuple(tensors)
        ctx.options = launch.options if not tensors else {k: v for k, v in launch.options.items() if k not in tensors}
        samples = (*((launch.history, launch.prior) if launch.stays else (None, None)), *tensors.values())
        ctx.seen = [_version(sample) for sample in samples if sample is not None]
        aliases = [None if sample is None else _alias(sample) for sample in samples]
        value, g_current = launch.fwd(*launch.samples(current), True)
        ctx.save_for_backward(g_current, current, *aliases)
        return value

    @staticmethod
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor | None, ...]:
        g_current, *saved = ctx.saved_tensors
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            for origin, version in ctx.seen:
                if (sample := origin()) is not None and not sample.is_inference() and sample._version != version:
                    raise RuntimeError(
                        "a sample of this distance has been modified by an inplace operation since it was measured; to "
                        "differentiate its gradient (create_graph), do so before"
                    )
            current, history, prior, *tensors = saved
            options = {**ctx.options, **dict(zip(ctx.tensors, tensors, strict=True))}
            value = ctx.reference(current, history, prior, **options)
            return None, *torch.autograd.grad(value, current, g_out, create_graph=True)
        return None, g_out * g_current


def _version(sample: Tensor) -> tuple[Callable[[], Tensor | None], int]:
    """Whose changes in place are those of a sample, and how many there have been."""
    origin = sample if sample._base is None else sample._base
    return weakref.ref(origin), 0 if origin.is_inference() else origin._version


def _alias(sample: Tensor) -> Tensor:
    """The sample for PyTorch to save, which counts no changes: the first derivative does not depend on them."""
    return sample.clone() if sample.is_inference() else sample.data


def value(current: Tensor, launch: Launch) -> Tensor:
    """The value of a launch, with a gradient for current where it requires one."""
    if current.requires_grad and torch.is_grad_enabled():
        return _ValueWithGradient.apply(launch, current)
    return launch.fwd(*launch.samples(current), False)[0]


def gradient(measure: bool, current: Tensor, launch: Launch) -> tuple[Tensor, Tensor | None]:
    """`Implementation.gradient` of a launch."""
    current = current.detach()
    if launch.alone is not None and not measure:
        return launch.alone(*launch.samples(current)), None
    value, g_current = launch.fwd(*launch.samples(current), True)
    return g_current, value if measure else None


def fused(
    fwd: Callable[..., tuple[Tensor, Tensor]],
    alone: Callable[..., Tensor] | None,
    arguments: Arguments,
    reference: Callable[..., Tensor],
    **fields: Any,
) -> Implementation:
    """The implementation by a fused op.

    Args:
        fwd, alone, arguments, reference: those of a `Launch`.
        fields: the other fields of the `Implementation`.
    """

    def run(current: Tensor, history: Tensor, prior: Tensor | None, **options: Any) -> Tensor:
        return value(current, Launch(fwd, alone, history, prior, arguments, reference, options))

    def without_graph(
        measure: bool, current: Tensor, history: Tensor, prior: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        return gradient(measure, current, Launch(fwd, alone, history, prior, arguments, reference, options))

    return Implementation(run, gradient=without_graph, **fields)


def by_autograd(distance: Callable[..., Tensor]) -> Implementation:
    """The implementation by a differentiable function distance(current, history, prior, **options)."""

    def without_graph(
        measure: bool, current: Tensor, history: Tensor, prior: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        with torch.enable_grad():
            current = current.detach().requires_grad_()
            value = distance(current, history, prior, **options)
            (g_current,) = torch.autograd.grad(value, current)
        return g_current, value.detach() if measure else None

    return Implementation(distance, gradient=without_graph)


def fake(current: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
    """The shapes of the results of a fused `fwd`, for torch.compile; the last argument is needs_grad."""
    wide = current.dtype if current.dtype == torch.float64 else torch.float32
    return current.new_empty((), dtype=wide), current.new_empty(current.shape if arguments[-1] else 0)


def fake_gradient(current: Tensor, *arguments: Any) -> Tensor:
    """The shape of the result of a fused `gradient`."""
    return torch.empty_like(current, memory_format=torch.contiguous_format)
