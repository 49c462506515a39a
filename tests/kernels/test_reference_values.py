"""The values of the reference backend are those of the oracle, for every option, size and dtype."""

from __future__ import annotations

from math import exp, pi, sqrt

import numpy as np
import oracle
import pytest
import torch
from torch import Tensor

import mow_kernels as mk

pytestmark = pytest.mark.usefixtures("backend")

F32, F64 = torch.float32, torch.float64
# The distances are differences of terms up to 2 x 7 (MMD) or 9 (Cramer-Wold), which carry the relative error: 1e-13 is
# 1e-14 of such a term, 5e-6 a few last places in float32.
TOLERANCE = {F64: {"rel": 1e-12, "abs": 1e-13}, F32: {"rel": 1e-5, "abs": 5e-6}}

SIZES = [  # n, k, m, D
    (1, 1, 1, 1),
    (1, 1, 5, 3),
    (2, 1, 2, 2),
    (2, 2, 5, 1),
    (5, 1, 3, 8),
    (5, 3, 5, 3),
    (5, 5, 2, 20),
    (64, 1, 64, 8),
    (64, 32, 50, 64),
    (64, 64, 70, 20),
]
sizes = pytest.mark.parametrize(("n", "k", "m", "dim"), SIZES)
dtypes = pytest.mark.parametrize("dtype", [F64, F32], ids=["float64", "float32"])
priors = pytest.mark.parametrize("prior", ["normal", "sample"])

DIRECTIONS = torch.tensor([[0.6, 1.0], [0.8, 0.0], [0.0, 0.0]], dtype=F64)
FUNCTIONS = [  # for D = 3
    pytest.param(mk.mmd, {"estimator": "biased"}, id="mmd-imq-biased"),
    pytest.param(mk.mmd, {"kernel": "gaussian"}, id="mmd-gaussian-unbiased"),
    pytest.param(mk.cramer_wold, {}, id="cramer_wold-exact"),
    pytest.param(mk.cramer_wold, {"phi": "asymptotic", "gamma": 0.3}, id="cramer_wold-asymptotic"),
    pytest.param(mk.sliced_wasserstein, {"directions": DIRECTIONS}, id="sliced_wasserstein"),
]


def array(x: Tensor | str) -> np.ndarray | None:
    """As the oracle takes it."""
    return None if isinstance(x, str) else x.double().numpy()


def window_and_prior(randn, n: int, m: int, dim: int, prior: str, dtype: torch.dtype) -> tuple[Tensor, Tensor | str]:
    window = 1.3 * randn(n, dim) + 0.4
    return window.to(dtype), randn(m, dim, dtype=dtype) if prior == "sample" else prior


def agree(value: Tensor, expected: float, dtype: torch.dtype) -> None:
    assert value.shape == () and value.dtype == dtype
    assert value.item() == pytest.approx(expected, **TOLERANCE[dtype])


# Against the oracle


@sizes
@dtypes
@priors
@pytest.mark.parametrize("kernel", ["imq", "gaussian"])
@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_mmd(randn, n, k, m, dim, dtype, prior, kernel, estimator):
    if estimator == "unbiased" and (n == 1 or (m == 1 and prior == "sample")):
        pytest.skip("undefined, see test_functions.py")
    window, against = window_and_prior(randn, n, m, dim, prior, dtype)
    value = mk.mmd(window[n - k :], window[: n - k], against, kernel=kernel, estimator=estimator)
    agree(value, oracle.mmd(array(window), array(against), kernel=kernel, estimator=estimator), dtype)


@pytest.mark.parametrize("scales", [(1.0,), (0.03, 40.0), [1, 2]], ids=str)
@pytest.mark.parametrize("kernel", ["imq", "gaussian"])
@priors
def test_mmd_with_other_scales(randn, scales, kernel, prior):
    window, against = window_and_prior(randn, 7, 5, 4, prior, F64)
    value = mk.mmd(window[5:], window[:5], against, kernel=kernel, scales=scales)
    agree(value, oracle.mmd(array(window), array(against), kernel=kernel, scales=tuple(scales)), F64)


