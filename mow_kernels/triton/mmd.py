"""Maximum mean discrepancy, equations (1) to (5) of mow_kernels/reference/mmd.py, as sums over pairs."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from mow_kernels.ops.mmd import table
from mow_kernels.triton import radial
from mow_kernels.triton.pairs import PairwiseDistance, evaluate_distance


def mmd(
    current: Tensor,
    history: Tensor,
    prior: Tensor | None,
    kernel: str,
    scales: list[float],
    estimator: str,
    needs_grad: bool,
    needs_value: bool = True,
) -> tuple[Tensor, Tensor]:
    """The value [] and the gradient for current [k, D], each [0] where it is not needed."""
    n, m = len(current) + len(history), None if prior is None else len(prior)
    distance = _distance(current.shape[1], current.dtype, kernel, tuple(scales), estimator, n, m)
    return evaluate_distance(distance, current, history, prior, needs_grad, needs_value)


@functools.lru_cache(maxsize=256)
def _distance(
    dim: int, dtype: torch.dtype, kernel: str, scales: tuple[float, ...], estimator: str, n: int, m: int | None
) -> PairwiseDistance:
    f, f_rate, g, g_rate, normal_vv = _radials(dim, dtype, kernel, scales, m is None)
    constant = 0.0

    def within(rows: int) -> float:
        """The weight of a pair; the diagonal, where k is the number of scales, goes into the constant."""
        nonlocal constant
        if estimator == "unbiased":
            return 1 / (rows * (rows - 1)) if rows > 1 else 0.0
        constant += len(scales) / rows
        return 1 / rows**2

    zz = within(n)
    if m is None:
        return PairwiseDistance(f, f_rate, constant + normal_vv, zz, -2 / n, g=g, g_rate=g_rate)
    vv = within(m)
    return PairwiseDistance(f, f_rate, constant, zz, -2 / (n * m), vv)


@functools.lru_cache(maxsize=256)
def _radials(
    dim: int, dtype: torch.dtype, kernel: str, scales: tuple[float, ...], closed_form: bool
) -> tuple[radial.Radial, float, radial.Radial | None, float, float]:
    """k(x, y) as f(r) with its rate, and for the closed form E k(z, v) as g(|z|^2) with its own, and E k(v, v')."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    count = len(scales)
    _, _, _, *numbers = table(dim, wide, kernel, scales, "biased", closed_form).tolist()
    constants, normal = numbers[:count], numbers[count:]
    f = radial.gaussian(constants) if kernel == "gaussian" else radial.inverse_multiquadric(constants, wide)
    if not closed_form:
        return *f, None, 0.0, 0.0
    if kernel == "gaussian":
        return *f, radial.exponentials(normal[1 : 1 + count], normal[1 + count :]), 1.0, normal[0]
    g, knee = radial.series(normal[1:], half=False)
    return *f, g, 1 / (2 * knee), normal[0]  # a series in |z|^2/2
