"""Greedy k-centre, for core-sets: the public function, its checks, and its row."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mow_kernels import checks
from mow_kernels.calls import run
from mow_kernels.reference import k_center as reference
from mow_kernels.registry import Call, Op


class Centers(NamedTuple):
    """What `k_center` finds.

    >>> centers = mk.k_center(torch.tensor([[0.0], [1.0], [9.0]]), 2, start=0)
    >>> centers.indices.tolist(), float(centers.radius), centers.counts.tolist()
    ([0, 2], 1.0, [2, 1])
    """

    indices: Tensor
    """int64 [k], in the order in which they were taken; all different."""
    radius: Tensor
    """0-d: the largest distance of a row to its nearest centre; float32 for half inputs, else of x's dtype."""
    counts: Tensor
    """int64 [k], the rows that belong to each centre, itself among them; they add up to N, less the rows that belong to
    centres that were given."""


def k_center(
    x: Tensor, k: int, *, start: int | Tensor | Sequence[int] | None = None, generator: torch.Generator | None = None
) -> Centers:
    r"""Greedy k-centre: k rows of x that cover it.

    Beginning with `start`, takes the row farthest (Euclidean) from those already taken, until there are k. Of equally
    far rows it takes the lowest index, never a row twice. A row belongs to the centre nearest to it, to the earliest
    of equally near ones. The covering radius is at most twice the smallest that any k rows have.

        >>> indices, radius, counts = mk.k_center(torch.randn(1000, 8), 10, start=0)

    Rows may be centres already, such as the labelled ones of active learning: k new ones are then chosen beside them.

        >>> indices, radius, counts = mk.k_center(torch.randn(1000, 8), 10, start=[3, 14, 159])

    Takes O(NkD) time and, beside a copy of x, O(N) memory: there is no N x N matrix. Every backend takes the same rows,
    ties and duplicates included, since the order of the rounding is part of the definition
    (`mow_kernels/reference/k_center.py`). No gradient flows.

    Args:
        x: [N, D], N >= 1. float32 or float64; float16 and bfloat16 are widened to float32. A row that holds NaN or
            infinity is refused on the CPU; elsewhere, where to look would be to wait for the device, within
            `check_finite` alone, and else is infinitely far from all others.
        k: how many rows to take, 1 <= k <= N, less the centres that are given.
        start: the index of the first, which counts among the k; None to draw it. Or the indices of rows that are
            centres already, [s], as a tensor or a sequence: they do not count among the k, are not returned, and come
            before the others where a row is equally near. None of them is as None.
        generator: what it is drawn from; None for PyTorch's default generator of the CPU.

    Returns:
        `Centers`: indices int64 [k], the covering radius (0-d, in the units of x) and the Voronoi counts int64 [k].

    Raises:
        TypeError, ValueError: a bad argument, by name.

    Source: Gonzalez, "Clustering to Minimize the Maximum Intercluster Distance", 1985; as a choice of batches: Sinha et
    al., "Small-GAN: Speeding up GAN Training using Core-Sets", ICML 2020; beside given centres: Sener and Savarese,
    "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018.
    """
    call = _check(x, k, start=start, generator=generator)
    indices, squared_radius, counts = run(call)
    if x.is_cpu and not torch.compiler.is_compiling():
        _refuse_what_is_not_finite(call, indices, squared_radius)
    return Centers(indices, squared_radius.sqrt(), counts)  # here, since roots are rounded differently, too


def _refuse_what_is_not_finite(call: Call, indices: Tensor, squared_radius: Tensor) -> None:
    """Raises ValueError for a row that is not finite.

    Such a row is infinitely far from all others. So none is there where the first centre has finite values and the row
    farthest from it, which is the second, is at a finite distance; all rows are looked at only where that is not so.
    """
    (rows,) = call.arguments
    if call.options["given"] is None:
        first, second = indices[:1].tolist() * 2 if len(indices) == 1 else indices[:2].tolist()
        if math.isfinite(torch.dist(rows[first], rows[second])) and (first != second or math.isfinite(squared_radius)):
            return
    bad = (~rows.isfinite().all(1)).nonzero()[:, 0].tolist()
    if bad:  # else they are so far apart that squares overflow
        more = f" (and {len(bad) - 1} rows more)" if len(bad) > 1 else ""
        raise ValueError(f"x[{bad[0]}] holds NaN or infinite values{more}; rows must be finite")


def _check(x: Tensor, k: int, *, start: int | Tensor | Sequence[int] | None, generator: torch.Generator | None) -> Call:
    rows = checks.rows("x", x).detach()
    if len(rows) == 0:
        raise ValueError(f"x has shape {list(x.shape)}; it must have at least one row")
    given = _given(start, len(rows))
    k = _in_range("k", k, 1, len(rows) - (0 if given is None else len(given)))
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator is {generator!r}; it must be a torch.Generator or None")
    if given is not None and len(given):
        return Call(OP, (rows,), {"k": k, "start": 0, "given": given})
    first: int | functools.partial[int] = functools.partial(_draw_start, generator)
    if start is not None and given is None:
        first = _in_range("start", start, 0, len(rows) - 1)
    return Call(OP, (rows,), {"k": k, "start": first, "given": None})


def _draw_start(generator: torch.Generator | None, rows: int) -> int:
    device = "cpu" if generator is None else generator.device
    return int(torch.randint(rows, (), generator=generator, device=device))


def _draw(call: Call) -> Call:
    """The call with a first row in the place of what draws it."""
    (rows,), start = call.arguments, call.options["start"]
    if isinstance(start, int):
        return call
    return call._replace(options={**call.options, "start": start(len(rows))})


def _fake(x: Tensor, k: int, start: int, given: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(k, dtype=torch.int64), x.new_empty(()), x.new_empty(k, dtype=torch.int64)


def _given(start: object, rows: int) -> Tensor | None:
    """The different rows of x that are centres already, int64 [s] on the CPU; None for what is no collection."""
    is_tensor = isinstance(start, Tensor) or hasattr(start, "__array_interface__")
    if start is None or isinstance(start, str) or not (is_tensor or isinstance(start, Sequence)):
        return None
    indices = torch.as_tensor(start, device="cpu")
    if indices.dim() == 0:
        return None
    if indices.numel() == 0:
        return indices.long()
    if indices.dim() > 1:
        raise ValueError(f"start has shape {list(indices.shape)}; it must be an index or indices [s]")
    if indices.dtype == torch.bool or indices.is_floating_point() or indices.is_complex():
        hint = "; of a mask, pass mask.nonzero()[:, 0]" if indices.dtype == torch.bool else ""
        raise TypeError(f"start holds {indices.dtype}; it must hold integers{hint}")
    indices = indices.long().unique()
    for index in indices[[0, -1]].tolist():
        if not 0 <= index < rows:
            raise ValueError(f"start holds {index}; for this x each must be from 0 to {rows - 1}")
    return indices


def _in_range(name: str, value: object, low: int, high: int) -> int:
    checked = checks.integer(name, value)
    if not low <= checked <= high:
        raise ValueError(f"{name} is {checked}; for this x it must be from {low} to {high}")
    return checked


OP = Op("k_center", k_center, _check, reference.k_center, _draw, _fake)
