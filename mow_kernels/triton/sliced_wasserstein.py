"""Sliced-Wasserstein distance, equations (1) and (2) of mow_kernels/reference/sliced_wasserstein.py.

    match    a direction: its projections sorted, coupled with the prior's order statistics, the cost of the
             differences, and for each current row the derivative of the cost for its projection
    finish   the mean of the costs, and the derivatives times the directions: the gradient

A position in the sorted order carries the number of its row, so a current row finds its partners without a search, and
equal projections go by row index. Up to SORTED rows a block sorts in its registers, projections and all, and there are
two launches; beyond, and in float64, the projections are written down and torch.sort puts them in order. The gradient
alone of few current rows sorts no window, but counts the projections below theirs.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from mow_kernels.ops.sliced_wasserstein import normal_bins
from mow_kernels.reference import sliced_wasserstein as reference
from mow_kernels.triton.thresholds import threshold

SORTED = threshold("MOW_TRITON_SORTED", 1024)
"""Rows that a block sorts: 8 keys a thread, with 64 bits each for the number and its row."""

COUNTED = threshold("MOW_TRITON_COUNTED", 64)
"""Current rows whose ranks are counted, a pass over the window each, where the gradient alone is wanted."""


class Coupling(NamedTuple):
    """The steps of two quantile functions on one grid: row i of n covers [i, i+1) * per_row out of `whole`, row j of m
    covers [j, j+1) * per_prior."""

    per_row: int
    per_prior: int
    whole: int
    steps: int
    """The most steps of the prior that a row meets."""


@functools.lru_cache(maxsize=256)
def coupling(n: int, m: int) -> Coupling:
    divisor = math.gcd(n, m)
    per_row, per_prior = m // divisor, n // divisor
    return Coupling(per_row, per_prior, n * per_row, (per_row + per_prior - 2) // per_prior + 1)


def _bins(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The variance inside the bins of N(0, 1) and the bins' means, of the one table that is on the device: a copy from
    the host would wait in every step, and cannot be captured in a graph."""
    table = normal_bins(n, device)
    return table[:1], table[1:]


def sliced_wasserstein(
    current: Tensor,
    history: Tensor,
    prior: Tensor | None,
    directions: Tensor,
    p: float,
    needs_grad: bool,
    needs_value: bool = True,
) -> tuple[Tensor, Tensor]:
    """The value [] and the gradient for current [k, D] in its dtype, each [0] where it is not needed. directions as for
    `reference.unit`."""
    (k, dim), h, count = current.shape, len(history), directions.shape[-1]
    n = h + k
    m = n if prior is None else len(prior)
    wide = torch.float64 if current.dtype == torch.float64 else torch.float32

    def empty(*shape: int, dtype: torch.dtype = wide) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=current.device)

    value = empty() if needs_value else empty(0)
    g_current = empty(*(current.shape if needs_grad else (0,)), dtype=current.dtype)
    slopes = empty(count, k) if needs_grad else value
    window = (history, current, *history.stride(), *current.stride(), h, k)
    options = {"DIM": dim, "NORMAL": prior is None, "GRADIENT": needs_grad, "POWER": p}
    counts = not needs_value and k <= COUNTED
    coupled = coupling(n, m)
    steps = {"STEPS": min(64, triton.next_power_of_2(coupled.steps))}
    in_a_block = max(n, m) <= SORTED and wide == torch.float32
    drawn = directions.dim() == 3
    directions = directions[0] if drawn and in_a_block else reference.unit(directions)
    inside, partners = _bins(n, current.device) if prior is None else (value, None)

    if in_a_block:
        costs = empty(count, dtype=torch.float64)
        partners = empty(count, m) if partners is None else partners
        size, size_m = (max(16, triton.next_power_of_2(rows)) for rows in (n, m))
        match_kernel[(count,)](
            *window, current if prior is None else prior, *(current if prior is None else prior).stride(),
            directions, *directions.stride(), partners, m, *coupled, costs, slopes,
            SIZE=size, SIZE_M=size_m, DEPTH=_depth(dim, max(size, size_m)), COUNTS=counts, DRAWN=drawn,
            **steps, **options, num_warps=8 if max(size, size_m) > 256 else 4,
        )  # fmt: skip
    else:
        rows = 256
        columns = (triton.cdiv(n, rows), count)
        x = empty(count, n)
        shared = {"DIM": dim, "ROWS": rows, "DEPTH": _depth(dim, rows), "num_warps": 4}
        project_kernel[columns](*window, directions, *directions.stride(), x, **shared)
        if not counts:
            x, order = torch.sort(x, dim=1, stable=True)
        if prior is not None:
            y = empty(count, m)
            alone = (prior, prior, *prior.stride(), *prior.stride(), 0, m)  # no rows before them
            project_kernel[(triton.cdiv(m, rows), count)](*alone, directions, *directions.stride(), y, **shared)
            partners = torch.sort(y, dim=1).values
        costs = empty(count * columns[0], dtype=torch.float64)
        if counts:
            count_kernel[(k, count)](x, h, k, partners, m, *coupled, slopes, ROWS=1024, **steps, **options, num_warps=4)
        else:
            match_sorted_kernel[columns](
                x, order, h, k, partners, m, *coupled, costs, slopes, ROWS=rows, **steps, **options, num_warps=4
            )

    tile = {"ROWS": 16, "COLUMNS": min(64, max(16, triton.next_power_of_2(dim)))}
    grid = (triton.cdiv(k, tile["ROWS"]), triton.cdiv(dim, tile["COLUMNS"])) if needs_grad else (1, 1)
    finish_kernel[grid](
        costs, len(costs), slopes, directions, *directions.stride(), count, k, inside,
        value, g_current, DIM=dim, NORMAL=prior is None, VALUE=needs_value, GRADIENT=needs_grad, **tile,
        num_warps=4,
    )  # fmt: skip
    return value, g_current


