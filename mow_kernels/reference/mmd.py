r"""Maximum mean discrepancy by sums of kernels over pairs of rows (Gretton et al. 2012).

With r = |x-y|^2 and C = 2Ds for each scale s (Tolstikhin et al. 2018, with a prior of unit variance):

    imq                 k(x, y) = sum_s C / (C + r)                                                (1)
    gaussian            k(x, y) = sum_s exp(-r / C)                                                (2)
    MMD = E k(z, z') + E k(v, v') - 2 E k(z, v)                                                    (3)
    energy              k(x, y) = -sqrt(r), which has no scale (Szekely and Rizzo 2013)            (6)
    laplacian           k(x, y) = sum_s exp(-sqrt(r) / s)                                          (8)
    rational_quadratic  k(x, y) = sum_a (1 + r/(2a))^-a + b x.y (Binkowski et al. 2018)            (9)
    polynomial          k(x, y) = (g x.y + c)^d (the same; KID)                                    (10)

where z runs over the window, v over the prior. "unbiased" leaves the pairs i = j out of zz and vv, "biased" keeps
them. What a kernel has of x alone and of y alone cancels in (3), so that x.y = (|x|^2 + |y|^2 - r)/2 counts as -r/2.
Under v ~ N(0, I_D) the two expectations that v enters are exact, but for (8), which has none:

    imq       E k(z, v) = laplace.imq_mean(|z|^2),  E k(v, v') = sum_C int_0^inf C exp(-tC) (1+4t)^(-D/2) dt     (4)
    gaussian  E k(z, v) = sum_s (Ds/(Ds+1))^(D/2) exp(-|z|^2/(2(Ds+1))),  E k(v, v') = sum_s (Ds/(Ds+2))^(D/2)   (5)
    energy    E k(z, v) = -c 1F1(-1/2; D/2; -s),  E k(v, v') = -sqrt(2) c,                         (7)
              c = sqrt(2) Gamma((D+1)/2) / Gamma(D/2),  s = |z|^2/2,  and by a contiguous relation (DLMF 13.3.4)
              1F1(-1/2; D/2; -s) = phi_D(s) + (2s/D) phi_(D+2)(s),  phi as in `laplace.phi`: no digit is lost
    rational_quadratic  E k(z, v) = sum_a laplace.power_mean(|z|^2) - b (|z|^2 + D)/2, and E k(v, v') that with twice
              the variance, at z = 0
    polynomial  by the moments of z.v ~ N(0, |z|^2): with j even, E (z.v)^j = |z|^j (j-1)!! and
              E (v.v')^j = (j-1)!! D (D+2) ... (D+j-2)
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
from mow_kernels.reference.sums import (
    Argument,
    Pairwise,
    Radial,
    over_window,
    products,
    squared_distances,
    sum_between,
    sum_window,
    sum_within,
)

Numbers = tuple[float, ...]
"""What a kernel has for numbers: its scales; (b, a...) of equation (9); (d, c, g) of equation (10)."""


class Kernel(NamedTuple):
    """A kernel of `mmd`, a function of what a pair of rows has for its `argument`."""

    of: Callable[[Tensor, int, Numbers], Tensor]
    """of(arguments, D, numbers) -> of the arguments' shape, elementwise."""
    mean: Callable[[Tensor, Numbers], Tensor] | None
    """mean(z [a, D], numbers) -> [a]: E k(z, v) under N(0, I); None where it has no closed form."""
    vv: Callable[[int, Numbers], float]
    """vv(D, numbers): E k(v, v') under N(0, I), where there is `mean`."""
    at_zero: Callable[[Numbers], float] = len
    """at_zero(numbers): k(x, x) for the squared distance as argument."""
    argument: Argument = squared_distances

    def diagonal(self, x: Tensor, numbers: Numbers) -> Tensor:
        """k(x_i, x_i). x [a, D] -> [a]."""
        if self.argument is products:
            return self.of(x.square().sum(1), x.shape[1], numbers)
        return x.new_full((len(x),), self.at_zero(numbers))


