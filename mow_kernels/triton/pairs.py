"""Sums of a function over pairs of rows, and their gradients: what MMD and Cramer-Wold have in common.

    constant + zz sum_{i != j} f(|z_i - z_j|^2) + vv sum_{i != j} f(|v_i - v_j|^2) + zv sum_ij f(|z_i - v_j|^2)      (1)

over the window z = [history; current] and the prior sample v. Without one, the last two sums are
zv sum_i g(|z_i|^2). Where f is a function of products, z_i z_j stands for a squared distance, and with `diagonal` the
sums within a sample take i = j along.

All rows are first copied, widened and transposed into one buffer [D, N]: there neighbouring rows are neighbours in
memory, and the kernels know neither strides nor half types. Then

    value      tiles [ROWS, COLUMNS] of pairs, each unordered pair once
    gradient   one current row against tiles [OTHERS, D] of all others, each pair from its own side, by differences

The gradient's share is k/(n+m) of the work. One program does all three for a small window, in one launch; else they are
spread over many, and a second stage adds up their parts in a fixed order.
"""

from __future__ import annotations

import ctypes
import functools
import os
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from mow_kernels.triton.radial import Radial, evaluate
from mow_kernels.triton.thresholds import threshold

PAD = 128
"""Samples begin at multiples of it in the buffer, and zeros fill the gaps: no tile needs a mask to be loaded."""

ONE_PROGRAM = threshold("MOW_TRITON_SINGLE", 2**20)
"""Multiply-adds that one program does alone: some 10 microseconds' worth by estimate, as two more launches cost."""


LIMBS = int(os.environ.get("MOW_TRITON_PRODUCT", 2**63 - 1))
"""Rows n + m from which many programs take their products on tensor cores, where they have matrix products in float32:
never, until a GPU has measured them. As exact, by two limbs of float16 (studies/cuda/tensor_cores.py)."""


@dataclass(frozen=True)
class PairwiseDistance:
    """Equation (1)."""

    f: Radial
    f_rate: float
    constant: float
    zz: float
    zv: float
    vv: float = 0.0
    g: Radial | None = None
    """Stands in place of a prior sample."""
    g_rate: float = 0.0
    diagonal: bool = False
    """Of a function of products: whether i = j counts."""


@dataclass(frozen=True)
class Blocks:
    """Sizes of blocks. Powers of two, as Triton wants them."""

    rows: int
    columns: int
    """Both of a tile of pairs."""
    depth: int
    """Coordinates that a step of the matrix product takes; 0 for direct differences."""
    chunk: int
    """Columns of a task."""
    width: int
    """D, rounded up."""
    others: int
    """Columns that a current row meets at once."""
    warps: int
    registers: int | None
    """A thread's at most; None leaves it to the compiler."""


