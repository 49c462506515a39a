"""The further kernels of `mk.mmd` by their formulas in NumPy and SciPy, and their expectations under N(0, I)."""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor

import mow
import mow_kernels as mk
from mow_kernels.registry import TABLE

Randn = Callable[..., Tensor]

KERNELS: list[tuple[dict[str, Any], Callable[[np.ndarray, np.ndarray], np.ndarray]]] = [
    ({"kernel": "energy"}, lambda x, y: -cdist(x, y)),
    ({"kernel": "laplacian"}, lambda x, y: np.exp(-cdist(x, y))),
    ({"kernel": "laplacian", "scales": (0.5, 7)}, lambda x, y: np.exp(-2 * cdist(x, y)) + np.exp(-cdist(x, y) / 7)),
    (
        {"kernel": "rational_quadratic"},
        lambda x, y: sum((1 + cdist(x, y) ** 2 / (2 * a)) ** -a for a in (0.2, 0.5, 1, 2, 5)),
    ),
    (
        {"kernel": "rational_quadratic", "alphas": [0.7, 3.25], "linear": 0.1},
        lambda x, y: sum((1 + cdist(x, y) ** 2 / (2 * a)) ** -a for a in (0.7, 3.25)) + 0.1 * x @ y.T,
    ),
    ({"kernel": "polynomial"}, lambda x, y: (x @ y.T / x.shape[1] + 1) ** 3),
    ({"kernel": "polynomial", "degree": 4, "coef0": 0.5, "gamma": 0.3}, lambda x, y: (0.3 * x @ y.T + 0.5) ** 4),
    ({"kernel": "polynomial", "degree": 1, "coef0": 0}, lambda x, y: x @ y.T / x.shape[1]),
]
NORMAL = [options for options, _ in KERNELS if options["kernel"] != "laplacian"]
names = pytest.mark.parametrize("options", NORMAL, ids=str)