def _depth(dim: int, rows: int) -> int:
    """Coordinates that a block takes at once of so many rows: 4096 numbers, 32 a thread."""
    return max(1, min(triton.next_power_of_2(dim), 4096 // rows))


_SIZES = ["h", "k", "m", "per_row", "per_prior", "whole", "steps", "parts", "count"]  # compiled once for every size


@triton.jit(do_not_specialize=_SIZES)
def match_kernel(
    history, current, h_row, h_column, c_row, c_column, h, k, prior, p_row, p_column, directions, d_row, d_column,
    partners, m, per_row, per_prior, whole, steps, costs, slopes,
    SIZE: tl.constexpr, SIZE_M: tl.constexpr, DIM: tl.constexpr, DEPTH: tl.constexpr, COUNTS: tl.constexpr,
    DRAWN: tl.constexpr, STEPS: tl.constexpr, NORMAL: tl.constexpr, GRADIENT: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    """Direction l from the rows: costs [L] (not with COUNTS); slopes [L, k], divided by the norms with DRAWN.
    partners: the bins, or scratch [L, m]."""
    direction = tl.program_id(0)
    theta = directions + direction.to(tl.int64) * d_column
    norm = 1.0
    if DRAWN:
        norm = _norm(theta, d_row, DIM)
    i = tl.arange(0, SIZE)
    x = _project(history, h_row, h_column, h, i, theta, d_row, DIM, DEPTH)
    x += _project(current, c_row, c_column, k, i - h, theta, d_row, DIM, DEPTH)
    x /= norm
    if COUNTS:
        row, key = tl.where(i < h + k, i, -1), _key(x, i, i < h + k)
        rank = tl.zeros([SIZE], tl.int32)
        for one in range(h, h + k):
            own = tl.sum(tl.where(i == one, key, 0), 0)
            rank = tl.where(i == one, tl.sum((key < own).to(tl.int32), 0), rank)
    else:
        x, row = _sort(x, i, i < h + k)
        rank = i
    if not NORMAL:
        j = tl.arange(0, SIZE_M)
        y = _project(prior, p_row, p_column, m, j, theta, d_row, DIM, DEPTH) / norm
        y, _ = _sort(y, j, j < m)
        partners += direction.to(tl.int64) * m
        tl.store(partners + j, y, mask=j < m)
        tl.debug_barrier()  # what the threads have written they read of each other from here on
    slopes += direction.to(tl.int64) * k
    cost = _match(
        x, norm, row, rank, h, k, partners, m, per_row, per_prior, whole, steps, slopes, STEPS, GRADIENT, POWER
    )
    if not COUNTS:
        tl.store(costs + direction, cost)


@triton.jit(do_not_specialize=_SIZES)
def project_kernel(
    history, current, h_row, h_column, c_row, c_column, h, k, directions, d_row, d_column, projections,
    DIM: tl.constexpr, ROWS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """projections [L, h + k]."""
    direction = tl.program_id(1).to(tl.int64)
    theta = directions + direction * d_column
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    x = _project(history, h_row, h_column, h, i, theta, d_row, DIM, DEPTH)
    x += _project(current, c_row, c_column, k, i - h, theta, d_row, DIM, DEPTH)
    tl.store(projections + direction * (h + k) + i, x, mask=i < h + k)


@triton.jit(do_not_specialize=_SIZES)
def match_sorted_kernel(
    sorted, order, h, k, partners, m, per_row, per_prior, whole, steps, costs, slopes,
    DIM: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, NORMAL: tl.constexpr, GRADIENT: tl.constexpr,
    POWER: tl.constexpr,
):  # fmt: skip
    """ROWS positions of direction l, from sorted [L, n] and the rows in order: costs [L * blocks], slopes [L, k]."""
    direction, n = tl.program_id(1).to(tl.int64), h + k
    i = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    x = tl.load(sorted + direction * n + i, mask=i < n, other=0)
    row = tl.load(order + direction * n + i, mask=i < n, other=0).to(tl.int32)
    if not NORMAL:
        partners += direction * m
    slopes += direction * k
    cost = _match(x, 1.0, row, i, h, k, partners, m, per_row, per_prior, whole, steps, slopes, STEPS, GRADIENT, POWER)
    tl.store(costs + direction * tl.num_programs(0) + tl.program_id(0), cost)


@triton.jit(do_not_specialize=_SIZES)
def count_kernel(
    projections, h, k, partners, m, per_row, per_prior, whole, steps, slopes,
    DIM: tl.constexpr, ROWS: tl.constexpr, STEPS: tl.constexpr, NORMAL: tl.constexpr, GRADIENT: tl.constexpr,
    POWER: tl.constexpr,
):  # fmt: skip
    """A current row and direction l, from projections [L, n] in the order of the rows: slopes [L, k]."""
    own, direction, n = h + tl.program_id(0), tl.program_id(1).to(tl.int64), h + k
    projections += direction * n
    x = tl.load(projections + own)
    below = tl.zeros([ROWS], tl.int32)
    for first in range(0, n, ROWS):
        row = first + tl.arange(0, ROWS)
        other = tl.load(projections + row, mask=row < n, other=float("inf"))
        below += ((other < x) | ((other == x) & (row < own))).to(tl.int32)
    rank, lane = tl.sum(below, 0), tl.arange(0, 2)  # no vector is shorter than that
    if not NORMAL:
        partners += direction * m
    _match(
        x + tl.zeros([2], x.dtype), 1.0, tl.where(lane == 0, own, -1), rank + tl.zeros([2], tl.int32), h, k, partners,
        m, per_row, per_prior, whole, steps, slopes + direction * k, STEPS, GRADIENT, POWER,
    )  # fmt: skip


@triton.jit(do_not_specialize=_SIZES)
def finish_kernel(
    costs, parts, slopes, directions, d_row, d_column, count, k, inside, value, g_current,
    DIM: tl.constexpr, NORMAL: tl.constexpr, VALUE: tl.constexpr, GRADIENT: tl.constexpr, ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    """The second stage, in a fixed order: value [] from costs [parts], g_current [k, D] from slopes [L, k]."""
    if GRADIENT:
        i = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
        d = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS).to(tl.int64)
        g = tl.zeros([ROWS, COLUMNS], tl.float64)
        column, theta = slopes + i, directions + d * d_row
        for _ in range(0, count):
            slope = tl.load(column, mask=i < k, other=0).to(tl.float64)
            g += slope[:, None] * tl.load(theta, mask=d < DIM, other=0).to(tl.float64)[None, :]
            column += k
            theta += d_column
        there = (i < k)[:, None] & (d < DIM)[None, :]
        g /= tl.full((), count, tl.float64)
        tl.store(g_current + i[:, None] * DIM + d[None, :], g.to(g_current.dtype.element_ty), mask=there)
    if VALUE and (tl.program_id(0) == 0) & (tl.program_id(1) == 0):
        part = tl.arange(0, 256)
        sums = tl.zeros([256], tl.float64)
        for first in range(0, parts, 256):
            sums += tl.load(costs + first + part, mask=first + part < parts, other=0)
        total = tl.sum(sums, 0) / tl.full((), count, tl.float64)
        if NORMAL:
            total += tl.load(inside)
        tl.store(value, total.to(value.dtype.element_ty))


@triton.jit
def _project(source, row_step, column_step, rows, i, theta, d_row, DIM: tl.constexpr, DEPTH: tl.constexpr):
    """source[i] . theta for 0 <= i < rows, else 0. Equal rows have equal projections, wherever they stand."""
    wide = tl.float64 if source.dtype.element_ty == tl.float64 else tl.float32
    x = tl.zeros(i.shape, wide)
    line = source + i.to(tl.int64)[:, None] * row_step
    there = ((i >= 0) & (i < rows))[:, None]
    for first in range(0, DIM, DEPTH):
        d = first + tl.arange(0, DEPTH).to(tl.int64)
        direction = tl.load(theta + d * d_row, mask=d < DIM, other=0).to(wide)
        numbers = tl.load(line + d[None, :] * column_step, mask=there & (d < DIM)[None, :], other=0).to(wide)
        x += tl.sum(numbers * direction[None, :], 1)
    return x


@triton.jit
def _norm(draw, d_row, DIM: tl.constexpr):
    """The norm of a draw, see `reference.unit`."""
    squares = tl.zeros([64], tl.float32)
    for first in range(0, DIM, 64):
        d = first + tl.arange(0, 64).to(tl.int64)
        x = tl.load(draw + d * d_row, mask=d < DIM, other=0)
        squares += x * x
    return tl.maximum(tl.sqrt(tl.sum(squares, 0)), 1e-12)


@triton.jit
def _key(x, i, there):
    """Integers in the order of the float32 numbers x, equal ones by i; then what is not there."""
    bits = x.to(tl.int32, bitcast=True)
    key = tl.where(there, bits ^ ((bits >> 31) & 0x7FFFFFFF), 0x7FFFFFFF)
    return (key.to(tl.int64) << 32) | i.to(tl.int64)


@triton.jit
def _sort(x, i, there):
    """The float32 numbers x that are there, ascending, equal ones by i, and the i of each; then what is not there."""
    sorted = tl.sort(_key(x, i, there))
    key = (sorted >> 32).to(tl.int32)
    return (key ^ ((key >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True), (sorted & 0x7FFFFFFF).to(tl.int32)


@triton.jit
def _match(
    x, norm, row, i, h, k, partners, m, per_row, per_prior, whole, steps, slopes,
    STEPS: tl.constexpr, GRADIENT: tl.constexpr, POWER: tl.constexpr,
):  # fmt: skip
    """The cost of positions i with numbers x; and where row >= h the derivative for x over norm, at slopes[row - h]."""
    left, right = i.to(tl.int64) * per_row, (i + 1).to(tl.int64) * per_row
    cost, slope = tl.zeros(i.shape, tl.float64), tl.zeros(i.shape, tl.float64)
    there = i < h + k
    for step in range(0, steps, STEPS):
        j = (left // per_prior + step)[:, None] + tl.arange(0, STEPS)[None, :]
        first, last = j * per_prior, (j + 1) * per_prior
        width = tl.minimum(last, right[:, None]) - tl.maximum(first, left[:, None])
        counts = there[:, None] & (width > 0)
        y = tl.load(partners + j, mask=counts, other=0).to(x.dtype)
        difference = (x[:, None] - y).to(tl.float64)
        weight = tl.where(counts, width, 0).to(tl.float64)
        distance = tl.abs(difference)
        cost += tl.sum(tl.where(counts, weight * _power(distance, POWER), 0), 1)
        sign = tl.where(difference < 0, -1.0, tl.where(difference > 0, 1.0, difference))  # 0 stays, and NaN
        slope += tl.sum(tl.where(counts, weight * (POWER * _power(distance, POWER - 1)) * sign, 0), 1)
    whole = tl.full((), whole, tl.int64).to(tl.float64)
    if GRADIENT:
        tl.store(slopes + row - h, (slope / (whole * norm)).to(slopes.dtype.element_ty), mask=there & (row >= h))
    return tl.sum(cost, 0) / whole


@triton.jit
def _power(x, P: tl.constexpr):
    """x^P for x >= 0."""
    if P == 0:
        return tl.full(x.shape, 1.0, x.dtype)
    elif P == 1:
        return x
    elif P == 2:
        return x * x
    else:
        return tl.exp2(P * tl.log2(x))
