"""The special functions behind the closed forms, and the closed forms themselves by other means than their formula."""

from __future__ import annotations

from functools import cache
from math import log, pi, sqrt

import mpmath
import numpy as np
import oracle
import pytest
import torch
from mpmath import mp
from scipy.integrate import quad
from scipy.stats import chi2, ncx2
from torch import Tensor

import mow_kernels as mk
from mow_kernels.reference import laplace

pytestmark = pytest.mark.usefixtures("reference")

F32, F64 = torch.float32, torch.float64
DIMS = [1, 2, 3, 4, 5, 6, 7, 8, 20, 64, 512]
RELATIVE = {F64: 1e-12, F32: 1e-6}
dtypes = pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])


def with_derivatives(function, x: Tensor) -> list[Tensor]:
    """function(x) elementwise and its first two derivatives, by autograd."""
    x = x.detach().requires_grad_()
    values = [function(x)]
    for _ in range(2):
        values.append(torch.autograd.grad(values[-1].sum(), x, create_graph=True)[0])
    return [value.detach() for value in values]


def agree(values: list[Tensor], expected: list[np.ndarray], dtype: torch.dtype) -> None:
    """Relatively exact, down to the smallest normal number of the dtype."""
    for value, right in zip(values, expected, strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value.double().numpy(), right, rtol=RELATIVE[dtype], atol=torch.finfo(dtype).tiny)


# phi


@dtypes
@pytest.mark.parametrize("dim", [*DIMS, 33, 200])
def test_phi_against_mpmath(dim, dtype):
    s = torch.cat([torch.zeros(1), torch.logspace(-12, 30, 43), torch.logspace(-1, 4, 31)]).to(dtype)

    def exact(order: int) -> np.ndarray:  # d/ds 1F1(a; b; -s) = -(a/b) 1F1(a+1; b+1; -s)
        factor = (-1) ** order * mp.rf(0.5, order) / mp.rf(mp.mpf(dim) / 2, order)
        return np.array([float(factor * mp.hyp1f1(0.5 + order, mp.mpf(dim) / 2 + order, -x)) for x in s.tolist()])

    with mpmath.workdps(50):
        expected = [exact(order) for order in range(3)]
    agree(with_derivatives(lambda x: laplace.phi(x, dim), s), expected, dtype)


@dtypes
@pytest.mark.parametrize("dim", DIMS)
def test_phi_against_scipy(dim, dtype):
    """On a dense grid, where SciPy is exact."""
    s = torch.cat([torch.linspace(0, 50, 1001), torch.logspace(-6, 4, 1001)]).to(dtype)
    expected = [oracle.phi_exact(s.double().numpy(), dim, order) for order in range(3)]
    agree(with_derivatives(lambda x: laplace.phi(x, dim), s), expected, dtype)


def test_phi_by_hand():
    s = torch.linspace(0.01, 30, 100, dtype=F64)
    root = s.sqrt()
    closed = {
        1: (-s).exp(),
        2: torch.special.i0e(s / 2),
        3: sqrt(pi) * torch.erf(root) / (2 * root),
        4: torch.special.i0e(s / 2) + torch.special.i1e(s / 2),
    }
    for dim, expected in closed.items():
        torch.testing.assert_close(laplace.phi(s, dim), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dim", [2, 5, 20])
def test_phi_takes_any_shape(dim):
    s = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=F64)
    assert torch.equal(laplace.phi(s.mT, dim), laplace.phi(s, dim).mT)
    assert laplace.phi(s[0, 0, 0], dim).shape == ()
    assert laplace.phi(s[:0], dim).shape == (0, 3, 4)


def test_asymptotic_phi_is_the_large_dimension_limit(randn):
    """Facts: the largest error of phi is .0022 at D = 64; relative differences of the distances are of that order."""
    z, v = randn(6, 64), randn(5, 64)
    exact, asymptotic = (mk.cramer_wold(z, None, 3 * v, phi=phi).item() for phi in ("exact", "asymptotic"))
    assert exact != asymptotic
    assert asymptotic == pytest.approx(exact, rel=0.01)