@pytest.fixture(params=["reference", "cpp"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Any:
    if isinstance(reason := TABLE["mmd"][request.param], str):
        pytest.skip(reason)
    with mk.use_backend(request.param):
        yield request.param


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("n, m, dim", [(5, 7, 3), (2, 2, 1), (70, 3, 20), (40, 90, 40)])
@pytest.mark.parametrize("options, kernel", KERNELS, ids=lambda each: str(each) if isinstance(each, dict) else "")
def test_two_samples(options: dict, kernel: Callable, n: int, m: int, dim: int, estimator: str, randn: Randn) -> None:
    z, v = 1.5 * randn(n, dim) + 0.3, randn(m, dim)
    z[-1] = z[0]

    def within(x: np.ndarray) -> float:
        values = kernel(x, x)
        return values.mean() if estimator == "biased" else (values.sum() - values.trace()) / (len(x) * (len(x) - 1))

    x, y = z.numpy(), v.numpy()
    expected = within(x) + within(y) - 2 * kernel(x, y).mean()
    value = mk.mmd(z[1:], z[:1], v, estimator=estimator, **options)
    assert float(value) == pytest.approx(expected, rel=1e-11, abs=1e-13)
    assert float(mk.mmd(z[1:].float(), z[:1].float(), v.float(), estimator=estimator, **options)) == pytest.approx(
        expected, rel=2e-5, abs=5e-6 * abs(kernel(x, x)).mean()
    )


def expectation(options: dict, dim: int, squared_norm: float, variance: float) -> mpmath.mpf:
    """E k(z, v), v ~ N(0, variance I), from the law of what the kernel depends on."""
    return _expectation(repr(options), dim, squared_norm, variance)


@functools.cache  # the same for every backend and estimator
def _expectation(shown: str, dim: int, squared_norm: float, variance: float) -> mpmath.mpf:
    options = ast.literal_eval(shown)
    if options["kernel"] == "polynomial":
        degree, c = options.get("degree", 3), options.get("coef0", 1)
        gamma, sigma = options.get("gamma", 1 / dim), mpmath.sqrt(squared_norm * variance)
        points = [-30 * sigma, -5 * sigma, 0, 5 * sigma, 30 * sigma]
        if sigma == 0:
            return mpmath.mpf(c) ** degree
        return mpmath.quad(lambda t: (gamma * t + c) ** degree * mpmath.npdf(t, 0, sigma), points)

    shift = squared_norm / variance
    half = mpmath.mpf(dim) / 2
    if options["kernel"] == "energy":  # Kummer's function
        mean = mpmath.sqrt(2 * variance) * mpmath.gamma(half + 0.5) / mpmath.gamma(half)
        return -mean * mpmath.hyp1f1(-0.5, half, -shift / 2)

    def power(alpha: float) -> mpmath.mpf:  # a mixture of Gaussian kernels exp(-t r / (2 alpha)), t ~ Gamma(alpha)
        def integrand(y: mpmath.mpf) -> mpmath.mpf:
            t = mpmath.exp(y)
            rate = variance * t / (2 * alpha)
            mean = (1 + 2 * rate) ** -half * mpmath.exp(-rate * shift / (1 + 2 * rate))
            return t**alpha * mpmath.exp(-t) / mpmath.gamma(alpha) * mean

        return mpmath.quad(integrand, [-50 / alpha, -30, -15, -8, -4, -2, 0, 1, 2, 3, 4, 6])

    linear = -options.get("linear", 0) * (squared_norm + variance * dim) / 2
    return sum(power(alpha) for alpha in options.get("alphas", (0.2, 0.5, 1, 2, 5))) + linear


def expectation_between(options: dict, dim: int) -> mpmath.mpf:
    """E k(v, v') over independent v, v' ~ N(0, I)."""
    if options["kernel"] != "polynomial":
        return expectation(options, dim, 0.0, 2.0)
    degree, c, gamma = options.get("degree", 3), options.get("coef0", 1), options.get("gamma", 1 / dim)
    moments = {0: 1, 2: dim, 4: 3 * dim * (dim + 2)}  # E (v.v')^j
    return sum(mpmath.binomial(degree, j) * c ** (degree - j) * gamma**j * moments.get(j, 0) for j in range(degree + 1))


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("scale", [0.0, 1.0, *(pytest.param(scale, marks=pytest.mark.long) for scale in (1e-3, 30.0))])
@pytest.mark.parametrize("dim", [1, 2, 20])
@names
def test_to_the_normal_prior(options: dict, dim: int, scale: float, estimator: str, randn: Randn) -> None:
    z = scale * randn(2, dim)
    kernel = next(kernel for each, kernel in KERNELS if each is options)
    values = kernel(z.numpy(), z.numpy())
    within = values.mean() if estimator == "biased" else values[0, 1]
    if "linear" in options:  # as the radial function that makes the same distance
        r = cdist(z.numpy(), z.numpy()) ** 2
        values = values - options["linear"] * (z.numpy() @ z.numpy().T + r / 2)
        within = values.mean() if estimator == "biased" else values[0, 1]
    to_prior = [expectation(options, dim, float(row @ row), 1.0) for row in z]
    expected = mpmath.mpf(within) + expectation_between(options, dim) - sum(to_prior)
    terms = float(abs(to_prior[0]) + abs(to_prior[1])) + abs(values).max()
    value = mk.mmd(z, estimator=estimator, **options)
    assert float(value) == pytest.approx(float(expected), rel=1e-10, abs=2e-12 * terms)


@pytest.mark.parametrize("prior", ["normal", "sample"])
@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("options", [options for options, _ in KERNELS], ids=str)
def test_gradient(options: dict, estimator: str, prior: str, randn: Randn) -> None:
    if prior == "normal" and options not in NORMAL:
        pytest.skip("no closed form")
    z, history, sample = randn(3, 4).requires_grad_(), randn(4, 4), randn(5, 4)

    def distance(current: Tensor) -> Tensor:
        against = "normal" if prior == "normal" else sample
        return mk.mmd(current, history, against, estimator=estimator, **options)

    assert torch.autograd.gradcheck(distance, z) and torch.autograd.gradgradcheck(distance, z)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dim", [3, 40])
@pytest.mark.parametrize("options", [options for options, _ in KERNELS], ids=str)
def test_no_gradient_between_rows_that_coincide(options: dict, dim: int, dtype: torch.dtype, randn: Randn) -> None:
    z = randn(1, dim).to(dtype).expand(20, -1).clone().requires_grad_()
    value = mk.mmd(z, z.detach(), z.detach(), **options)
    (g_z,) = torch.autograd.grad(value, z)
    if options["kernel"] == "polynomial":  # the two samples pull the same way, but are not of one size
        assert torch.isfinite(g_z).all()
    else:
        assert torch.equal(g_z, torch.zeros_like(g_z))


@names
def test_one_row_of_a_growing_window(options: dict, randn: Randn) -> None:
    """`mow.MMD` counts the empty mean over the pairs within it as 0."""
    op, z, sample = mk.distance_row(mk.mmd), randn(1, 4), randn(6, 4)
    assert op.of_one is not None
    for prior in ("normal", sample):
        row = z.clone().requires_grad_()
        value = op.of_one(row, prior, op.defaults | options)
        (g_row,) = torch.autograd.grad(value, row)
        # The unbiased distance of two rows without what they have between them.
        twice = torch.cat([z, z]).requires_grad_()
        both = mk.mmd(twice, None, prior, **options) - _between(twice, options)
        (g_twice,) = torch.autograd.grad(both, twice)
        torch.testing.assert_close(value, both)
        torch.testing.assert_close(g_row, g_twice.sum(0, keepdim=True))


def _between(z: Tensor, options: dict) -> Tensor:
    if options["kernel"] == "polynomial":
        gamma = options.get("gamma", 1 / z.shape[1])
        return (gamma * z[0] @ z[1] + options.get("coef0", 1)) ** options.get("degree", 3)
    at_zero = 0 if options["kernel"] == "energy" else len(options.get("alphas", range(5)))
    return z.sum() * 0 + at_zero


@pytest.mark.parametrize(
    "options, match",
    [
        ({"kernel": "laplacian"}, "kernel is 'laplacian', .*pass a sample as prior"),
        ({"kernel": "laplacian", "scales": ()}, "scales is empty"),
        ({"kernel": "energy", "scales": (1.0,)}, r"scales is \(1.0,\) and kernel 'energy', which has none"),
        ({"kernel": "rational_quadratic", "scales": (1.0,)}, "which has none; it must be None"),
        ({"kernel": "rational_quadratic", "alphas": (1.0, 0)}, r"alphas\[1\] is 0; it must be finite and > 0"),
        ({"kernel": "rational_quadratic", "linear": -1}, "linear is -1; it must be finite and >= 0"),
        ({"kernel": "rational_quadratic", "degree": 2}, "degree is 2 and kernel 'rational_quadratic'"),
        ({"kernel": "polynomial", "degree": 0}, "degree is 0; it must be an integer >= 1"),
        ({"kernel": "polynomial", "degree": 2.5}, "degree is 2.5; it must be an integer >= 1"),
        ({"kernel": "polynomial", "gamma": 0.0}, "gamma is 0.0; it must be finite and > 0"),
        ({"kernel": "polynomial", "coef0": float("nan")}, "coef0 is nan; it must be finite"),
        ({"kernel": "polynomial", "linear": 1.0}, "linear is 1.0 and kernel 'polynomial', which has none"),
        ({"alphas": (1.0,)}, r"alphas is \(1.0,\) and kernel 'imq', which has none"),
        ({"kernel": "gaussian", "coef0": 1}, "coef0 is 1 and kernel 'gaussian', which has none"),
    ],
    ids=str,
)
def test_errors(options: dict, match: str, randn: Randn) -> None:
    with pytest.raises((TypeError, ValueError), match=match):
        mk.mmd(randn(4, 2), **options)


def test_default_scales() -> None:
    assert mk.default_scales("laplacian", 4.0) == (2.0,)
    assert mk.default_scales("rational_quadratic", 4.0) == mk.default_scales("polynomial") == ()


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@names
def test_what_a_value_to_the_normal_prior_is_made_of(options: dict, estimator: str, randn: Randn) -> None:
    """As a window that is spread over ranks takes it."""
    z, history = randn(3, 4), randn(5, 4)
    parts = mk.to_normal(mk.mmd, z, 8, estimator=estimator, **options)
    among = parts.within(z) + parts.within(history) + 2 * parts.between(z, history)
    torch.testing.assert_close(parts.matrix(z, history).sum(), parts.between(z, history))
    total = parts.pair * among + parts.single * (parts.own(z).sum() + parts.own(history).sum()) + parts.constant
    torch.testing.assert_close(total, mk.mmd(z, history, estimator=estimator, **options))


@pytest.mark.parametrize("prior", ["normal", "window"])
@pytest.mark.parametrize("options", [options for options, _ in KERNELS], ids=str)
def test_over_a_moving_window(options: dict, prior: str, backend: str) -> None:
    """What `mow.MMD` measures, from running sums where there are kernels for them."""
    if prior == "normal" and options not in NORMAL:
        pytest.skip("no closed form")
    n, dim = 150, 3
    measure = mow.MMD(mow.PriorWindow(n, dim) if prior == "window" else prior, estimator="biased", **options)
    window, rows = mow.MovingWindow(n, dim), torch.randn(n, dim)
    window.fill(rows)
    for _ in range(4):
        z = torch.randn(2, dim, requires_grad=True)
        value = measure(z, window)
        (g_z,) = torch.autograd.grad(value, z)
        sample = measure.prior.newest(n) if prior == "window" else "normal"
        live = z.detach().requires_grad_()
        expected = mk.mmd(live, rows[2:], sample, estimator="biased", **options)
        torch.testing.assert_close(value, expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(g_z, torch.autograd.grad(expected, live)[0], rtol=1e-4, atol=1e-6)
        window.push(z)
        rows = torch.cat([rows[2:], z.detach()])
    assert ("\n  from running sums" in measure.explain(z, window)) is (backend == "cpp")