def mmd(
    current: Tensor, history: Tensor, prior: Tensor | None, *, kernel: str, scales: Numbers, estimator: str
) -> Tensor:
    """Equation (3). current [k, D], history [h, D], prior [m, D] or None for N(0, I) -> 0-d."""
    n, dim = len(current) + len(history), current.shape[1]
    if prior is None:
        return over_window(mmd_to_normal(n, dim, kernel=kernel, scales=scales, estimator=estimator), current, history)
    k, f, m = KERNELS[kernel], _of(kernel, dim, scales), len(prior)
    zz, vv = (_mean_within(rows, estimator) for rows in (n, m))
    zv = sum_between(f, current, prior, k.argument) + sum_between(f, history, prior, k.argument)
    within = zz * sum_window(f, current, history, k.argument) + vv * sum_within(f, prior, k.argument)
    if estimator == "biased":
        own = k.diagonal(current, scales).sum() + k.diagonal(history, scales).sum()
        within = within + zz * own + vv * k.diagonal(prior, scales).sum()
    return within - 2 / (n * m) * zv


def mmd_to_normal(n: int, dim: int, *, kernel: str, scales: Numbers, estimator: str) -> Pairwise:
    """Equation (3) to N(0, I). "unbiased" counts the empty sum over pairs of n = 1 as 0."""
    k, zz = KERNELS[kernel], _mean_within(n, estimator)
    assert k.mean is not None
    constant, with_diagonal = k.vv(dim, scales), False
    if estimator == "biased" and k.argument is products:
        with_diagonal = True
    elif estimator == "biased":
        constant += k.at_zero(scales) / n
    own = functools.partial(_own, k, scales, n if with_diagonal else None)
    return Pairwise((dim, kernel, scales), _of(kernel, dim, scales), own, zz, -2 / n, constant, k.argument)


def _own(kernel: Kernel, numbers: Numbers, n: int | None, z: Tensor) -> Tensor:
    """E k(z, v), whose factor is -2/n, and of n rows also the diagonal of zz, whose factor is 1/n^2."""
    assert kernel.mean is not None
    mean = kernel.mean(z, numbers)
    return mean if n is None else mean - kernel.diagonal(z, numbers) / (2 * n)


def _mean_within(rows: int, estimator: str) -> float:
    """The mean of k within a sample as a factor of its sum over i != j, and with "biased" over i = j, too."""
    return 1 / max(1, rows * (rows - 1)) if estimator == "unbiased" else 1 / rows**2


def _of(kernel: str, dim: int, numbers: Numbers) -> Radial:
    return lambda argument: KERNELS[kernel].of(argument, dim, numbers)


def _imq(r: Tensor, dim: int, scales: Numbers) -> Tensor:
    return cast(Tensor, sum(2 * dim * scale / (2 * dim * scale + r) for scale in scales))


def _gaussian(r: Tensor, dim: int, scales: Numbers) -> Tensor:
    return cast(Tensor, sum(torch.exp(-r / (2 * dim * scale)) for scale in scales))


def _imq_mean(z: Tensor, numbers: Numbers) -> Tensor:
    return laplace.imq_mean(z.square().sum(1), z.shape[1], numbers)


def _gaussian_mean(z: Tensor, numbers: Numbers) -> Tensor:
    dim, squared_norm = z.shape[1], z.square().sum(1)
    terms = (
        math.exp(-dim / 2 * math.log1p(1 / (dim * scale))) * torch.exp(-squared_norm / (2 * (dim * scale + 1)))
        for scale in numbers
    )
    return cast(Tensor, sum(terms))


@constant_in_graphs
def _imq_vv(dim: int, scales: Numbers) -> float:
    """E k(v, v') of equation (4)."""
    halves = tuple(scale / 2 for scale in scales)  # v - v' has twice the variance of v
    return laplace.at_origin(laplace.imq_mean_series, dim, halves)


def _gaussian_vv(dim: int, scales: Numbers) -> float:
    """E k(v, v') of equation (5)."""
    return sum(math.exp(-dim / 2 * math.log1p(2 / (dim * scale))) for scale in scales)


