"""Maximum mean discrepancy, mow_kernels/reference/mmd.py, as sums over pairs."""

from __future__ import annotations

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from mow_kernels.ops.mmd import table
from mow_kernels.reference.mmd import KERNELS, Numbers
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
    dim: int, dtype: torch.dtype, kernel: str, scales: Numbers, estimator: str, n: int, m: int | None
) -> PairwiseDistance:
    f, f_rate, g, g_rate, normal_vv = _radials(dim, dtype, kernel, scales, m is None)
    diagonal, constant = estimator == "biased" and f.family == "products", 0.0

    def within(rows: int) -> float:
        """The weight of a pair; a diagonal of equal numbers goes into the constant."""
        nonlocal constant
        if estimator == "unbiased":
            return 1 / (rows * (rows - 1)) if rows > 1 else 0.0
        if not diagonal:
            constant += KERNELS[kernel].at_zero(scales) / rows
        return 1 / rows**2

    zz = within(n)
    if m is None:
        constant += normal_vv
        return PairwiseDistance(f, f_rate, constant, zz, -2 / n, g=g, g_rate=g_rate, diagonal=diagonal)
    vv = within(m)
    return PairwiseDistance(f, f_rate, constant, zz, -2 / (n * m), vv, diagonal=diagonal)


@functools.lru_cache(maxsize=256)
def _radials(
    dim: int, dtype: torch.dtype, kernel: str, scales: Numbers, closed_form: bool
) -> tuple[radial.Radial, float, radial.Radial | None, float, float]:
    """k as f with its rate, and for the closed form E k(z, v) as g(|z|^2) with its own, and E k(v, v')."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    count = len(scales)
    _, _, _, *numbers = table(dim, wide, kernel, scales, "biased", closed_form).tolist()
    f, (own, normal) = _FUNCTIONS[kernel](numbers[:count], wide), (numbers[:count], numbers[count:])
    if not closed_form:
        return *f, None, 0.0, 0.0
    return *f, *_MEANS[kernel](own, normal[1:]), normal[0]


def _series(power: float, mean: list[float]) -> tuple[radial.Radial, float]:
    g, knee = radial.series(mean, power=power)
    return g, 1 / (2 * knee)  # a series in |z|^2/2


_FUNCTIONS: dict[str, Callable[[list[float], torch.dtype], tuple[radial.Radial, float]]] = {
    "imq": radial.inverse_multiquadric,
    "gaussian": lambda numbers, dtype: radial.gaussian(numbers),
    "energy": lambda numbers, dtype: (radial.Radial("root", 0), 1.0),
    "laplacian": lambda numbers, dtype: (radial.laplacian(numbers, dtype), 1.0),
    "rational_quadratic": lambda numbers, dtype: (radial.rational_quadratic(numbers[0] / 2, numbers[1:]), 1.0),
    "polynomial": lambda numbers, dtype: (radial.Radial("products", int(numbers[0]), offset=numbers[1]), numbers[2]),
}
"""kernel -> what its numbers in the table make."""

_MEANS: dict[str, Callable[[list[float], list[float]], tuple[radial.Radial, float]]] = {
    "imq": lambda numbers, mean: _series(1.0, mean),
    "gaussian": lambda numbers, mean: (radial.exponentials(mean[: len(numbers)], mean[len(numbers) :]), 1.0),
    "energy": lambda numbers, mean: _series(-0.5, mean),
    "rational_quadratic": lambda numbers, mean: (
        radial.sum_of_series(mean[0], numbers[0] / 2, numbers[1:], mean[1:]),
        1.0,
    ),
    "polynomial": lambda numbers, mean: (radial.polynomial(mean), 1.0),
}
"""kernel -> what its numbers and the parameters of E k(z, v) in the table make."""
