"""What distances are sums of: a function of the distance or the product over pairs of rows, or of directions."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import torch
from torch import Tensor

Radial = Callable[[Tensor], Tensor]
"""Elementwise function of the argument, which is the squared distance unless another is named."""

Argument = Callable[[Tensor, Tensor], Tensor]
"""x [a, D], y [b, D] -> [a, b]: what a function of a pair of rows is a function of."""


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|^2 from direct differences. x [a, D], y [b, D] -> [a, b].

    Exact for coinciding rows of any magnitude, where |x|^2 + |y|^2 - 2xy loses every digit, and without the square
    root whose derivative at zero is no number.
    """
    return (x.unsqueeze(1) - y).square().sum(-1)


def products(x: Tensor, y: Tensor) -> Tensor:
    """x_i . y_j. x [a, D], y [b, D] -> [a, b]."""
    return x @ y.mT


class Pairwise(NamedTuple):
    """A distance from n rows z to N(0, I) as sums over pairs of rows and over rows:

    pair * sum_{i != j} radial(|z_i - z_j|^2) + single * sum_i own(z_i) + constant,

    or of what `argument` says in place of the squared distance.

        >>> parts = mk.to_normal(mk.cramer_wold, z, 64)
        >>> rows = torch.cat([history, z.detach()])
        >>> value = parts.pair * parts.within(rows) + parts.single * parts.own(rows).sum() + parts.constant
        >>> torch.testing.assert_close(value, mk.cramer_wold(rows))

    Two are over the same radial function where their `kernel` is equal: sums over pairs may be carried from one to the
    other.
    """

    kernel: Hashable
    radial: Radial
    own: Callable[[Tensor], Tensor]
    """[a, D] -> [a]."""
    pair: float
    single: float
    constant: float
    argument: Argument = squared_distances

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """radial(|x_i - y_j|^2). x [a, D], y [b, D] -> [a, b], by way of a x b x D numbers."""
        return self.radial(self.argument(x, y))

    def between(self, x: Tensor, y: Tensor) -> Tensor:
        """sum_ij radial(|x_i - y_j|^2). x [a, D], y [b, D] -> 0-d."""
        return sum_between(self.radial, x, y, self.argument)

    def within(self, x: Tensor) -> Tensor:
        """sum_{i != j} radial(|x_i - x_j|^2). x [a, D] -> 0-d."""
        return sum_within(self.radial, x, self.argument)


class Sliced(NamedTuple):
    """A distance from rows to N(0, I) as a mean over directions of a function of the projections on each.

    >>> sliced = mk.to_normal(mk.sliced_wasserstein, z, 64, directions=20)
    >>> sliced.over(z @ sliced.directions, history @ sliced.directions).shape
    torch.Size([])
    """

    directions: Tensor
    """[D, L]."""
    over: Callable[[Tensor, Tensor], Tensor]
    """The mean over any l of the directions, from the projections current [k, l] and history [h, l] on them -> 0-d."""


_CHUNK = 2**24  # numbers held at once by the differences of one chunk: 64 MiB in float32


def sum_between(radial: Radial, x: Tensor, y: Tensor, argument: Argument = squared_distances) -> Tensor:
    """sum_ij radial(|x_i - y_j|^2) over all pairs. x [a, D], y [b, D] -> 0-d; zero when a or b is."""
    total = x.new_zeros(())
    for chunk in x.split(_rows(y)):
        total = total + radial(argument(chunk, y)).sum()
    return total


def sum_within(radial: Radial, x: Tensor, argument: Argument = squared_distances) -> Tensor:
    """sum_{i != j} radial(|x_i - x_j|^2) over ordered pairs. x [a, D] -> 0-d; zero when a < 2."""
    total = x.new_zeros(())
    for start in range(0, len(x), _rows(x)):
        chunk = x[start : start + _rows(x)]
        own = torch.eye(len(chunk), len(x) - start, dtype=torch.bool, device=x.device)
        values = radial(argument(chunk, x[start:])).masked_fill(own, 0)
        among, later = values[:, : len(chunk)], values[:, len(chunk) :]
        total = total + among.sum() + 2 * later.sum()
    return total


def sum_window(radial: Radial, current: Tensor, history: Tensor, argument: Argument = squared_distances) -> Tensor:
    """sum_{i != j} radial over the window [history; current], the graph kept for the pairs that touch current only.

    current [k, D], history [h, D] -> 0-d.
    """
    live = sum_within(radial, current, argument) + 2 * sum_between(radial, current, history, argument)
    return live + sum_within(radial, history, argument)


def _rows(y: Tensor) -> int:
    """The number of rows of x to be compared with all of y [b, D] at once."""
    return max(1, _CHUNK // max(1, y.numel()))


def over_window(distance: Pairwise, current: Tensor, history: Tensor) -> Tensor:
    """The distance over [history; current], the graph kept for what touches current only. -> 0-d."""
    among = sum_window(distance.radial, current, history, distance.argument)
    alone = distance.own(current).sum() + distance.own(history).sum()
    return distance.pair * among + distance.single * alone + distance.constant
