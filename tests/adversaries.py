"""What is hard on distances by two limbs, made in place of a window and a prior [rows, D] in float64."""

from __future__ import annotations

import torch
from torch import Tensor


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
