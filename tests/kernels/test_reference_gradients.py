"""The gradients of the reference backend: first and second order, for `current` alone, also where points coincide."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import mow_kernels as mk

pytestmark = pytest.mark.usefixtures("backend")

F64 = torch.float64
EXACT = {"rtol": 1e-5, "atol": 1e-7}

MMD = [
    pytest.param(mk.mmd, {"kernel": kernel, "estimator": estimator}, id=f"mmd-{kernel}-{estimator}")
    for kernel in ("imq", "gaussian")
    for estimator in ("unbiased", "biased")
]
CRAMER_WOLD = [
    pytest.param(mk.cramer_wold, {"phi": "exact"}, id="cramer_wold-exact"),
    pytest.param(mk.cramer_wold, {"phi": "exact", "gamma": 0.3}, id="cramer_wold-exact-gamma"),
    pytest.param(mk.cramer_wold, {"phi": "asymptotic"}, id="cramer_wold-asymptotic"),
]
SLICED = [pytest.param(mk.sliced_wasserstein, {"p": p}, id=f"sliced_wasserstein-{p}") for p in (1, 1.5, 2, 3)]
SMOOTH = MMD + CRAMER_WOLD
every_distance = pytest.mark.parametrize(("function", "options"), SMOOTH + SLICED)
priors = pytest.mark.parametrize("prior", ["normal", "sample"])


def bound(function: Callable[..., Tensor], options: dict, dim: int, prior: str) -> Callable[..., Tensor]:
    """The distance with its options; skips what is not defined."""
    if options.get("phi") == "asymptotic" and dim == 1:
        pytest.skip("needs D >= 2")
    if function is mk.sliced_wasserstein:
        if prior == "normal" and options["p"] != 2:
            pytest.skip("the closed form has p = 2")
        generator = torch.Generator().manual_seed(3)
        directions = torch.nn.functional.normalize(torch.randn(dim, 5, generator=generator, dtype=F64), dim=0)
        options = options | {"directions": directions}
    return partial(function, **options)


def gradient(distance: Callable[..., Tensor], current: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
    current = current.detach().requires_grad_()
    (g_current,) = torch.autograd.grad(distance(current, history, prior), current)
    return g_current


# Against finite differences


@pytest.mark.parametrize(
    ("function", "options", "dim"),
    [
        pytest.param(
            *c.values, dim, id=f"{c.id}-{dim}", marks=[pytest.mark.long] * (dim > 3 and "gamma" in c.values[1])
        )
        for c in CRAMER_WOLD
        for dim in (1, 2, 3, 8, 20)
    ]
    + [pytest.param(*c.values, dim, id=f"{c.id}-{dim}") for c in MMD for dim in (1, 3, 8)]
    + [pytest.param(*c.values, dim, id=f"{c.id}-{dim}") for c in SLICED for dim in (1, 3)],
)
@priors
def test_first_and_second_derivatives(randn, function, options, dim, prior):
    distance = bound(function, options, dim, prior)
    current, history = (1.2 * randn(2, dim) + 0.2).requires_grad_(), randn(3, dim)
    against = randn(4, dim) if prior == "sample" else prior

    def of_current(z: Tensor) -> Tensor:
        return distance(z, history, against)

    assert gradcheck(of_current, current, **EXACT)
    if options.get("p") != 1:  # there the first derivative is a constant
        assert gradgradcheck(of_current, current, **EXACT)


@pytest.mark.parametrize("dim", [1, 3, pytest.param(8, marks=pytest.mark.long)])
@priors
@pytest.mark.parametrize(("function", "options"), SMOOTH)
def test_derivatives_where_points_coincide(randn, function, options, dim, prior):
    """MMD and Cramer-Wold are smooth there: finite differences agree, to second order."""
    distance = bound(function, options, dim, prior)
    row = randn(1, dim)
    current = torch.cat([row, row, torch.zeros(1, dim, dtype=F64)]).requires_grad_()
    history = torch.cat([row, randn(1, dim)])
    against = torch.cat([row, randn(1, dim)]) if prior == "sample" else prior

    def of_current(z: Tensor) -> Tensor:
        return distance(z, history, against)

    assert gradcheck(of_current, current, **EXACT)
    assert gradgradcheck(of_current, current, **EXACT)


# The rows of current


@every_distance
@priors
@pytest.mark.parametrize(("n", "k", "m", "dim"), [(7, 1, 7, 3), (7, 3, 4, 1), (7, 6, 9, 2), (64, 5, 64, 20)])
def test_the_gradient_is_the_newest_rows_of_the_full_gradient(randn, function, options, prior, n, k, m, dim):
    distance = bound(function, options, dim, prior)
    window = 1.2 * randn(n, dim) + 0.2
    against = randn(m, dim) if prior == "sample" else prior
    full = gradient(distance, window, None, against)
    assert full.abs().max() > 1e-5
    g_current = gradient(distance, window[n - k :], window[: n - k], against)
    torch.testing.assert_close(g_current, full[n - k :], rtol=1e-12, atol=1e-15)


@every_distance
@priors
def test_the_gradient_scales_with_what_comes_from_above(randn, function, options, prior):
    distance = bound(function, options, 3, prior)
    current, history, against = randn(2, 3), randn(4, 3), randn(5, 3) if prior == "sample" else prior
    tripled = gradient(lambda *arguments: -3 * distance(*arguments), current, history, against)
    torch.testing.assert_close(tripled, -3 * gradient(distance, current, history, against))


@every_distance
@priors
def test_the_gradient_passes_through_an_encoder_to_the_current_rows_alone(randn, function, options, prior):
    distance = bound(function, options, 3, prior)
    weight, pictures = randn(4, 3).requires_grad_(), randn(2, 4)
    history, against = randn(4, 3), randn(5, 3) if prior == "sample" else prior
    distance(pictures @ weight, history, against).backward()
    g_current = gradient(distance, (pictures @ weight).detach(), history, against)
    torch.testing.assert_close(weight.grad, pictures.T @ g_current)
    assert history.grad is None


def test_what_needs_no_gradient_gets_none(randn):
    assert not mk.mmd(randn(2, 3), randn(2, 3)).requires_grad
    with torch.no_grad():
        assert not mk.cramer_wold(randn(2, 3).requires_grad_()).requires_grad


@pytest.mark.parametrize("argument", ["history", "prior", "directions"])
def test_only_current_may_require_grad(randn, argument):
    tensors = {"history": randn(3, 2), "prior": randn(3, 2)}
    functions: list[Callable[..., Tensor]] = [mk.sliced_wasserstein]
    if argument == "directions":
        tensors["directions"] = randn(2, 5)
    else:
        functions += [mk.mmd, mk.cramer_wold]
    tensors[argument].requires_grad_()
    for function in functions:
        with pytest.raises(ValueError, match=f"{argument}.*detach"):
            function(randn(2, 2), **tensors)
        function(randn(2, 2), **{name: tensor.detach() for name, tensor in tensors.items()})


# Coinciding points and ties


@every_distance
@priors
@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize("dim", [1, 2, 8])
def test_no_nan_where_points_coincide(randn, function, options, prior, dim, dtype):
    distance = bound(function, options, dim, prior)
    if function is mk.sliced_wasserstein:
        distance = partial(distance, directions=distance.keywords["directions"].to(dtype))
    row, other = randn(1, dim, dtype=dtype), randn(1, dim, dtype=dtype)
    for current, history, sample in (
        (torch.cat([row, row]), other, other),
        (row, torch.cat([row, other]), other),
        (row, other, torch.cat([row, other])),
        (row, row, row),
        (torch.zeros(2, dim, dtype=dtype), torch.zeros(1, dim, dtype=dtype), torch.zeros(3, dim, dtype=dtype)),
    ):
        if options.get("estimator") == "unbiased" and len(sample) == 1:
            sample = torch.cat([sample, other])
        z = current.clone().requires_grad_()
        value = distance(z, history, sample if prior == "sample" else prior)
        (g_current,) = torch.autograd.grad(value, z, create_graph=True)
        assert g_current.isfinite().all()
        if options.get("p") != 1.5:  # of |x - y|^p for 1 < p < 2 the second derivative is infinite at x = y
            assert torch.autograd.grad(g_current.square().sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("direction", [1.0, -1.0])
@priors
def test_ties_are_ranked_by_index(direction, prior):
    """Row i of n equal rows is matched with order statistic i of the prior, whichever way the direction points."""
    n = 40  # enough rows for an unstable sort to show
    directions = torch.tensor([[direction]], dtype=F64)
    window = torch.full((n, 1), 0.25, dtype=F64)
    if prior == "sample":
        against: Tensor | str = torch.linspace(-2, 3, n, dtype=F64)[:, None].flip(0)
        matched = torch.sort(against[:, 0] * direction)[0] * direction
    else:
        against = prior
        edges = torch.special.ndtri(torch.arange(n + 1, dtype=F64) / n)
        density = torch.distributions.Normal(torch.zeros((), dtype=F64), 1).log_prob(edges).exp()
        matched = n * (density[:-1] - density[1:]) * direction
    expected = 2 / n * (window[:, 0] - matched)[:, None]
    distance = partial(mk.sliced_wasserstein, directions=directions)
    torch.testing.assert_close(gradient(distance, window, None, against), expected)
    torch.testing.assert_close(gradient(distance, window[30:], window[:30], against), expected[30:])


@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
@pytest.mark.parametrize("m", [3, 24, 50])
def test_ties_are_the_limit_of_rows_in_the_order_of_their_index(randn, m, p):
    """The gradient at ties, also between history and current and with m != n, is that of rows 1e-9 apart."""
    values = torch.tensor([0.0, 1.0, -1.0], dtype=F64).repeat(8)[:, None]
    apart = values + 1e-9 * torch.arange(24, dtype=F64)[:, None]
    prior, directions = randn(m, 1), torch.ones(1, 1, dtype=F64)
    distance = partial(mk.sliced_wasserstein, directions=directions, p=p)
    for k in (1, 10, 24):
        tied = gradient(distance, values[24 - k :], values[: 24 - k], prior)
        torch.testing.assert_close(tied, gradient(distance, apart[24 - k :], apart[: 24 - k], prior), rtol=0, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, F64], ids=["float32", "float64"])
@pytest.mark.parametrize(("n", "dim", "count"), [(5, 3, 7), (41, 8, 50), (67, 20, 13), (130, 64, 50)])
def test_equal_rows_are_ranked_by_index_in_every_direction(randn, n, dim, count, dtype):
    """Equal rows must have equal projections to the last bit, wherever in the window they stand."""
    directions = torch.nn.functional.normalize(randn(dim, count), dim=0).to(dtype)
    window, prior = randn(1, dim, dtype=dtype).expand(n, dim), randn(n, dim, dtype=dtype)
    matched = torch.sort(prior @ directions, dim=0)[0]
    expected = 2 / (n * count) * (window @ directions - matched) @ directions.T
    distance = partial(mk.sliced_wasserstein, directions=directions)
    for k in (1, 3, n):
        g_current = gradient(distance, window[n - k :], window[: n - k], prior)
        torch.testing.assert_close(g_current, expected[n - k :], rtol=1e-4, atol=1e-6)


def test_ties_in_one_direction_only():
    directions = torch.eye(2, dtype=F64)
    current = torch.tensor([[0.0, 2.0], [0.0, 1.0]], dtype=F64)
    prior = torch.tensor([[-1.0, 5.0], [3.0, -4.0]], dtype=F64)
    distance = partial(mk.sliced_wasserstein, directions=directions)
    expected = torch.tensor([[0.0 + 1.0, 2.0 - 5.0], [0.0 - 3.0, 1.0 + 4.0]], dtype=F64) / 2  # 2 / (n L) = 1/2
    torch.testing.assert_close(gradient(distance, current, None, prior), expected)


def test_p_1_has_no_pull_where_the_window_meets_the_prior():
    current = torch.tensor([[0.0], [1.0]], dtype=F64)
    distance = partial(mk.sliced_wasserstein, directions=torch.ones(1, 1, dtype=F64), p=1)
    torch.testing.assert_close(gradient(distance, current, None, current.clone()), torch.zeros(2, 1, dtype=F64))


@every_distance
@priors
def test_the_same_call_gives_the_same_bits(randn, function, options, prior):
    distance = bound(function, options, 3, prior)
    current, history, against = randn(9, 3), randn(40, 3).round(), randn(33, 3) if prior == "sample" else prior
    assert torch.equal(gradient(distance, current, history, against), gradient(distance, current, history, against))


# Other dtypes


@every_distance
@priors
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 2e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)],
    ids=["float32", "float16", "bfloat16"],
)
def test_the_gradient_has_the_dtype_of_current(randn, function, options, prior, dtype, tolerance):
    """Of half inputs it is the exact gradient rounded once."""
    distance = bound(function, options, 3, prior)
    tensors = [x.to(dtype) for x in (2 * randn(3, 3) + 1, randn(4, 3), randn(5, 3))]
    of_wide = distance
    if function is mk.sliced_wasserstein:
        directions = distance.keywords["directions"].to(dtype)
        distance, of_wide = partial(distance, directions=directions), partial(distance, directions=directions.double())
    against = [x if prior == "sample" else prior for x in (tensors[2], tensors[2].double())]
    g_current = gradient(distance, tensors[0], tensors[1], against[0])
    exact = gradient(of_wide, tensors[0].double(), tensors[1].double(), against[1])
    assert g_current.dtype == dtype
    torch.testing.assert_close(g_current.double(), exact, rtol=tolerance, atol=tolerance * exact.abs().max().item())


@priors
@pytest.mark.parametrize(("function", "options"), SMOOTH)
def test_far_rows_have_a_finite_gradient(randn, function, options, prior):
    distance = bound(function, options, 5, prior)
    for dtype in (torch.float32, F64):
        against = randn(5, 5, dtype=dtype) if prior == "sample" else prior
        far = torch.full((1, 5), 1e6, dtype=dtype)
        assert gradient(distance, far, randn(4, 5, dtype=dtype), against).isfinite().all()
