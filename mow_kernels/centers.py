"""The public function for core-sets: rows of a sample that cover it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mow_kernels import checks
from mow_kernels.registry import Call, select


class Centers(NamedTuple):
    """What `k_center` finds."""

    indices: Tensor
    """int64 [k], in the order in which they were taken; all different."""
    radius: Tensor
    """0-d: the largest distance of a row to its nearest centre; float32 for half inputs, else of x's dtype."""
    counts: Tensor
    """int64 [k], the rows that belong to each centre, itself among them; they add up to N."""


def check_k_center(x: Tensor, k: int, *, start: int | None = None, generator: torch.Generator | None = None) -> Call:
    """The checked call of `k_center`; a start that is not given is drawn."""
    rows = checks.rows("x", x).detach()
    if len(rows) == 0:
        raise ValueError(f"x has shape {list(x.shape)}; it must have at least one row")
    _in_range("k", k, 1, len(rows))
    if start is not None:
        _in_range("start", start, 0, len(rows) - 1)
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator is {generator!r}; it must be a torch.Generator or None")
    if start is None:
        device = "cpu" if generator is None else generator.device
        start = int(torch.randint(len(rows), (), generator=generator, device=device))
    return Call("k_center", (rows,), {"k": k, "start": start})


def k_center(x: Tensor, k: int, *, start: int | None = None, generator: torch.Generator | None = None) -> Centers:
    r"""Greedy k-centre: k rows of x that cover it.

    Beginning with `start`, takes the row farthest (Euclidean) from those already taken, until there are k. Of equally
    far rows it takes the lowest index, never a row twice. A row belongs to the centre nearest to it, to the earliest
    of equally near ones. The covering radius is at most twice the smallest that any k rows have.

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
    op, arguments, options = check_k_center(x, k, start=start, generator=generator)
    indices, squared_radius, counts = select(op, arguments, options).run(*arguments, **options)
    return Centers(indices, squared_radius.sqrt(), counts)  # here, since roots are rounded differently, too


def _in_range(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer")
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; for this x it must be from {low} to {high}")
