"""Greedy k-centre, for core-sets: the public function, its checks, and its row."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from mow_kernels import checks
from mow_kernels.calls import run
from mow_kernels.reference import k_center as reference
from mow_kernels.registry import Call, Op


class Centers(NamedTuple):
    """What `k_center` finds."""

    indices: Tensor
    """int64 [k], in the order in which they were taken; all different."""
    radius: Tensor
    """0-d: the largest distance of a row to its nearest centre; float32 for half inputs, else of x's dtype."""
    counts: Tensor
    """int64 [k], the rows that belong to each centre, itself among them; they add up to N."""


def k_center(x: Tensor, k: int, *, start: int | None = None, generator: torch.Generator | None = None) -> Centers:
    r"""Greedy k-centre: k rows of x that cover it.

    Beginning with `start`, takes the row farthest (Euclidean) from those already taken, until there are k. Of equally
    far rows it takes the lowest index, never a row twice. A row belongs to the centre nearest to it, to the earliest
    of equally near ones. The covering radius is at most twice the smallest that any k rows have.

        >>> indices, radius, counts = mk.k_center(torch.randn(1000, 8), 10, start=0)

    Takes O(NkD) time and, beside a copy of x, O(N) memory: there is no N x N matrix. Every backend takes the same rows,
    ties and duplicates included, since the order of the rounding is part of the definition
    (`mow_kernels/reference/k_center.py`). No gradient flows.

    Args:
        x: [N, D], N >= 1. float32 or float64; float16 and bfloat16 are widened to float32. A row that holds NaN is
            infinitely far from all others (`check_finite` refuses it).
        k: how many rows to take, 1 <= k <= N.
        start: the index of the first; None to draw it.
        generator: what it is drawn from; None for PyTorch's default generator of the CPU.

    Returns:
        `Centers`: indices int64 [k], the covering radius (0-d, in the units of x) and the Voronoi counts int64 [k].

    Raises:
        TypeError, ValueError: a bad argument, by name.

    Source: Gonzalez, "Clustering to Minimize the Maximum Intercluster Distance", 1985; as a choice of batches: Sinha et
    al., "Small-GAN: Speeding up GAN Training using Core-Sets", ICML 2020.
    """
    indices, squared_radius, counts = run(_check(x, k, start=start, generator=generator))
    return Centers(indices, squared_radius.sqrt(), counts)  # here, since roots are rounded differently, too


def _check(x: Tensor, k: int, *, start: int | None, generator: torch.Generator | None) -> Call:
    rows = checks.rows("x", x).detach()
    if len(rows) == 0:
        raise ValueError(f"x has shape {list(x.shape)}; it must have at least one row")
    _in_range("k", k, 1, len(rows))
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator is {generator!r}; it must be a torch.Generator or None")
    if start is None:
        return Call(OP, (rows,), {"k": k, "start": functools.partial(_draw_start, generator)})
    _in_range("start", start, 0, len(rows) - 1)
    return Call(OP, (rows,), {"k": k, "start": start})


def _draw_start(generator: torch.Generator | None, rows: int) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(rows, (), generator=generator, device=device))


def _draw(call: Call) -> Call:
    """The call with a first row in the place of what draws it."""
    (rows,), start = call.arguments, call.options["start"]
    return call if isinstance(start, int) else call._replace(options={**call.options, "start": start(len(rows))})


def _fake(x: Tensor, k: int, start: int) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(k, dtype=torch.int64), x.new_empty(()), x.new_empty(k, dtype=torch.int64)


def _in_range(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; for this x it must be from {low} to {high}")


OP = Op("k_center", k_center, _check, reference.k_center, _draw, _fake)
