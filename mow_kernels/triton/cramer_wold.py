"""Cramer-Wold distance, equations (1) and (2) of mow_kernels/reference/cramer_wold.py, as sums over pairs."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from mow_kernels.ops.cramer_wold import table
from mow_kernels.triton import radial
from mow_kernels.triton.pairs import PairwiseDistance, evaluate_distance


def cramer_wold(
    current: Tensor,
    history: Tensor,
    prior: Tensor | None,
    gamma: float,
    phi: str,
    needs_grad: bool,
    needs_value: bool = True,
) -> tuple[Tensor, Tensor]:
    """The value [] and the gradient for current [k, D], each [0] where it is not needed."""
    n, m = len(current) + len(history), None if prior is None else len(prior)
    function, knee = _phi(current.shape[1], current.dtype, phi)
    factor, root = 1 / (2 * math.sqrt(math.pi)), math.sqrt(gamma)
    f_rate, zz = 1 / (4 * gamma * knee), factor / (n**2 * root)
    constant = factor / (n * root)  # phi(0) = 1 on the diagonals
    if m is None:
        constant += factor / math.sqrt(1 + gamma)
        zv = -2 * factor / (n * math.sqrt(gamma + 0.5))
        g_rate = 1 / ((2 + 4 * gamma) * knee)
        distance = PairwiseDistance(function, f_rate, constant, zz, zv, g=function, g_rate=g_rate)
    else:
        constant += factor / (m * root)
        zv, vv = -2 * factor / (n * m * root), factor / (m**2 * root)
        distance = PairwiseDistance(function, f_rate, constant, zz, zv, vv)
    return evaluate_distance(distance, current, history, prior, needs_grad, needs_value)


@functools.lru_cache(maxsize=256)
def _phi(dim: int, dtype: torch.dtype, phi: str) -> tuple[radial.Radial, float]:
    """phi_D(s) in t = s / knee, and the knee."""
    numbers = table(dim, torch.float64 if dtype == torch.float64 else torch.float32, phi).tolist()
    return radial.series(numbers, power=0.5) if numbers else (radial.exponentials([1.0], [1.0]), 1.0)
