"""The least time that what the kernels read, write and compute takes: from their sizes, and nothing of it measured."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.page import row

BYTES, INSTRUCTIONS = 4.8e12, 132 * 128 * 1.98e9
"""A second, by an H200's data sheet: of its memory, and float32 instructions, of which one is a multiply-add."""

SINGLE, DOUBLE = 4, 8
SORTED = 4096
"""Entries that a block sorts in shared memory: kRun of csrc/cuda/sliced_wasserstein.cuh."""


class Work(NamedTuple):
    """What a call does in float32."""

    name: str
    bytes: float
    """Read and written, where nothing is in the caches."""
    instructions: float
    """Of float32: the loop over coordinates alone."""


def works(n: int = 65536, dim: int = 64, directions: int = 50) -> Iterator[Work]:
    """At k = 1, to N(0, I)."""
    rows, sums = n * dim * SINGLE, 2 * n * DOUBLE
    apart = 2 * n * dim  # a subtraction and a multiply-add a coordinate
    yield Work(f"running sums, n = {n}, D = {dim}: a step", rows + 2 * sums, 2 * apart)  # the row of now, and of before
    yield Work("the same with a `PriorWindow`", 2 * (rows + 2 * sums), 8 * apart)
    keys = n * directions * SINGLE
    yield Work(f"sorted projections, n = {n}, L = {directions}: a step", 2 * keys + n * DOUBLE, 3 * n * directions)
    for count in (SORTED, n):
        entries, merges = count * directions * 2 * SINGLE, math.ceil(math.log2(count / SORTED))
        passes = 1 + 2 + 2 * merges + 1  # project, sort, merge, match
        name = f"sliced-Wasserstein, n = {count}, D = {dim}, L = {directions}"
        yield Work(name, count * dim * SINGLE + passes * entries, count * dim * directions)
    yield Work(f"k_center, {n} rows, D = {dim}: a round", rows + n * (3 * SINGLE), apart)


def table() -> str:
    """As Markdown."""
    lines = [
        "What the other kernels read and write if no cache has it, the float32 instructions of their loops over",
        f"coordinates, and the least time that each implies at {BYTES / 1e12:.1f} TB/s and",
        f"{INSTRUCTIONS / 1e12:.1f}e12 instructions a second, an H200's by its data sheet; k = 1, to N(0, I), float32:",
        "",
        row(["", "MB", "million instructions", "µs by bytes", "µs by instructions"]),
        row(["---", *["---:"] * 4]),
    ]
    for work in works():
        cells = (
            work.bytes / 1e6,
            work.instructions / 1e6,
            1e6 * work.bytes / BYTES,
            1e6 * work.instructions / INSTRUCTIONS,
        )
        lines.append(row([work.name, *(f"{cell:.3g}" for cell in cells)]))
    return "\n".join(lines)