@sizes
@dtypes
@priors
@pytest.mark.parametrize("phi", ["exact", "asymptotic"])
@pytest.mark.parametrize("gamma", [None, 0.7, 0.003])
def test_cramer_wold(randn, n, k, m, dim, dtype, prior, phi, gamma):
    if phi == "asymptotic" and dim == 1:
        pytest.skip("undefined, see test_functions.py")
    window, against = window_and_prior(randn, n, m, dim, prior, dtype)
    value = mk.cramer_wold(window[n - k :], window[: n - k], against, gamma=gamma, phi=phi)
    agree(value, oracle.cramer_wold(array(window), array(against), gamma=gamma, phi=phi), dtype)


@sizes
@dtypes
@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_sliced_wasserstein(randn, n, k, m, dim, dtype, p):
    window, sample = window_and_prior(randn, n, m, dim, "sample", dtype)
    directions = randn(dim, 6, dtype=dtype) / sqrt(dim)  # not of length 1: used as they are
    value = mk.sliced_wasserstein(window[n - k :], window[: n - k], sample, directions=directions, p=p)
    agree(value, oracle.sliced_wasserstein(array(window), array(sample), array(directions), p), dtype)


@sizes
@dtypes
def test_sliced_wasserstein_to_normal(randn, n, k, m, dim, dtype):
    window, _ = window_and_prior(randn, n, m, dim, "normal", dtype)
    directions = torch.nn.functional.normalize(randn(dim, 6), dim=0).to(dtype)
    value = mk.sliced_wasserstein(window[n - k :], window[: n - k], directions=directions)
    agree(value, oracle.sliced_wasserstein(array(window), None, array(directions)), dtype)


@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_sliced_wasserstein_to_normal_is_the_integral_over_quantiles(randn, n):
    x = 0.8 * randn(n, 1) - 0.5
    value = mk.sliced_wasserstein(x, directions=torch.ones(1, 1, dtype=F64))
    agree(value, oracle.wasserstein_to_normal_by_quadrature(array(x)[:, 0]), F64)


def test_sliced_wasserstein_to_normal_with_many_rows(randn):
    x = randn(20_000, 1)
    value = mk.sliced_wasserstein(x, directions=torch.ones(1, 1, dtype=F64))
    expected = oracle.wasserstein_to_normal(array(x)[:, 0])  # about 1e-4, of terms near 1
    assert value.item() == pytest.approx(expected, rel=1e-9)


def test_asymptotic_cramer_wold_is_the_public_codes_figure_over_two_root_pi(randn):
    n, dim = 12, 6
    z = randn(n, dim)
    gamma, factor = (4 / (3 * n)) ** 0.4, 1 / (2 * dim - 3)
    between = sum((gamma + factor * float((a - b) @ (a - b))) ** -0.5 for a in z for b in z) / n**2
    to_prior = 2 * sum((gamma + 0.5 + factor * float(a @ a)) ** -0.5 for a in z) / n
    figure = (1 + gamma) ** -0.5 + between - to_prior
    agree(2 * sqrt(pi) * mk.cramer_wold(z, phi="asymptotic"), figure, F64)


# By hand


def test_one_point_and_one_point():
    x, y = torch.tensor([[0.0, 0.0]], dtype=F64), torch.tensor([[3.0, 4.0]], dtype=F64)  # r = 25, D = 2
    agree(mk.mmd(x, prior=y, scales=[1.0], estimator="biased"), 2 - 2 * 4 / 29, F64)
    agree(mk.mmd(x, prior=y, scales=[1.0], kernel="gaussian", estimator="biased"), 2 - 2 * exp(-25 / 4), F64)
    agree(mk.cramer_wold(x, prior=y, gamma=1.0, phi="asymptotic"), (1 - 1 / sqrt(26)) / sqrt(pi), F64)
    agree(mk.sliced_wasserstein(x, prior=y, directions=torch.eye(2, dtype=F64), p=3), (27 + 64) / 2, F64)


