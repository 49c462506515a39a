"""A gradient to both samples, from distances that give one to the first."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor


def both(distance: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """distance(x, y), with a gradient to each of the two that requires one: a call a side, the roles exchanged.

    Args:
        distance: symmetric, with a gradient to its first argument alone, e.g. `lambda x, y: mk.mmd(x, None, y)`.
        x, y: [n, D] and [m, D].
    """
    if not y.requires_grad:
        return distance(x, y)
    of_y = distance(y, x.detach())
    if not x.requires_grad:
        return of_y
    return distance(x, y.detach()) + (of_y - of_y.detach())