def test_asymptotic_phi_needs_two_dimensions(randn):
    with pytest.raises(ValueError, match="phi.*asymptotic.*D = 1"):
        mk.cramer_wold(randn(3, 1), phi="asymptotic")
    mk.cramer_wold(randn(3, 2), phi="asymptotic")


# The mean of the IMQ kernel over N(0, I)


@cache
def imq_mean_by_quadrature(q: float, dim: int, scales: tuple[float, ...]) -> list[float]:
    """int_0^inf sum_C C e^(-tC) (1+2t)^(-D/2) e^(-q t/(1+2t)) dt and two derivatives in q, to about 20 digits.

    The trapezoidal rule in log t: the integrand is analytic and decays at both ends, so it converges exponentially.
    """
    widths = [mp.mpf(2 * dim) * scale for scale in scales]
    low, high, step = -46 - log(max(widths) + dim + q), log(800 / min(widths)), mp.mpf("0.2")
    totals = [mp.mpf(0)] * 3
    for i in range(int((high - low) / step) + 1):
        t = mp.exp(low + i * step)
        u = t / (1 + 2 * t)
        term = t * sum(c * mp.exp(-t * c) for c in widths) * (1 + 2 * t) ** (-mp.mpf(dim) / 2) * mp.exp(-q * u)
        totals = [total + term * (-u) ** order for order, total in enumerate(totals)]
    return [float(step * total) for total in totals]


@dtypes
@pytest.mark.parametrize("scales", [oracle.SCALES, (1.0,), (1e-3,), (1e3,), (0.01, 100.0)], ids=str)
@pytest.mark.parametrize("dim", [1, 2, *(pytest.param(dim, marks=pytest.mark.long) for dim in (3, 8, 64)), 20, 512])
def test_imq_mean_against_quadrature(dim, scales, dtype):
    q = torch.tensor([0, 2**-20, 0.25, 1, 5, dim, 40, 300, 1e4, 2**20, 1e8, 2**40], dtype=dtype)  # all exact
    with mpmath.workdps(25):
        expected = np.array([imq_mean_by_quadrature(x, dim, scales) for x in q.tolist()]).T
    agree(with_derivatives(lambda x: laplace.imq_mean(x, dim, scales), q), list(expected), dtype)


