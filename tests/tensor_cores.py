"""Tensor cores in NumPy: what an mma.sync of float16 factors with a float32 accumulator does, and distances made of it.

The products are exact. They and the accumulator are aligned to the largest of them, what then lies below the last place
is cut off, with no rounding, and so is the sum when it becomes a float32: Fasi, Higham, Mikaitis, Pranesh, "Numerical
behavior of NVIDIA tensor cores", PeerJ Computer Science 7 (2021), e330; Khattak, Mikaitis, "Accurate models of NVIDIA
tensor cores", arXiv:2512.07004, has the newer generations. They differ in how many products are added at once, and in
how many places beyond those of a float32 are kept. Where the literature leaves room, what loses more is taken here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]  # holds every number here exactly


class Accumulator(NamedTuple):
    """What generations differ in."""

    terms: int
    """Products that are added at once."""
    places: int
    """Binary places of an aligned term beyond those of a float32 as large as the largest."""


GENERATIONS = {"sm_70": Accumulator(4, 0), "sm_80": Accumulator(8, 1), "sm_90": Accumulator(16, 2)}
COARSEST = GENERATIONS["sm_70"]

DEPTH = 32  # coordinates that are added up in the accumulators, and then to a float32: what is cut off pulls one way
LOW = 2.0**11  # that the second limb is multiplied by, so that it has the range of the first
HIGHEST = 14  # of the exponent of the largest coordinate of a row, scaled
CENTRES = 64  # rows whose mean is the centre


def mma(a: Array, b: Array, c: Array, accumulator: Accumulator = COARSEST) -> Array:
    """c + a b^T. a [M, K], b [N, K] of float16 numbers, c [M, N] of float32 ones."""
    for first in range(0, a.shape[1], accumulator.terms):
        some = slice(first, first + accumulator.terms)
        products = a[:, None, some] * b[None, :, some]
        c = _float32(_aligned_sum(np.concatenate([products, c[:, :, None]], 2), accumulator.places))
    return c


def _aligned_sum(terms: Array, places: int) -> Array:
    _, exponents = np.frexp(np.abs(terms).max(2, keepdims=True))
    last = np.ldexp(1.0, np.maximum(exponents, -125) - 24 - places)
    return (np.trunc(terms / last) * last).sum(2)


def _float32(x: Array) -> Array:
    """Towards zero."""
    _, exponents = np.frexp(x)
    last = np.ldexp(1.0, np.maximum(exponents, -125) - 24)
    cut = np.trunc(x / last) * last
    return np.where(np.abs(cut) >= 2.0**128, np.copysign(np.inf, cut), cut)


class Limbs(NamedTuple):
    """Rows x = (high + low / LOW) / scale."""

    high: Array
    low: Array
    scale: npt.NDArray[np.float32]
    norms: npt.NDArray[np.float32]
    """|x|^2."""

    @classmethod
    def of(cls, x: Tensor, centre: Tensor) -> Limbs:
        """Of x - centre. x [N, D] and centre [D] in float32."""
        rows = (x - centre).numpy()
        _, exponents = np.frexp(np.abs(rows).max(1))
        scale = np.ldexp(np.float32(1), np.minimum(HIGHEST + 1 - exponents, 126)).astype(np.float32)[:, None]
        scaled = rows * scale
        high = scaled.astype(np.float16)
        low = ((scaled - high.astype(np.float32)) * np.float32(LOW)).astype(np.float16)
        with np.errstate(over="ignore"):
            norms = np.square(rows.astype(np.float64)).sum(1).astype(np.float32)
        return cls(high.astype(np.float64), low.astype(np.float64), scale, norms)


def centre_of(window: Tensor) -> Tensor:
    """The mean of at most CENTRES rows, evenly apart."""
    count = min(len(window), CENTRES)
    return window[torch.arange(count) * len(window) // count].double().mean(0).float()


def products(x: Limbs, y: Limbs, accumulator: Accumulator = COARSEST) -> npt.NDArray[np.float32]:
    """x y^T [M, N] in float32."""
    total = np.zeros((len(x.high), len(y.high)), np.float32)
    for first in range(0, x.high.shape[1], DEPTH):
        some = slice(first, first + DEPTH)
        zeros = np.zeros(total.shape)
        high = mma(x.high[:, some], y.high[:, some], zeros, accumulator).astype(np.float32)
        low = mma(x.low[:, some], y.high[:, some], zeros, accumulator)
        low = mma(x.high[:, some], y.low[:, some], low, accumulator).astype(np.float32)
        total += high + low * np.float32(1 / LOW)
    return (total / x.scale) / y.scale.T


def squared_distances(
    x: Tensor, y: Tensor, centre: Tensor, accumulator: Accumulator = COARSEST
) -> tuple[Tensor, Tensor]:
    """|x_i - y_j|^2 [M, N] in float32, and which of them were evaluated by differences."""
    first, second = Limbs.of(x, centre), Limbs.of(y, centre)
    with np.errstate(all="ignore"):
        terms = first.norms[:, None] + second.norms
        r = terms - 2 * products(first, second, accumulator)
        again = torch.from_numpy(~(r >= terms / 8))  # also where r is no number
    by_differences = (x[:, None] - y).square().sum(2)
    return torch.where(again, by_differences, torch.from_numpy(r)), again


# What is hard on two limbs, made in place of a window and a prior [rows, D] in float64


def near_duplicates(x: Tensor, y: Tensor) -> None:
    x[20:30] = x[4] * (1 + 1e-6 * x[20:30])
    y[3:6] = x[4]


def offset(x: Tensor, y: Tensor) -> None:
    x += 1e4
    y += 1e4


def apart(x: Tensor, y: Tensor) -> None:
    x += 1e4


def tiny(x: Tensor, y: Tensor) -> None:
    x *= 1e-20
    y *= 1e-20


def rows_of_every_magnitude(x: Tensor, y: Tensor) -> None:
    x *= 10 ** torch.linspace(-20, 20, len(x), dtype=x.dtype)[:, None]
    y *= 10 ** torch.linspace(-20, 20, len(y), dtype=x.dtype)[:, None]


def coordinates_of_every_magnitude(x: Tensor, y: Tensor) -> None:
    factors = 10 ** torch.linspace(-20, 20, x.shape[1], dtype=x.dtype)
    x *= factors
    y *= factors


def one_huge_row(x: Tensor, y: Tensor) -> None:
    x[7] *= 1e10


def two_clusters(x: Tensor, y: Tensor) -> None:
    """Every pair within one cancels."""
    x *= 1e-2
    y *= 1e-2
    x[::2] += 1
    y[::2] += 1


ADVERSARIES = [
    near_duplicates, offset, apart, tiny, rows_of_every_magnitude, coordinates_of_every_magnitude, one_huge_row,
    two_clusters,
]  # fmt: skip