def _root(r: Tensor) -> Tensor:
    """sqrt(r), with derivative 0 where points coincide, at which it has none."""
    apart = r > 0
    return torch.where(apart, torch.where(apart, r, 1).sqrt(), 0)


def _energy(r: Tensor, dim: int, numbers: Numbers) -> Tensor:
    return -_root(r)


def _energy_mean(z: Tensor, numbers: Numbers) -> Tensor:
    dim, s = z.shape[1], z.square().sum(1) / 2
    return -laplace.mean_norm(dim) * (laplace.phi(s, dim) + 2 / dim * s * laplace.phi(s, dim + 2))


def _energy_vv(dim: int, numbers: Numbers) -> float:
    """E k(v, v') of equation (7)."""
    return -math.sqrt(2) * laplace.mean_norm(dim)


def _laplacian(r: Tensor, dim: int, scales: Numbers) -> Tensor:
    distance = _root(r)
    return cast(Tensor, sum(torch.exp(-distance / scale) for scale in scales))


def _rational_quadratic(r: Tensor, dim: int, numbers: Numbers) -> Tensor:
    linear, *alphas = numbers
    terms = cast(Tensor, sum((1 + r / (2 * alpha)) ** -alpha for alpha in alphas))
    return terms - linear / 2 * r if linear else terms


def _rational_quadratic_mean(z: Tensor, numbers: Numbers) -> Tensor:
    linear, *alphas = numbers
    r, dim = z.square().sum(1), z.shape[1]
    terms = cast(Tensor, sum(laplace.power_mean(r, dim, alpha) for alpha in alphas))
    return terms - linear / 2 * (r + dim) if linear else terms


@constant_in_graphs
def _rational_quadratic_vv(dim: int, numbers: Numbers) -> float:
    linear, *alphas = numbers  # v - v' has twice the variance of v
    return sum(laplace.at_origin(laplace.power_mean_series, dim, alpha, alpha / 2) for alpha in alphas) - linear * dim


def _polynomial(product: Tensor, dim: int, numbers: Numbers) -> Tensor:
    degree, coef0, gamma = numbers
    return (gamma * product + coef0) ** int(degree)


def _polynomial_mean(z: Tensor, numbers: Numbers) -> Tensor:
    squared_norm = z.square().sum(1)
    value = torch.zeros_like(squared_norm)
    for coefficient in reversed(polynomial_mean(numbers)):
        value = value * squared_norm + coefficient
    return value


def polynomial_mean(numbers: Numbers) -> list[float]:
    """E k(z, v) of equation (10) in powers of |z|^2, from the constant on."""
    degree, coef0, gamma = numbers
    return [
        math.comb(int(degree), j) * coef0 ** (int(degree) - j) * gamma**j * _odd_factorial(j)
        for j in range(0, int(degree) + 1, 2)
    ]


def _polynomial_vv(dim: int, numbers: Numbers) -> float:
    moments = [1.0]  # E |v|^j for j = 0, 2, 4, ...
    for j in range(int(numbers[0]) // 2):
        moments.append(moments[-1] * (dim + 2 * j))
    return sum(a * b for a, b in zip(polynomial_mean(numbers), moments, strict=True))


def _odd_factorial(j: int) -> float:
    """(j-1)!! for even j."""
    return float(math.prod(range(1, j, 2)))


KERNELS = {
    "imq": Kernel(_imq, _imq_mean, _imq_vv),
    "gaussian": Kernel(_gaussian, _gaussian_mean, _gaussian_vv),
    "energy": Kernel(_energy, _energy_mean, _energy_vv, at_zero=lambda numbers: 0.0),
    "laplacian": Kernel(_laplacian, None, lambda dim, numbers: math.nan),
    "rational_quadratic": Kernel(
        _rational_quadratic, _rational_quadratic_mean, _rational_quadratic_vv, lambda numbers: len(numbers) - 1
    ),
    "polynomial": Kernel(_polynomial, _polynomial_mean, _polynomial_vv, argument=products),
}
"""The kernels by name, equations (1), (2), (6) and (8) to (10)."""
