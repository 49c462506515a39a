"""A gradient to both samples, from distances that give one to the first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import mow_kernels as mk


def both(function: Callable[..., Tensor], x: Tensor, y: Tensor, **options: Any) -> Tensor:
    """function(x, None, y, **options), with a gradient to each of the two samples that requires one.

        >>> from mow.adapters.both import both
        >>> d = both(mk.mmd, z, encoder(x), estimator="biased")         # both may be the same network's
        >>> d.backward()

    The gradients come from a call a side, the roles exchanged. Second derivatives are exact, the mixed ones too: they
    are those of the reference, and take its memory.

    Args:
        function: mmd, cramer_wold or another distance of mow_kernels, with options under which it is symmetric: no
            gamma=None where n and m differ, no directions drawn at each call.
        x, y: [n, D] and [m, D].
        options: of that function.

    Returns:
        0-d.

    Raises:
        What the function raises.
    """
    if not torch.is_grad_enabled():
        x, y = x.detach(), y.detach()
    if not y.requires_grad:
        return function(x, None, y, **options)
    if not x.requires_grad:
        return function(y, None, x, **options)
    value: Tensor = _WithBothGradients.apply(function, options, x, y)[0]
    return value


class _WithBothGradients(torch.autograd.Function):
    """The value, and in backward the gradients that came with it; under create_graph those of the reference.

    Tensors among the options are saved as the samples are: a change in place before backward is PyTorch's own error.
    """

    @staticmethod
    def forward(
        function: Callable[..., Tensor], options: dict[str, Any], x: Tensor, y: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        g_x, value = mk.gradient(function, x, None, y.detach(), measure=True, **options)
        g_y, _ = mk.gradient(function, y, None, x.detach(), **options)
        assert value is not None  # it was asked for
        return value, g_x, g_y

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.function, options, x, y = inputs
        _, g_x, g_y = output
        ctx.mark_non_differentiable(g_x, g_y)
        ctx.options = {name: None if isinstance(value, Tensor) else value for name, value in options.items()}
        ctx.tensors = [name for name, value in options.items() if isinstance(value, Tensor)]
        ctx.save_for_backward(x, y, g_x, g_y, *(options[name] for name in ctx.tensors))

    @staticmethod
    def backward(ctx: Any, g_value: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, y, g_x, g_y, *tensors = ctx.saved_tensors
        if not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return None, None, g_value * g_x, g_value * g_y
        x, y = x.view_as(x), y.view_as(y)  # two variables also where they are one tensor
        options = ctx.options | dict(zip(ctx.tensors, tensors, strict=True))
        value = mk.differentiable(ctx.function, x, None, y, **options)
        return None, None, *torch.autograd.grad(value, (x, y), g_value, create_graph=True)
