"""What no implementation can undercut: the price of an autograd call, and of the arithmetic as one matrix product."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function


class Empty(Function):
    """Forward and backward that do nothing: a scalar of no value, and the input for a gradient."""

    @staticmethod
    def forward(ctx, current):
        ctx.save_for_backward(current)
        return current.new_empty(())

    @staticmethod
    def backward(ctx, g_out):
        return ctx.saved_tensors[0]


def matrix_product(dots: int, dim: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """One matrix product of (at least) this many dot products of length dim, into memory that is already there."""
    rows = max(1, round((2 * dots) ** 0.5))  # twice as high as wide: [n+m, D] times [D, (n+m)/2] for whole windows
    columns = -(-dots // rows)
    left, right = torch.ones(rows, dim, dtype=dtype), torch.ones(dim, columns, dtype=dtype)
    out = torch.empty(rows, columns, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)
