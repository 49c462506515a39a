"""What the three distances and greedy k-centre are, in plain NumPy and SciPy: slow, float64, from the formulas.

It tests the reference backend and nothing else; every other backend is compared with the reference. Samples are arrays
[rows, D]. `v` (the prior) is a sample [m, D], or None for N(0, I). Nothing here is shared with the package.
"""

from __future__ import annotations

from functools import cache
from math import exp, inf, log1p, pi, sqrt

import mpmath
import numpy as np
from numpy.typing import ArrayLike
from scipy.integrate import quad
from scipy.special import hyp1f1, ndtri

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """[n, D] and [m, D] -> [n, m], by direct differences."""
    return ((x[:, None, :] - y[None, :, :]) ** 2).sum(axis=2)


# Maximum mean discrepancy


def mmd(
    z: ArrayLike,
    v: ArrayLike | None = None,
    kernel: str = "imq",
    scales: tuple[float, ...] = SCALES,
    estimator: str = "unbiased",
) -> float:
    z = np.asarray(z, dtype=np.float64)
    zz = _within(z, kernel, scales, estimator)
    if v is None:
        zv = np.mean([kernel_to_normal(row @ row, z.shape[1], kernel, scales) for row in z])
        vv = kernel_between_normals(z.shape[1], kernel, scales)
    else:
        v = np.asarray(v, dtype=np.float64)
        zv = _kernel(squared_distances(z, v), z.shape[1], kernel, scales).mean()
        vv = _within(v, kernel, scales, estimator)
    return float(zz + vv - 2 * zv)


def _kernel(r: np.ndarray, dim: int, kernel: str, scales: tuple[float, ...]) -> np.ndarray:
    widths = [2 * dim * scale for scale in scales]
    return sum(c / (c + r) if kernel == "imq" else np.exp(-r / c) for c in widths)


def _within(x: np.ndarray, kernel: str, scales: tuple[float, ...], estimator: str) -> float:
    n = len(x)
    gram = _kernel(squared_distances(x, x), x.shape[1], kernel, scales)
    if estimator == "biased":
        return gram.mean()
    return sum(gram[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))


def kernel_to_normal(q: float, dim: int, kernel: str, scales: tuple[float, ...]) -> float:
    """E k(z, v) over v ~ N(0, I), where q = |z|^2."""
    if kernel == "gaussian":  # the moment generating function of a non-central chi-square at -1/(2Ds)
        return sum((1 + 1 / (dim * s)) ** (-dim / 2) * exp(-q / (2 * dim * s + 2)) for s in scales)
    return sum(_imq_to_normal(float(q), dim, 2 * dim * s) for s in scales)


def kernel_between_normals(dim: int, kernel: str, scales: tuple[float, ...]) -> float:
    """E k(v, v') over independent v, v' ~ N(0, I)."""
    if kernel == "gaussian":
        return sum((1 + 2 / (dim * s)) ** (-dim / 2) for s in scales)
    return sum(_laplace(lambda t, c=2 * dim * s: -dim / 2 * log1p(4 * t), 2 * dim * s, dim) for s in scales)


@cache
def _imq_to_normal(q: float, dim: int, c: float) -> float:
    return _laplace(lambda t: -dim / 2 * log1p(2 * t) - q * t / (1 + 2 * t), c, dim + q)


def _laplace(log_moment, c: float, slope: float) -> float:
    """int_0^inf c exp(-c t) exp(log_moment(t)) dt, with t in units of the integrand's own decay at 0."""
    rate = c + slope

    def integrand(x: float) -> float:
        return exp(-c * x / rate + log_moment(x / rate))

    intervals = ((0, 1), (1, 8), (8, 64), (64, inf))
    return c / rate * sum(quad(integrand, a, b, epsabs=0, epsrel=1e-13, limit=200)[0] for a, b in intervals)


# Cramer-Wold


def cramer_wold(z: ArrayLike, v: ArrayLike | None = None, gamma: float | None = None, phi: str = "exact") -> float:
    z = np.asarray(z, dtype=np.float64)
    n, dim = z.shape
    if gamma is None:
        gamma = (4 / (3 * n)) ** 0.4

    def mean_phi(r: np.ndarray, width: float) -> float:
        return (phi_exact if phi == "exact" else phi_asymptotic)(r / width, dim).mean()

    zz = mean_phi(squared_distances(z, z), 4 * gamma)
    if v is None:
        zv = mean_phi((z**2).sum(axis=1), 2 + 4 * gamma) / sqrt(gamma + 0.5)
        return float((1 / sqrt(1 + gamma) + zz / sqrt(gamma) - 2 * zv) / (2 * sqrt(pi)))
    v = np.asarray(v, dtype=np.float64)
    vv = mean_phi(squared_distances(v, v), 4 * gamma)
    zv = mean_phi(squared_distances(z, v), 4 * gamma)
    return float((zz + vv - 2 * zv) / (2 * sqrt(pi * gamma)))