@functools.lru_cache(maxsize=256)
def blocks(dim: int, dtype: torch.dtype, one: bool) -> Blocks:
    """The sizes, by rule.

    A pair costs 2D instructions by differences, D by a matrix product, and 10 to 30 for f. The product needs operands
    in shared memory, and a second look where it cancels, which in few dimensions some pair of every tile asks for: it
    begins at D = 32, in float32.

    8 warps hold a tile of 64 x 64 with 16 pairs a thread, whose sums, polynomials and operands fit into 128 registers:
    two blocks a multiprocessor, so that one computes while the other waits. Differences load an operand for each row
    and each column of a thread, so the wide tile loads less; in float64, and in few dimensions where f is nearly all
    the work, half the pairs fill the registers. A lone program has its multiprocessor, and all registers, to itself.
    """
    width = max(2, triton.next_power_of_2(dim))
    double = dtype == torch.float64
    product = dim >= 32 and not double
    rows, columns = (64, 64) if product else (32, 64 if double or one or dim < 16 else 128)
    others = min(128, max(1, 2048 // width))
    limit = None if torch.version.hip else 255 if one else 128
    return Blocks(rows, columns, 16 if product else 0, 2048, width, others, 8, limit)


@functools.lru_cache(maxsize=256)
def compile_options(
    f: Radial,
    g: Radial | None,
    gradient: bool,
    dim: int,
    dtype: torch.dtype,
    one: bool,
    diagonal: bool = False,
    value: bool = True,
    limbs: bool = False,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `one_kernel` and `pairs_kernel` are compiled for: their constants, and the options of the compiler."""
    b = blocks(dim, dtype, one)
    limbs = limbs and b.depth > 0
    columns = 32 if limbs else b.columns  # there are two accumulators a pair
    constants = {
        "F": f, "G": g, "VALUE": value, "GRADIENT": gradient, "DIM": dim, "ROWS": b.rows, "COLUMNS": columns,
        "DEPTH": b.depth, "CHUNK": b.chunk, "WIDTH": b.width, "OTHERS": b.others, "DIAGONAL": diagonal,
        "LIMBS": limbs,
    }  # fmt: skip
    return constants, {"num_warps": b.warps, "num_stages": 1, "maxnreg": b.registers}


def evaluate_distance(
    distance: PairwiseDistance,
    current: Tensor,
    history: Tensor,
    prior: Tensor | None,
    needs_grad: bool,
    needs_value: bool = True,
) -> tuple[Tensor, Tensor]:
    """The value [] and the gradient for current [k, D] in its dtype, each [0] where it is not needed.

    How the gradient is spread does not depend on whether there is a value, so that it has the same bits.
    """
    (k, dim), h = current.shape, len(history)
    m = 0 if prior is None else len(prior)
    n = h + k
    start = triton.cdiv(n, PAD) * PAD
    stride = start + triton.cdiv(m, PAD) * PAD
    wide = torch.float64 if current.dtype == torch.float64 else torch.float32
    packed = torch.empty(dim, stride, dtype=wide, device=current.device)
    value = torch.empty(() if needs_value else 0, dtype=wide, device=current.device)
    g_current = torch.empty(current.shape if needs_grad else 0, dtype=current.dtype, device=current.device)

    sources = [current, history, current if prior is None else prior]
    given = (*sources, *(step for x in sources for step in x.stride()), packed, stride, h, k, m, start)
    numbers = (
        *_halves(distance.constant), *_halves(distance.zz), *_halves(distance.zv), *_halves(distance.vv),
        *_halves(distance.f_rate), *_halves(distance.g_rate),
    )  # fmt: skip
    work = (dim + 16) * ((n + m) * (n + m) // 2 + 2 * k * (n + m) * needs_grad)
    one = work <= ONE_PROGRAM
    b = blocks(dim, wide, one)
    constants, launch = compile_options(
        distance.f, distance.g, needs_grad, dim, wide, one, distance.diagonal, needs_value, not one and n + m >= LIMBS
    )
    if one:
        one_kernel[(1,)](*given, value, g_current, numbers, **constants, **launch)
        return value, g_current

    processors = _processors(current.device)
    pack_kernel[(triton.cdiv(max(start, stride - start), b.others),)](
        *given, DIM=dim, WIDTH=b.width, OTHERS=b.others, num_warps=b.warps
    )
    tiles_n, tiles_m = triton.cdiv(n, b.rows), triton.cdiv(m, b.rows)
    chunks_n, chunks_m = triton.cdiv(n, b.chunk), triton.cdiv(m, b.chunk)
    tasks = (tiles_n * (chunks_n + chunks_m) + tiles_m * chunks_m) * needs_value
    splits = max(1, min(4 * processors // k, (n + m) // (4 * b.others)))
    programs = min(max(tasks, k * splits), 8 * processors)
    value_parts = torch.empty(programs, dtype=torch.float64, device=current.device)
    g_parts = torch.empty((splits, k, dim) if needs_grad else 0, dtype=torch.float64, device=current.device)
    pairs_kernel[(programs,)](
        packed, stride, h, k, m, start, value_parts, g_parts, splits, numbers, **constants, **launch
    )
    finish_kernel[(triton.cdiv(max(1, g_current.numel()), 512),)](
        value_parts, programs, g_parts, splits, g_current.numel(), value, g_current, *numbers[:2],
        VALUE=needs_value, num_warps=4,
    )  # fmt: skip
    return value, g_current


def _halves(number: float) -> tuple[float, float]:
    """Triton passes a Python number in float32; two of them hold 48 bits."""
    high = ctypes.c_float(number).value
    return high, number - high


@functools.cache
def _processors(device: torch.device) -> int:
    return 2 if device.type == "cpu" else torch.cuda.get_device_properties(device).multi_processor_count


_SIZES = ["h", "k", "m", "start", "n", "splits", "programs", "size"]  # compiled once for every size


@triton.jit(do_not_specialize=_SIZES)
def one_kernel(
    current, history, prior, c_row, c_column, h_row, h_column, p_row, p_column, packed, stride, h, k, m, start,
    value, g_current, numbers,
    F: tl.constexpr, G: tl.constexpr, VALUE: tl.constexpr, GRADIENT: tl.constexpr, DIM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr,
    OTHERS: tl.constexpr, DIAGONAL: tl.constexpr, LIMBS: tl.constexpr,
):  # fmt: skip
    """All of equation (1), and the gradient for current."""
    for first in range(0, tl.maximum(start, stride - start), OTHERS):
        _pack(history, h_row, h_column, h, first, packed, 0, h, stride, DIM, WIDTH, OTHERS)
        _pack(current, c_row, c_column, k, first, packed, h, start, stride, DIM, WIDTH, OTHERS)
        _pack(prior, p_row, p_column, m, first, packed, start, stride, stride, DIM, WIDTH, OTHERS)
    tl.debug_barrier()  # what the threads have written they read of each other from here on
    if VALUE:
        total = _value(
            packed, stride, h + k, m, start, 0, 1, numbers, F, G, DIM, ROWS, COLUMNS, DEPTH, CHUNK, WIDTH, OTHERS,
            DIAGONAL, LIMBS,
        )  # fmt: skip
        tl.store(value, (_double(numbers, 0) + total).to(value.dtype.element_ty))
    if GRADIENT:
        d = tl.arange(0, WIDTH)
        for i in range(0, k):
            g = _gradient(packed, stride, h + i, h + k, m, start, 0, 1, numbers, F, G, DIM, WIDTH, OTHERS, DIAGONAL)
            tl.store(g_current + i * DIM + d, g.to(g_current.dtype.element_ty), mask=d < DIM)


@triton.jit(do_not_specialize=_SIZES)
def pack_kernel(
    current, history, prior, c_row, c_column, h_row, h_column, p_row, p_column, packed, stride, h, k, m, start,
    DIM: tl.constexpr, WIDTH: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * OTHERS
    _pack(history, h_row, h_column, h, first, packed, 0, h, stride, DIM, WIDTH, OTHERS)
    _pack(current, c_row, c_column, k, first, packed, h, start, stride, DIM, WIDTH, OTHERS)
    _pack(prior, p_row, p_column, m, first, packed, start, stride, stride, DIM, WIDTH, OTHERS)


@triton.jit(do_not_specialize=_SIZES)
def pairs_kernel(
    packed, stride, h, k, m, start, value_parts, g_parts, splits, numbers,
    F: tl.constexpr, G: tl.constexpr, VALUE: tl.constexpr, GRADIENT: tl.constexpr, DIM: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr,
    OTHERS: tl.constexpr, DIAGONAL: tl.constexpr, LIMBS: tl.constexpr,
):  # fmt: skip
    """This program's share: value_parts [programs], g_parts [splits, k, D]."""
    program, programs = tl.program_id(0), tl.num_programs(0)
    n = h + k
    if GRADIENT:
        d = tl.arange(0, WIDTH)
        for task in range(program, k * splits, programs):
            i, split = task // splits, task % splits
            g = _gradient(
                packed, stride, h + i, n, m, start, split, splits, numbers, F, G, DIM, WIDTH, OTHERS, DIAGONAL
            )
            part = (tl.zeros((), tl.int64) + split) * k + i
            tl.store(g_parts + part * DIM + d, g, mask=d < DIM)
    if VALUE:
        total = _value(
            packed, stride, n, m, start, program, programs, numbers,
            F, G, DIM, ROWS, COLUMNS, DEPTH, CHUNK, WIDTH, OTHERS, DIAGONAL, LIMBS,
        )  # fmt: skip
        tl.store(value_parts + program, total)


@triton.jit(do_not_specialize=_SIZES)
def finish_kernel(value_parts, programs, g_parts, splits, size, value, g_current, constant, rest, VALUE: tl.constexpr):
    """The second stage: the parts in the order of their numbers."""
    at = tl.program_id(0).to(tl.int64) * 512 + tl.arange(0, 512)
    g = tl.zeros([512], tl.float64)
    for split in range(0, splits):
        g += tl.load(g_parts + (tl.zeros((), tl.int64) + split) * size + at, mask=at < size, other=0)
    tl.store(g_current + at, g.to(g_current.dtype.element_ty), mask=at < size)
    if VALUE and tl.program_id(0) == 0:
        i = tl.arange(0, 512)
        sums = tl.zeros([512], tl.float64)
        for first in range(0, programs, 512):
            sums += tl.load(value_parts + first + i, mask=first + i < programs, other=0)
        total = tl.full((), constant, tl.float64) + tl.full((), rest, tl.float64) + tl.sum(sums, 0)
        tl.store(value, total.to(value.dtype.element_ty))


@triton.jit
def _double(numbers, INDEX: tl.constexpr):
    """The number that `_halves` has split."""
    return tl.full((), numbers[2 * INDEX], tl.float64) + tl.full((), numbers[2 * INDEX + 1], tl.float64)


@triton.jit
def _pack(
    source, row_step, column_step, rows, first, packed, to, end, stride,
    DIM: tl.constexpr, WIDTH: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """packed[:, to + i] = source[i] for OTHERS rows i from `first` on, and zeros after the last until `end`."""
    i, d = (first + tl.arange(0, OTHERS))[None, :].to(tl.int64), tl.arange(0, WIDTH)[:, None].to(tl.int64)
    x = tl.load(source + i * row_step + d * column_step, mask=(i < rows) & (d < DIM), other=0)
    tl.store(packed + d * stride + to + i, x.to(packed.dtype.element_ty), mask=(to + i < end) & (d < DIM))


@triton.jit
def _value(
    packed, stride, n, m, start, program, programs, numbers,
    F: tl.constexpr, G: tl.constexpr, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr, CHUNK: tl.constexpr, WIDTH: tl.constexpr, OTHERS: tl.constexpr, DIAGONAL: tl.constexpr,
    LIMBS: tl.constexpr,
):  # fmt: skip
    """The sums of equation (1) over the tasks program, program + programs, ...: each of ROWS rows and CHUNK columns."""
    zz, zv, vv, rate = _double(numbers, 1), _double(numbers, 2), _double(numbers, 3), _double(numbers, 4)
    tiles_n, chunks_n, chunks_m = tl.cdiv(n, ROWS), tl.cdiv(n, CHUNK), tl.cdiv(m, CHUNK)
    within_n, between = tiles_n * chunks_n, tiles_n * chunks_m
    tasks = within_n + between + tl.cdiv(m, ROWS) * chunks_m
    sums = tl.zeros([ROWS], tl.float64)
    for task in range(program, tasks, programs):
        rows_are_prior, columns_are_prior = task >= within_n + between, task >= within_n
        below = rows_are_prior == columns_are_prior  # within a sample: the columns before the row
        index = task - tl.where(rows_are_prior, within_n + between, tl.where(columns_are_prior, within_n, 0))
        chunks = tl.where(columns_are_prior, chunks_m, chunks_n)
        weight = tl.where(rows_are_prior, 2 * vv, tl.where(columns_are_prior, zv, 2 * zz))
        row = index // chunks * ROWS
        column = index % chunks * CHUNK
        rows = row + tl.arange(0, ROWS)
        count = tl.where(columns_are_prior, m, n)
        limit = tl.where(rows < tl.where(rows_are_prior, m, n), tl.where(below, rows, count), 0)
        last = tl.minimum(tl.where(below, tl.minimum(row + ROWS, count), count), column + CHUNK)
        x = rows + tl.multiple_of(tl.where(rows_are_prior, start, 0), 16)
        for first in range(column, last, COLUMNS):
            columns = first + tl.arange(0, COLUMNS)
            y = columns + tl.multiple_of(tl.where(columns_are_prior, start, 0), 16)
            counts = columns[None, :] < limit[:, None]
            if F.family == "products":
                r = _products(packed, stride, x, y, DIM, ROWS, COLUMNS, DEPTH, LIMBS)
            else:
                r = _squared_distances(packed, stride, x, y, counts, DIM, ROWS, COLUMNS, DEPTH, LIMBS)
            f, _ = evaluate(r, rate, F)
            sums += weight * tl.sum(tl.where(counts, f, 0), 1).to(tl.float64)
    total = tl.sum(sums, 0)
    if G is not None:
        total += zv * _alone(packed, stride, 0, n, program, programs, _double(numbers, 5), G, DIM, WIDTH, OTHERS)
    if DIAGONAL:
        total += zz * _alone(packed, stride, 0, n, program, programs, rate, F, DIM, WIDTH, OTHERS)
        total += vv * _alone(packed, stride, start, m, program, programs, rate, F, DIM, WIDTH, OTHERS)
    return total


@triton.jit
def _alone(
    packed, stride, start, rows, program, programs, rate,
    F: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, OTHERS: tl.constexpr,
):  # fmt: skip
    """A share of sum_i f(|x_i|^2) over a sample that begins at `start`."""
    d = tl.arange(0, WIDTH)
    sums = tl.zeros([OTHERS], tl.float64)
    for first in range(program * OTHERS, rows, programs * OTHERS):
        i = first + tl.arange(0, OTHERS)
        at = packed + d[None, :].to(tl.int64) * stride + (start + i)[:, None]
        x = tl.load(at, mask=(d < DIM)[None, :] & (i < rows)[:, None], other=0)
        f, _ = evaluate(tl.sum(x * x, 1).to(tl.float64), rate, F)  # once a row: in double precision
        sums += tl.where(i < rows, f, 0)
    return tl.sum(sums, 0)


@triton.jit
def _coordinates(packed, stride, first, DIM: tl.constexpr, DEPTH: tl.constexpr):
    """Where DEPTH coordinates of the buffer's columns begin [DEPTH, 1], and whether there are so many."""
    d = first + tl.arange(0, DEPTH)
    return (packed + d.to(tl.int64) * stride)[:, None], (d < DIM)[:, None]


@triton.jit
def _products(
    packed, stride, x, y, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    LIMBS: tl.constexpr,
):  # fmt: skip
    """x . y for columns x [ROWS] and y [COLUMNS] of the buffer."""
    RUN: tl.constexpr = 64  # as below
    product = tl.zeros([ROWS, COLUMNS], packed.dtype.element_ty)
    if LIMBS:
        product, _, _ = _products_of_limbs(packed, stride, x, y, x, DIM, ROWS, COLUMNS, DEPTH, False)
        if tl.max((tl.abs(product) <= 3.4e38).to(tl.int32) ^ 1) > 0:  # of what is no number it makes another
            product = _products(packed, stride, x, y, DIM, ROWS, COLUMNS, 0, False)
    elif DEPTH > 0:
        for run in range(0, DIM, RUN):
            run_product = tl.zeros([ROWS, COLUMNS], tl.float32)
            for first in range(run, tl.minimum(run + RUN, DIM), DEPTH):
                line, there = _coordinates(packed, stride, first, DIM, DEPTH)
                x_d = tl.load(line + x[None, :], mask=there, other=0)
                y_d = tl.load(line + y[None, :], mask=there, other=0)
                run_product = tl.dot(tl.trans(x_d), y_d, run_product, input_precision="ieee")
            product += run_product
    else:
        line = packed
        for _ in range(0, DIM):
            product += tl.load(line + x)[:, None] * tl.load(line + y)
            line += stride
    return product


@triton.jit
def _squared_distances(
    packed, stride, x, y, counts, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    LIMBS: tl.constexpr,
):  # fmt: skip
    """|x - y|^2 for columns x [ROWS] and y [COLUMNS] of the buffer.

    By a matrix product, r = |x|^2 + |y|^2 - 2xy loses the digits by which it is smaller than its terms. Taken around a
    row of the tile it loses few; where a pair that counts is still below 1/8 of its terms, the tile is done again by
    differences, which are exact for coinciding rows of any magnitude.
    """
    RUN: tl.constexpr = 64  # coordinates added up in one run, which bounds the rounding error for wide rows
    if DEPTH > 0:
        product = tl.zeros([ROWS, COLUMNS], tl.float32)
        x_norms, y_norms = tl.zeros([ROWS], tl.float32), tl.zeros([COLUMNS], tl.float32)
        middle = tl.min(x, 0)
        if LIMBS:
            product, x_norms, y_norms = _products_of_limbs(
                packed, stride, x, y, middle, DIM, ROWS, COLUMNS, DEPTH, True
            )
        for run in range(0, 0 if LIMBS else DIM, RUN):
            run_product = tl.zeros([ROWS, COLUMNS], tl.float32)
            for first in range(run, tl.minimum(run + RUN, DIM), DEPTH):
                line, there = _coordinates(packed, stride, first, DIM, DEPTH)
                centre = tl.load(line + middle, mask=there, other=0)
                x_d = tl.load(line + x[None, :], mask=there, other=0) - centre
                y_d = tl.load(line + y[None, :], mask=there, other=0) - centre
                x_norms += tl.sum(x_d * x_d, 0)
                y_norms += tl.sum(y_d * y_d, 0)
                run_product = tl.dot(tl.trans(x_d), y_d, run_product, input_precision="ieee")
            product += run_product
        terms = x_norms[:, None] + y_norms[None, :]
        r = terms - 2 * product
        cancels = counts & ((r >= 0.125 * terms) == 0)  # also where r is no number
        if tl.max(cancels.to(tl.int32)) > 0:
            r = _differences(packed, stride, x, y, DIM, ROWS, COLUMNS)
        return r
    else:
        return _differences(packed, stride, x, y, DIM, ROWS, COLUMNS)


@triton.jit
def _products_of_limbs(
    packed, stride, x, y, middle, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
    CENTRED: tl.constexpr,
):  # fmt: skip
    """(x - c) . (y - c), |x - c|^2 and |y - c|^2, c being column `middle` of the buffer or zero.

    A row times a power of two of its own is two limbs of float16, of which the low one is that times 2^11; of their
    four products the least is left out. An accumulator of tensor cores cuts off instead of rounding: it passes on what
    it has every 32 coordinates.
    """
    RUN: tl.constexpr = 32
    x_norms, y_norms = tl.zeros([ROWS], tl.float32), tl.zeros([COLUMNS], tl.float32)
    x_most, y_most = tl.zeros([ROWS], tl.float32), tl.zeros([COLUMNS], tl.float32)
    for first in range(0, DIM, DEPTH):
        x_d, y_d = _from_centre(packed, stride, x, y, middle, first, DIM, DEPTH, CENTRED)
        x_norms += tl.sum(x_d * x_d, 0)
        y_norms += tl.sum(y_d * y_d, 0)
        x_most, y_most = tl.maximum(x_most, tl.max(tl.abs(x_d), 0)), tl.maximum(y_most, tl.max(tl.abs(y_d), 0))
    x_scale, x_size = _scale(x_most)
    y_scale, y_size = _scale(y_most)
    product = tl.zeros([ROWS, COLUMNS], tl.float32)
    for run in range(0, DIM, RUN):
        high, low = tl.zeros([ROWS, COLUMNS], tl.float32), tl.zeros([ROWS, COLUMNS], tl.float32)
        for first in range(run, tl.minimum(run + RUN, DIM), DEPTH):
            x_d, y_d = _from_centre(packed, stride, x, y, middle, first, DIM, DEPTH, CENTRED)
            x_high, x_low = _limbs(tl.trans(x_d * x_scale[None, :]))
            y_high, y_low = _limbs(y_d * y_scale[None, :])
            high = tl.dot(x_high, y_high, high)
            low = tl.dot(x_low, y_high, low)
            low = tl.dot(x_high, y_low, low)
        product += high + low * 0.00048828125
    return product * x_size[:, None] * y_size[None, :], x_norms, y_norms


@triton.jit
def _from_centre(
    packed, stride, x, y, middle, first, DIM: tl.constexpr, DEPTH: tl.constexpr, CENTRED: tl.constexpr
):  # fmt: skip
    line, there = _coordinates(packed, stride, first, DIM, DEPTH)
    x_d = tl.load(line + x[None, :], mask=there, other=0)
    y_d = tl.load(line + y[None, :], mask=there, other=0)
    if CENTRED:
        centre = tl.load(line + middle, mask=there, other=0)
        x_d, y_d = x_d - centre, y_d - centre
    return x_d, y_d


@triton.jit
def _limbs(x):
    high = x.to(tl.float16)
    return high, ((x - high.to(tl.float32)) * 2048.0).to(tl.float16)


@triton.jit
def _scale(most):
    """The power of two that brings `most` between 2^14 and 2^15, 2^126 at most, and its inverse."""
    exponent = (most.to(tl.int32, bitcast=True) >> 23) & 255
    biased = tl.minimum(268 - exponent, 253)
    return (biased << 23).to(tl.float32, bitcast=True), ((254 - biased) << 23).to(tl.float32, bitcast=True)


@triton.jit
def _differences(packed, stride, x, y, DIM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    RUN: tl.constexpr = 64
    r = tl.zeros([ROWS, COLUMNS], packed.dtype.element_ty)
    line = packed
    for _ in range(0, DIM // RUN):
        run = tl.zeros([ROWS, COLUMNS], packed.dtype.element_ty)
        for _ in range(0, RUN):
            difference = tl.load(line + x)[:, None] - tl.load(line + y)
            run += difference * difference
            line += stride
        r += run
    for _ in range(0, DIM % RUN):
        difference = tl.load(line + x)[:, None] - tl.load(line + y)
        r += difference * difference
        line += stride
    return r


@triton.jit
def _gradient(
    packed, stride, i, n, m, start, split, splits, numbers,
    F: tl.constexpr, G: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, OTHERS: tl.constexpr,
    DIAGONAL: tl.constexpr,
):  # fmt: skip
    """A share of the gradient of equation (1) for row i of the window, float64 [WIDTH]."""
    TWICE: tl.constexpr = 1 if F.family == "products" else 2
    zz, zv, rate = _double(numbers, 1), _double(numbers, 2), _double(numbers, 4)
    n_share = tl.cdiv(tl.cdiv(n, splits), OTHERS) * OTHERS
    m_share = tl.cdiv(tl.cdiv(m, splits), OTHERS) * OTHERS
    first, last = split * n_share, tl.minimum(split * n_share + n_share, n)
    g = 2 * TWICE * zz * _pull(packed, stride, i, first, last, rate, F, DIM, WIDTH, OTHERS)
    if G is None:
        first, last = start + split * m_share, start + tl.minimum(split * m_share + m_share, m)
        g += TWICE * zv * _pull(packed, stride, i, first, last, rate, F, DIM, WIDTH, OTHERS)
    elif split == 0:
        g += 2 * zv * _pull_alone(packed, stride, i, _double(numbers, 5), G, DIM, WIDTH)
    if DIAGONAL:
        if split == 0:
            g += 2 * zz * _pull_alone(packed, stride, i, rate, F, DIM, WIDTH)
    return g


@triton.jit
def _pull_alone(packed, stride, i, rate, F: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """f'(|x_i|^2) x_i, float64 [WIDTH]."""
    d = tl.arange(0, WIDTH)
    x = tl.load(packed + d.to(tl.int64) * stride + i, mask=d < DIM, other=0).to(tl.float64)[None, :]
    _, slope = evaluate(tl.sum(x * x, 1), rate, F)
    return tl.sum(slope[:, None] * x, 0)


@triton.jit
def _pull(
    packed, stride, i, first, last, rate, F: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, OTHERS: tl.constexpr
):
    """sum_j f'(|x_i - x_j|^2) (x_i - x_j) over the columns first <= j < last of the buffer, float64 [WIDTH].

    Where f is a function of products, sum_j f'(x_i x_j) x_j without j = i.
    """
    d = tl.arange(0, WIDTH)
    line = (packed + d.to(tl.int64) * stride)[None, :]
    x = tl.load(line + i, mask=(d < DIM)[None, :], other=0)
    total = tl.zeros([WIDTH], tl.float64)
    for block in range(first, last, 32 * OTHERS):
        sums = tl.zeros([OTHERS, WIDTH], packed.dtype.element_ty)
        for column in range(block, tl.minimum(block + 32 * OTHERS, last), OTHERS):
            j = column + tl.arange(0, OTHERS)
            y = tl.load(line + j[:, None], mask=(d < DIM)[None, :], other=0)
            if F.family == "products":
                _, slope = evaluate(tl.sum(x * y, 1), rate, F)
                sums += tl.where((j < last) & (j != i), slope, 0)[:, None] * y
            else:
                difference = x - y
                _, slope = evaluate(tl.sum(difference * difference, 1), rate, F)
                sums += tl.where(j < last, slope, 0)[:, None] * difference  # nothing where j = i
        total += tl.sum(sums.to(tl.float64), 0)
    return total
