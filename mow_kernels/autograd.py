"""Implementations of the distances from what computes them: fused ops under autograd, or plain differentiable code.

A fused op returns the value together with its gradient for `current`, so that backward is one product.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.function import _SingleLevelFunction

from mow_kernels import transforms
from mow_kernels.compiling import constant_in_graphs
from mow_kernels.registry import Implementation, Newest, Options

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


def value(current: Tensor, launch: Launch) -> Tensor:
    """The value of a launch, with a gradient for current where it requires one."""
    if torch.compiler.is_compiling():
        if _are_transformed_in_graph():
            samples = (launch.history, launch.prior) if launch.stays else (None, None)
            return launch.reference(current, *samples, **launch.options)
        if current.requires_grad and torch.is_grad_enabled():
            return _InGraph.apply(launch, current)
    elif _are_transformed():
        transforms.check_forward_mode("a distance")
        return transforms.Value.apply(*transforms.apart(launch, current))
    elif current.requires_grad and torch.is_grad_enabled():
        return _ValueWithGradient.apply(launch, current)  # type: ignore[attr-defined]  # it is PyTorch's C++
    return launch.fwd(*launch.samples(current), False)[0]


def gradient(measure: bool, current: Tensor, launch: Launch) -> tuple[Tensor, Tensor | None]:
    """`Implementation.gradient` of a launch."""
    current = current.detach()
    if not torch.compiler.is_compiling() and _are_transformed():
        parts = transforms.apart(launch, current)
        return transforms.Gradient.apply(*parts).detach(), transforms.Value.apply(*parts).detach() if measure else None
    if launch.alone is not None and not measure:
        return launch.alone(*launch.samples(current)), None
    value, g_current = launch.fwd(*launch.samples(current), True)
    return g_current, value if measure else None


class _ValueWithGradient(_SingleLevelFunction):
    """The value of a launch for `current`, and in backward the gradient that came with it.

    Of a step, and so of few parts: the gradient is all that PyTorch saves, and the samples may be overwritten. They are
    held for who wants a graph of the gradient (create_graph), and let go with what PyTorch saved. A Function that is
    not transformed, without what `apply` asks about that first: 1.5 us.
    """

    @staticmethod
    def forward(ctx: Any, launch: Launch, current: Tensor) -> Tensor:
        ctx.measured, ctx.changes = (launch, current), _changes(launch, current)
        value, g_current = launch.fwd(*launch.samples(current), True)
        ctx.save_for_backward(g_current)
        return value

    @staticmethod
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor | None, ...]:
        (g_current,) = ctx.saved_tensors
        if torch.compiler.is_compiling():  # compiled autograd, of a forward that was not
            return None, g_out * g_current
        if torch.is_grad_enabled():
            launch, current = ctx.measured
            if ctx.changes != _changes(launch, current):
                raise RuntimeError(
                    "a sample of this distance has been modified by an inplace operation since it was measured; to "
                    "differentiate its gradient (create_graph), do so before"
                )
            g_current = transforms.Gradient.apply(*transforms.apart(launch, current, known=g_current.detach()))
        if not _keeps_graph():
            ctx.measured = None
        return None, g_out * g_current


class _InGraph(torch.autograd.Function):
    """The same in a compiled graph, where nothing is differentiated twice; torch.compile traces no other base class."""

    @staticmethod
    def forward(ctx: Any, launch: Launch, current: Tensor) -> Tensor:
        value, g_current = launch.fwd(*launch.samples(current), True)
        ctx.save_for_backward(g_current)
        return value

    @staticmethod
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor | None, ...]:
        (g_current,) = ctx.saved_tensors
        return None, g_out * g_current


def _changes(launch: Launch, current: Tensor) -> int:
    """How often the samples have been changed in place, in all."""
    _, _, history, prior, _, _, options, stays = launch
    try:
        changes = current._version
        if stays:
            changes += history._version if prior is None else history._version + prior._version
        for option in options.values():
            if isinstance(option, Tensor):
                changes += option._version
    except RuntimeError:  # an inference tensor, which does not count
        samples = (current, history if stays else None, prior if stays else None, *options.values())
        return sum(each._version for each in samples if isinstance(each, Tensor) and not each.is_inference())
    return changes


def _are_transformed() -> bool:
    """Whether torch.func transforms what is computed, or dual numbers are made."""
    return transformed_by_func() or forward_ad._current_level >= 0


@constant_in_graphs
def _are_transformed_in_graph() -> bool:
    """The same of a graph at this place, in which torch.compile would leave out what a Function does in backward."""
    return transformed_by_func()


transformed_by_func: Callable[[], bool] = torch._C._are_functorch_transforms_active

_keeps_graph: Callable[[], bool] = torch._C._autograd._get_current_graph_task_keep_graph
"""Whether the backward that runs is to be followed by another over the same graph."""


def fused(
    fwd: Callable[..., tuple[Tensor, Tensor]],
    alone: Callable[..., Tensor] | None,
    arguments: Arguments,
    reference: Callable[..., Tensor],
    ring: Callable[..., tuple[Tensor, Tensor]] | None = None,
    **fields: Any,
) -> Implementation:
    """The implementation by a fused op.

    Args:
        fwd, alone, arguments, reference: those of a `Launch`.
        ring: ring(current, slots, head, rows, prior, *arguments, measure) -> value, gradient, over the newest rows of a
            ring and current; None where there is none.
        fields: the other fields of the `Implementation`.
    """

    def run(current: Tensor, history: Tensor, prior: Tensor | None, **options: Any) -> Tensor:
        return value(current, Launch(fwd, alone, history, prior, arguments, reference, options))

    def without_graph(
        measure: bool, current: Tensor, history: Tensor, prior: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        return gradient(measure, current, Launch(fwd, alone, history, prior, arguments, reference, options))

    def over_ring(
        measure: bool, current: Tensor, history: Newest, prior: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        if _are_transformed():
            return without_graph(measure, current, history.rows(), prior, **options)
        current = current.detach()
        given = arguments(current, len(current) + history.count, prior is None, options)
        assert ring is not None  # without one there is no way here
        value, g_current = ring(current, history.slots, history.head, history.count, prior, *given, measure)
        return g_current, value if measure else None

    return Implementation(run, gradient=without_graph, ring=None if ring is None else over_ring, **fields)


def by_autograd(distance: Callable[..., Tensor]) -> Implementation:
    """The implementation by a differentiable function distance(current, history, prior, **options)."""

    def without_graph(
        measure: bool, current: Tensor, history: Tensor, prior: Tensor | None, **options: Any
    ) -> tuple[Tensor, Tensor | None]:
        if torch.compiler.is_compiling() or _are_transformed():
            of_current = torch.func.grad_and_value(lambda current: distance(current, history, prior, **options))
            g_current, value = of_current(current.detach())
            return g_current.detach(), value.detach() if measure else None
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