def phi_exact(s: ArrayLike, dim: int, order: int = 0) -> np.ndarray:
    """1F1(1/2; D/2; -s) or its derivative of the given order in s."""
    s = np.asarray(s, dtype=np.float64)
    a, b, factor = 0.5, dim / 2, 1.0
    for _ in range(order):  # d/ds 1F1(a; b; -s) = -(a/b) 1F1(a+1; b+1; -s)
        factor, a, b = -factor * a / b, a + 1, b + 1
    near = np.minimum(s, 1e4)  # beyond that some versions of SciPy overflow or lose digits
    values = hyp1f1(a, b, -near)
    for index in np.argwhere(s > near):
        values[tuple(index)] = _hyp1f1(a, b, -float(s[tuple(index)]))
    return factor * values


@cache
def _hyp1f1(a: float, b: float, x: float) -> float:
    with mpmath.workdps(50):
        return float(mpmath.hyp1f1(a, b, x))


def phi_asymptotic(s: ArrayLike, dim: int) -> np.ndarray:
    return 1 / np.sqrt(1 + 4 * np.asarray(s, dtype=np.float64) / (2 * dim - 3))


# Sliced-Wasserstein


def sliced_wasserstein(z: ArrayLike, v: ArrayLike | None, directions: ArrayLike, p: float = 2) -> float:
    """The mean of W_p^p over the columns of `directions` [D, L]; v = None needs p = 2."""
    directions = np.asarray(directions, dtype=np.float64)
    z = np.asarray(z, dtype=np.float64)
    if v is None:
        assert p == 2
        return float(np.mean([wasserstein_to_normal(z @ theta) for theta in directions.T]))
    v = np.asarray(v, dtype=np.float64)
    return float(np.mean([wasserstein(z @ theta, v @ theta, p) for theta in directions.T]))


def wasserstein(x: np.ndarray, y: np.ndarray, p: float) -> float:
    """int_0^1 |F_x^-1(u) - F_y^-1(u)|^p du: both quantile functions are steps, merged in units of 1/(nm), exactly."""
    x, y = np.sort(x), np.sort(y)
    n, m = len(x), len(y)
    total, position = 0.0, 0
    while position < n * m:
        i, j = position // m, position // n  # x_(i) holds on [i m, (i+1) m), y_(j) on [j n, (j+1) n)
        end = min((i + 1) * m, (j + 1) * n)
        total += (end - position) * abs(x[i] - y[j]) ** p
        position = end
    return total / (n * m)


def wasserstein_to_normal(x: np.ndarray) -> float:
    """The squared W2 between a sample and N(0, 1) in closed form."""
    n = len(x)
    density = np.exp(-(ndtri(np.arange(n + 1) / n) ** 2) / 2) / sqrt(2 * pi)
    return (x**2).mean() + 1 - 2 * np.sort(x) @ (density[:-1] - density[1:])


def wasserstein_to_normal_by_quadrature(x: np.ndarray) -> float:
    """The same by integrating (F_x^-1(Phi(t)) - t)^2 against the normal density, one step of F_x^-1 at a time."""
    n = len(x)
    edges = ndtri(np.arange(n + 1) / n)
    return sum(
        quad(lambda t, xi=xi: (xi - t) ** 2 * exp(-t * t / 2) / sqrt(2 * pi), a, b, epsabs=1e-15, epsrel=1e-13)[0]
        for xi, a, b in zip(np.sort(x), edges[:-1], edges[1:], strict=True)
    )


# Greedy k-centre


def k_center(x: ArrayLike, k: int, start: int) -> tuple[list[int], float, list[int]]:
    """Indices, covering radius and Voronoi counts from the matrix of all distances."""
    x = np.asarray(x, dtype=np.float64)
    r = squared_distances(x, x)
    taken = [start]
    while len(taken) < k:
        nearest = r[:, taken].min(axis=1)
        nearest[taken] = -inf
        taken.append(int(np.argmax(nearest)))
    owners = r[:, taken].argmin(axis=1)
    return taken, sqrt(r[:, taken].min(axis=1).max()), np.bincount(owners, minlength=k).tolist()