@pytest.mark.parametrize("dim", [1, 2, 5, 20, 100])
def test_imq_mean_against_the_oracle(dim):
    q = torch.logspace(-3, 6, 40, dtype=F64)
    expected = [oracle.kernel_to_normal(x, dim, "imq", oracle.SCALES) for x in q.tolist()]
    np.testing.assert_allclose(laplace.imq_mean(q, dim, oracle.SCALES).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("dim", DIMS)
def test_float32_agrees_with_float64_everywhere(dim):
    """On a dense grid, where the tests above have a few points."""
    x = torch.cat([torch.linspace(0, 50, 1001), torch.logspace(-6, 12, 1001)])
    for function in (lambda s: laplace.phi(s, dim), lambda q: laplace.imq_mean(q, dim, oracle.SCALES)):
        agree(with_derivatives(function, x), [value.numpy() for value in with_derivatives(function, x.double())], F32)


# The closed forms from what they stand for


@pytest.mark.parametrize("dim", [1, 2, 3, 8, 20])
@pytest.mark.parametrize("kernel", ["imq", "gaussian"])
@pytest.mark.parametrize("length", [0.0, 0.5, 4.0])
def test_mmd_to_normal_from_the_law_of_the_distances(dim, kernel, length):
    """|z-v|^2 is non-central chi-square, |v-v'|^2 twice a chi-square: integrate the kernel against their densities."""
    scales, z = (0.2, 3.0), torch.zeros(1, dim, dtype=F64)
    z[0, 0] = length

    def of_squared_distance(r: float) -> float:
        return sum(2 * dim * s / (2 * dim * s + r) if kernel == "imq" else np.exp(-r / (2 * dim * s)) for s in scales)

    def mean(density) -> float:
        def integrand(x: float) -> float:  # over x = sqrt(r), as the density of r is unbounded at 0 for D = 1
            return of_squared_distance(x * x) * density(x * x) * 2 * x

        return quad(integrand, 1e-12, 40, epsabs=1e-11, limit=500)[0]

    between_normals = mean(lambda r: chi2.pdf(r / 2, dim) / 2)
    to_normal = mean(lambda r: ncx2.pdf(r, dim, length**2) if length else chi2.pdf(r, dim))
    value = mk.mmd(z, kernel=kernel, scales=scales, estimator="biased").item()
    assert value == pytest.approx(len(scales) + between_normals - 2 * to_normal, abs=1e-8)


@pytest.mark.parametrize("kernel", ["imq", "gaussian"])
@pytest.mark.parametrize("dim", [1, 8, 20])
def test_mmd_to_normal_is_the_mean_over_prior_samples(randn, kernel, dim):
    z = 0.7 * randn(6, dim) + 0.3
    sampled = torch.stack([mk.mmd(z, None, randn(50, dim), kernel=kernel) for _ in range(150)])
    within_five_sigma(mk.mmd(z, kernel=kernel).item(), sampled)


@pytest.mark.parametrize("prior", ["normal", "sample"])
@pytest.mark.parametrize("dim", [1, 2, 3, 8, 20])
def test_cramer_wold_from_its_definition(randn, dim, prior):
    """The L2 distance of the smoothed projections, averaged over random directions; for D = 1 there is but one."""
    gamma, z = 0.35, 0.7 * randn(5, dim) + 0.3
    against = randn(4, dim) if prior == "sample" else prior
    directions = torch.nn.functional.normalize(randn(dim, 1 if dim == 1 else 2000), dim=0)
    grid, step = np.linspace(-12, 12, 481, retstep=True)

    def density(x: np.ndarray, variance: float) -> np.ndarray:
        return np.exp(-((grid - x[:, None]) ** 2) / (2 * variance)).mean(axis=0) / sqrt(2 * pi * variance)

    def projected(theta: Tensor) -> float:
        of_prior = density(np.zeros(1), 1 + gamma) if prior == "normal" else density((against @ theta).numpy(), gamma)
        return ((density((z @ theta).numpy(), gamma) - of_prior) ** 2).sum() * step

    value = mk.cramer_wold(z, None, against, gamma=gamma).item()
    samples = torch.tensor([projected(theta) for theta in directions.T], dtype=F64)
    if dim == 1:
        assert value == pytest.approx(samples.item(), abs=1e-13)
    else:
        within_five_sigma(value, samples)


def test_cramer_wold_to_normal_is_the_mean_over_prior_samples(randn):
    """Less the bias of the sample's own diagonal, (phi(0) - E phi) / (2 m sqrt(pi gamma))."""
    dim, m, gamma = 3, 50, 0.3
    z = 0.7 * randn(6, dim) + 0.3
    bias = (1 / sqrt(gamma) - 1 / sqrt(1 + gamma)) / (2 * m * sqrt(pi))
    sampled = torch.stack([mk.cramer_wold(z, None, randn(m, dim), gamma=gamma) for _ in range(200)])
    within_five_sigma(mk.cramer_wold(z, gamma=gamma).item(), sampled - bias)


def test_sliced_wasserstein_to_normal_is_the_limit_of_a_large_prior(randn):
    """The quantiles of N(0, 1) at 200,000 midpoints stand for the prior: off by their missing tails, about 1e-5."""
    z, directions = 0.7 * randn(6, 1) + 0.3, torch.ones(1, 1, dtype=F64)
    m = 200_000
    quantiles = torch.special.ndtri((torch.arange(m, dtype=F64) + 0.5) / m)[:, None]
    limit = mk.sliced_wasserstein(z, None, quantiles, directions=directions).item()
    assert mk.sliced_wasserstein(z, directions=directions).item() == pytest.approx(limit, abs=3e-5)


def within_five_sigma(value: float, samples: Tensor) -> None:
    error = samples.std().item() / sqrt(len(samples))
    assert abs(samples.mean().item() - value) < 5 * error
    assert error < 0.05 * abs(value) + 5e-3  # or the test could not fail