def test_unequal_sizes_couple_by_exact_quantiles():
    """Of [0, 1] x takes halves and y thirds; the middle third of y is shared by both rows of x."""
    x, y = torch.tensor([[0.0], [6.0]], dtype=F64), torch.tensor([[9.0], [0.0], [3.0]], dtype=F64)
    directions = torch.ones(1, 1, dtype=F64)
    agree(mk.sliced_wasserstein(x, prior=y, directions=directions, p=1), (0 * 2 + 3 * 1 + 3 * 1 + 3 * 2) / 6, F64)
    agree(mk.sliced_wasserstein(x, prior=y, directions=directions, p=2), (0 * 2 + 9 * 1 + 9 * 1 + 9 * 2) / 6, F64)


def test_gamma_counts_the_rows_of_the_window_alone(randn):
    current, history, prior = randn(2, 3), randn(4, 3), randn(9, 3)
    for sample in ("normal", prior):
        by_rule = mk.cramer_wold(current, history, sample, gamma=(4 / (3 * 6)) ** 0.4)
        assert mk.cramer_wold(current, history, sample).item() == pytest.approx(by_rule.item(), rel=1e-14)


# What must not matter


@priors
@pytest.mark.parametrize("numbers", [1, 40, 100])
@pytest.mark.parametrize(("function", "options"), FUNCTIONS)
def test_the_pieces_of_the_pair_sums_do_not_matter(randn, monkeypatch, function, options, prior, numbers):
    """Samples too large for one piece are summed in several: of 1 row, of a few with a short last one."""
    current, history = randn(5, 3), randn(11, 3)
    against = randn(8, 3) if prior == "sample" else prior

    def value_and_gradient() -> tuple[Tensor, Tensor]:
        z = current.clone().requires_grad_()
        value = function(z, history, against, **options)
        return value.detach(), torch.autograd.grad(value, z)[0]

    whole = value_and_gradient()
    monkeypatch.setattr("mow_kernels.reference.sums._CHUNK", numbers)
    torch.testing.assert_close(value_and_gradient(), whole, rtol=1e-12, atol=1e-14)


@priors
@pytest.mark.parametrize(("function", "options"), FUNCTIONS)
def test_the_split_and_the_order_of_the_window_do_not_matter(randn, function, options, prior):
    window, against = window_and_prior(randn, 11, 6, 3, prior, F64)
    expected = pytest.approx(function(window, None, against, **options).item(), rel=1e-13)
    for k in (1, 4, 11):
        assert function(window[11 - k :], window[: 11 - k], against, **options).item() == expected
    shuffled = window[torch.randperm(11, generator=torch.Generator().manual_seed(1))]
    assert function(shuffled[4:], shuffled[:4], against, **options).item() == expected


@pytest.mark.parametrize(("function", "options"), FUNCTIONS)
def test_the_order_of_the_prior_does_not_matter(randn, function, options):
    current, prior = randn(4, 3), randn(6, 3)
    expected = pytest.approx(function(current, None, prior, **options).item(), rel=1e-13)
    assert function(current, None, prior.flip(0), **options).item() == expected


@pytest.mark.parametrize(("function", "options"), FUNCTIONS)
def test_the_two_samples_are_exchangeable(randn, function, options):
    if function is mk.cramer_wold:
        options = options | {"gamma": 0.3}  # None would count the rows of either
    x, y = randn(4, 3), randn(7, 3)
    assert function(x, None, y, **options).item() == pytest.approx(function(y, None, x, **options).item(), rel=1e-13)


@pytest.mark.parametrize(("function", "options"), FUNCTIONS)
def test_a_shift_of_both_samples_does_not_matter(randn, function, options):
    x, y, shift = randn(4, 3), randn(7, 3), 100 * randn(3)
    shifted = function(x + shift, None, y + shift, **options).item()
    assert shifted == pytest.approx(function(x, None, y, **options).item(), rel=1e-10)


@priors
@pytest.mark.parametrize(("function", "options"), FUNCTIONS)
def test_strided_views(randn, function, options, prior):
    views = [randn(3, 4).T, randn(10, 6)[::2, 1::2]] + [randn(1, 3).expand(4, 3)] * (prior == "sample")
    assert not any(view.is_contiguous() for view in views)
    plain = function(*[view.contiguous() for view in views], **options)
    assert function(*views, **options).item() == pytest.approx(plain.item(), rel=1e-13)


