r"""Maximum mean discrepancy by inverse multiquadric, Gaussian or energy kernels (Gretton et al. 2012).

With r = |x-y|^2 and C = 2Ds for each scale s (Tolstikhin et al. 2018, with a prior of unit variance):

    imq       k(x, y) = sum_s C / (C + r)                                                          (1)
    gaussian  k(x, y) = sum_s exp(-r / C)                                                          (2)
    MMD = E k(z, z') + E k(v, v') - 2 E k(z, v)                                                    (3)
    energy    k(x, y) = -sqrt(r), which has no scale (Szekely and Rizzo 2013: the energy distance)  (6)

where z runs over the window, v over the prior. "unbiased" leaves the pairs i = j out of zz and vv, "biased" keeps
them. Under v ~ N(0, I_D) the two expectations that v enters are exact:

    imq       E k(z, v) = laplace.imq_mean(|z|^2),  E k(v, v') = sum_C int_0^inf C exp(-tC) (1+4t)^(-D/2) dt     (4)
    gaussian  E k(z, v) = sum_s (Ds/(Ds+1))^(D/2) exp(-|z|^2/(2(Ds+1))),  E k(v, v') = sum_s (Ds/(Ds+2))^(D/2)   (5)
    energy    E k(z, v) = -c 1F1(-1/2; D/2; -s),  E k(v, v') = -sqrt(2) c,                         (7)
              c = sqrt(2) Gamma((D+1)/2) / Gamma(D/2),  s = |z|^2/2,  and by a contiguous relation (DLMF 13.3.4)
              1F1(-1/2; D/2; -s) = phi_D(s) + (2s/D) phi_(D+2)(s),  phi as in `laplace.phi`: no digit is lost
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from mow_kernels.compiling import constant_in_graphs
from mow_kernels.reference import laplace
from mow_kernels.reference.sums import Pairwise, Radial, over_window, sum_between, sum_window, sum_within


class Kernel(NamedTuple):
    """A kernel of `mmd`: a sum over scales of radial functions."""

    radial: Callable[[list[float], Tensor], Tensor]
    """radial(constants C, r) -> of r's shape, elementwise."""
    mean: Callable[..., Tensor]
    """mean(z [a, D], scales=...) -> [a]: E k(z, v) under N(0, I)."""
    vv: Callable[[int, tuple[float, ...]], float]
    """vv(D, scales): E k(v, v') under N(0, I)."""
    at_zero: Callable[[tuple[float, ...]], float] = len
    """at_zero(scales): k(x, x)."""
    scaled: bool = True
    """Whether it has scales."""


def mmd(
    current: Tensor, history: Tensor, prior: Tensor | None, *, kernel: str, scales: tuple[float, ...], estimator: str
) -> Tensor:
    """Equation (3). current [k, D], history [h, D], prior [m, D] or None for N(0, I) -> 0-d."""
    n, dim = len(current) + len(history), current.shape[1]
    if prior is None:
        return over_window(mmd_to_normal(n, dim, kernel=kernel, scales=scales, estimator=estimator), current, history)
    radial, m = _radial(kernel, dim, scales), len(prior)
    at_zero = KERNELS[kernel].at_zero(scales)
    (zz, zz_diagonal), (vv, vv_diagonal) = (_mean_within(rows, at_zero, estimator) for rows in (n, m))
    zv = sum_between(radial, current, prior) + sum_between(radial, history, prior)
    within = zz * sum_window(radial, current, history) + zz_diagonal + vv * sum_within(radial, prior) + vv_diagonal
    return within - 2 / (n * m) * zv


def mmd_to_normal(n: int, dim: int, *, kernel: str, scales: tuple[float, ...], estimator: str) -> Pairwise:
    """Equation (3) to N(0, I). "unbiased" counts the empty sum over pairs of n = 1 as 0."""
    zz, diagonal = _mean_within(n, KERNELS[kernel].at_zero(scales), estimator)
    radial, own = _radial(kernel, dim, scales), functools.partial(KERNELS[kernel].mean, scales=scales)
    constant = diagonal + KERNELS[kernel].vv(dim, scales)
    return Pairwise((dim, kernel, scales), radial, own, zz, -2 / n, constant)


def _mean_within(rows: int, at_zero: float, estimator: str) -> tuple[float, float]:
    """The mean of k within a sample as a factor of its sum over i != j and what the diagonal, k(x, x), adds."""
    if estimator == "unbiased":
        return 1 / max(1, rows * (rows - 1)), 0.0
    return 1 / rows**2, at_zero / rows


def _radial(kernel: str, dim: int, scales: tuple[float, ...]) -> Radial:
    return functools.partial(KERNELS[kernel].radial, [2 * dim * scale for scale in scales])


def _imq(constants: list[float], r: Tensor) -> Tensor:
    return cast(Tensor, sum(constant / (constant + r) for constant in constants))


def _gaussian(constants: list[float], r: Tensor) -> Tensor:
    return cast(Tensor, sum(torch.exp(-r / constant) for constant in constants))


def _imq_mean(z: Tensor, scales: tuple[float, ...]) -> Tensor:
    return laplace.imq_mean(z.square().sum(1), z.shape[1], scales)


def _gaussian_mean(z: Tensor, scales: tuple[float, ...]) -> Tensor:
    dim, squared_norm = z.shape[1], z.square().sum(1)
    terms = (
        math.exp(-dim / 2 * math.log1p(1 / (dim * scale))) * torch.exp(-squared_norm / (2 * (dim * scale + 1)))
        for scale in scales
    )
    return cast(Tensor, sum(terms))


@constant_in_graphs
def _imq_vv(dim: int, scales: tuple[float, ...]) -> float:
    """E k(v, v') of equation (4)."""
    return _imq_mean_at_origin(dim, tuple(scale / 2 for scale in scales))  # v - v' has twice the variance of v


@functools.lru_cache(maxsize=256)
def _imq_mean_at_origin(dim: int, scales: tuple[float, ...]) -> float:
    series = laplace.imq_mean_series(dim, scales, 0, torch.float64)
    return float(laplace.evaluate(series, torch.zeros((), dtype=torch.float64)))


def _gaussian_vv(dim: int, scales: tuple[float, ...]) -> float:
    """E k(v, v') of equation (5)."""
    return sum(math.exp(-dim / 2 * math.log1p(2 / (dim * scale))) for scale in scales)


def _energy(constants: list[float], r: Tensor) -> Tensor:
    """Equation (6), with derivative 0 where points coincide, at which the root has none."""
    apart = r > 0
    return -torch.where(apart, torch.where(apart, r, 1).sqrt(), 0)


def _energy_mean(z: Tensor, scales: tuple[float, ...]) -> Tensor:
    dim, s = z.shape[1], z.square().sum(1) / 2
    return -_mean_norm(dim) * (laplace.phi(s, dim) + 2 / dim * s * laplace.phi(s, dim + 2))


def _energy_vv(dim: int, scales: tuple[float, ...]) -> float:
    """E k(v, v') of equation (7)."""
    return -math.sqrt(2) * _mean_norm(dim)


def _mean_norm(dim: int) -> float:
    """E |v|: the c of equation (7)."""
    return math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))


KERNELS = {
    "imq": Kernel(_imq, _imq_mean, _imq_vv),
    "gaussian": Kernel(_gaussian, _gaussian_mean, _gaussian_vv),
    "energy": Kernel(_energy, _energy_mean, _energy_vv, at_zero=lambda scales: 0.0, scaled=False),
}
"""The kernels by name, equations (1), (2) and (6)."""