@priors
@pytest.mark.parametrize(("function", "options"), FUNCTIONS)
def test_inputs_are_left_alone(randn, function, options, prior):
    tensors = [randn(3, 3), randn(4, 3)] + [randn(5, 3)] * (prior == "sample")
    before = [x.clone() for x in tensors]
    function(*tensors, **options)
    assert all(torch.equal(x, y) for x, y in zip(tensors, before, strict=True))


def test_no_history_is_an_empty_history(randn):
    current, empty = randn(4, 3), torch.empty(0, 3, dtype=F64)
    assert torch.equal(mk.mmd(current, empty), mk.mmd(current))
    assert torch.equal(mk.cramer_wold(current, empty), mk.cramer_wold(current))


# Special samples


def test_identical_samples_are_at_distance_zero(randn):
    x = randn(9, 3)
    for kernel in ("imq", "gaussian"):
        assert mk.mmd(x[4:], x[:4], x, kernel=kernel, estimator="biased").item() == pytest.approx(0, abs=2e-14)
    for phi in ("exact", "asymptotic"):
        assert mk.cramer_wold(x[4:], x[:4], x, phi=phi).item() == pytest.approx(0, abs=5e-15)
    for p in (1, 1.5, 2, 3):
        assert mk.sliced_wasserstein(x[4:], x[:4], x, directions=randn(3, 5), p=p).item() == 0
    far = x.float() + 1e6  # an expansion of |x - y|^2 into products would be off by 1e-3 and more
    assert mk.mmd(far[4:], far[:4], far, estimator="biased").item() == pytest.approx(0, abs=5e-6)
    assert mk.cramer_wold(far[4:], far[:4], far).item() == pytest.approx(0, abs=1e-6)
    doubled = torch.cat([x, x])  # the same distribution from another number of rows
    assert mk.sliced_wasserstein(x, None, doubled, directions=randn(3, 5)).item() == 0


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_sliced_wasserstein_of_a_shift(randn, p):
    """Every projection is shifted by theta . shift, and W_p of a shift is its length."""
    x, shift, directions = randn(8, 4), randn(4), randn(4, 5)
    expected = ((shift @ directions).abs() ** p).mean().item()
    agree(mk.sliced_wasserstein(x[5:] + shift, x[:5] + shift, x, directions=directions, p=p), expected, F64)


def test_a_sample_from_the_prior_is_near_and_a_shifted_one_far(randn):
    x = randn(500, 4)
    directions = torch.nn.functional.normalize(randn(4, 20), dim=0)
    for distance in (mk.mmd, mk.cramer_wold, lambda z: mk.sliced_wasserstein(z, directions=directions)):
        assert abs(distance(x).item()) < 0.1 * distance(x + 1).item()


@priors
@pytest.mark.parametrize(("function", "options"), FUNCTIONS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
def test_half_inputs_accumulate_in_float32(randn, function, options, prior, dtype):
    """A result in half precision, or sums in it, would be off by 1e-3 or more."""
    half = [x.to(dtype) for x in [1.5 * randn(16, 3), 1.5 * randn(20, 3)] + [randn(30, 3)] * (prior == "sample")]
    wide, wide_options = [x.double() for x in half], options
    if "directions" in options:
        options = {"directions": DIRECTIONS.to(dtype)}
        wide_options = {"directions": DIRECTIONS.to(dtype).double()}
    agree(function(*half, **options), function(*wide, **wide_options).item(), F32)


@pytest.mark.parametrize("dtype", [F32, F64], ids=["float32", "float64"])
@priors
def test_far_rows_stay_finite(randn, dtype, prior):
    window, against = window_and_prior(randn, 4, 4, 5, prior, dtype)
    window[3] = 1e6
    for function, exact in ((mk.mmd, oracle.mmd), (mk.cramer_wold, oracle.cramer_wold)):
        agree(function(window[3:], window[:3], against), exact(array(window), array(against)), dtype)
