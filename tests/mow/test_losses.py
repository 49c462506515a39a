"""The distances as modules: the window, the logarithm, the priors."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import mow
import mow_kernels as mk
from mow.window.distances import Distance
from mow.window.priors import Normal, Prior, Sphere, Uniform

Randn = Callable[..., Tensor]
EPS = 1e-3
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DIM, N = 3, 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


THETA = torch.nn.functional.normalize(torch.randn(DIM, 6, generator=seeded(), dtype=torch.float64), dim=0)
# A module, and the function of all rows of the window and of a prior ("normal" or a sample) that it must equal.
CASES: dict[str, tuple[Callable[..., Distance], Callable[..., Tensor]]] = {
    "mmd": (mow.MMD, lambda z, v="normal": mk.mmd(z, None, v)),
    "mmd, all options": (
        lambda prior="normal", **kw: mow.MMD(prior, kernel="gaussian", scales=(0.3, 2.0), estimator="biased", **kw),
        lambda z, v="normal": mk.mmd(z, None, v, kernel="gaussian", scales=(0.3, 2.0), estimator="biased"),
    ),
    "cramer-wold": (mow.CramerWold, lambda z, v="normal": mk.cramer_wold(z, None, v)),
    "cramer-wold, all options": (
        lambda prior="normal", **kw: mow.CramerWold(prior, gamma=0.2, phi="asymptotic", **kw),
        lambda z, v="normal": mk.cramer_wold(z, None, v, gamma=0.2, phi="asymptotic"),
    ),
    "sliced, directions given": (
        lambda prior="normal", **kw: mow.SlicedWasserstein(prior, directions=THETA, **kw),
        lambda z, v="normal": mk.sliced_wasserstein(z, None, v, directions=THETA),
    ),
    "sliced, directions drawn": (
        lambda prior="normal", **kw: mow.SlicedWasserstein(prior, directions=9, generator=seeded(4), **kw),
        lambda z, v="normal": mk.sliced_wasserstein(z, None, v, directions=9, generator=seeded(4)),
    ),
}
MODULES = {name: module for name, (module, _) in CASES.items()}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Callable[..., Distance], Callable[..., Tensor]]:
    return CASES[request.param]


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> Callable[..., Distance]:
    return MODULES[request.param]


class Recorded(Normal):
    """N(0, I), sampled, that keeps what it drew."""

    def __init__(self) -> None:
        super().__init__(seeded(7))
        object.__setattr__(self, "drawn", [])

    def sample(self, m: int, like: Tensor) -> Tensor:
        self.drawn.append(super().sample(m, like))
        return self.drawn[-1]


class Constant(Distance):
    """Whatever value the latent has, to look at the logarithm alone."""

    def value(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
        return z.sum()


def window_of(rows: Tensor, n: int = N) -> mow.MovingWindow:
    window = mow.MovingWindow(n, rows.shape[1], dtype=rows.dtype)
    if len(rows):
        window.push(rows)
    return window


# The window


@pytest.mark.parametrize("pushed, k", [(0, 3), (2, 1), (5, 1), (7, 1), (20, 1), (20, 5), (6, 4), (20, N)])
def test_the_value_is_the_functions_on_all_the_rows(case: Any, randn: Randn, pushed: int, k: int) -> None:
    module, function = case
    rows, z = randn(pushed, DIM), randn(k, DIM)
    present = torch.cat([rows[max(0, pushed - (N - k)) :] if k < N else rows[:0], z])
    if len(present) > 1:
        torch.testing.assert_close(module()(z, window_of(rows)), function(present), rtol=1e-12, atol=1e-14)


def test_the_gradient_is_that_of_the_new_rows(case: Any, randn: Randn) -> None:
    module, function = case
    rows, z = randn(12, DIM), randn(3, DIM).requires_grad_()
    (gradient,) = torch.autograd.grad(module()(z, window_of(rows)), z)
    everything = torch.cat([rows[-5:], z.detach()]).requires_grad_()
    (expected,) = torch.autograd.grad(function(everything), everything)
    torch.testing.assert_close(gradient, expected[-3:], rtol=1e-10, atol=1e-14)


def test_a_history_may_be_a_tensor_or_absent(case: Any, randn: Randn) -> None:
    module, function = case
    history, z = randn(11, DIM), randn(3, DIM)
    everything = torch.cat([history, z])
    torch.testing.assert_close(module()(z, history), function(everything), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(module()(z), function(z), rtol=1e-12, atol=1e-14)


def test_the_window_is_read_only(module: Any, randn: Randn) -> None:
    window = window_of(randn(12, DIM))
    before = window.latents.clone()
    module()(randn(2, DIM).requires_grad_(), window).backward()
    assert torch.equal(window.latents, before) and len(window) == N


def test_the_order_of_the_rows_does_not_matter(module: Any, randn: Randn) -> None:
    rows, z = randn(6, DIM), randn(2, DIM)
    value = module()(z, window_of(rows))
    for _ in range(5):
        order = torch.randperm(N, generator=seeded())
        shuffled = torch.cat([rows, z])[order]
        torch.testing.assert_close(module()(shuffled[6:], window_of(shuffled[:6])), value, rtol=1e-11, atol=1e-13)


def test_more_new_rows_than_the_window_holds(module: Any, randn: Randn) -> None:
    with pytest.raises(ValueError, match=f"z has {N + 1} rows.* n = {N}.*k <= n"):
        module()(randn(N + 1, DIM), window_of(randn(4, DIM)))


BAD_LATENTS = {
    "a vector": (torch.zeros(DIM).double(), ValueError),
    "three axes": (torch.zeros(2, 2, DIM).double(), ValueError),
    "no rows": (torch.zeros(0, DIM).double(), ValueError),
    "another width": (torch.zeros(2, DIM + 1).double(), ValueError),
    "another dtype": (torch.zeros(2, DIM), TypeError),
    "integers": (torch.zeros(2, DIM, dtype=torch.int64), TypeError),
}


@pytest.mark.parametrize("name", ["mmd", "cramer-wold", "sliced, directions drawn"])
@pytest.mark.parametrize("prior", ["normal", "uniform"])
@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("bad", BAD_LATENTS)
def test_bad_latents(name: str, prior: str, rows: int, bad: str, randn: Randn) -> None:
    latents, kind = BAD_LATENTS[bad]
    for history in (window_of(randn(rows, DIM)), randn(rows, DIM)):
        with pytest.raises(kind, match="z |current|history|prior|k is 0"):
            MODULES[name](prior)(latents, history)


def test_a_history_that_requires_grad(module: Any, randn: Randn) -> None:
    with pytest.raises(ValueError, match="history requires grad.*detach"):
        module()(randn(2, DIM), randn(4, DIM).requires_grad_())


def test_a_distance_has_a_gradient_at_every_size_of_a_growing_window(module: Any, randn: Randn) -> None:
    window = mow.MovingWindow(N, DIM, dtype=torch.float64)
    for _ in range(N + 2):
        z = randn(1, DIM).requires_grad_()
        module()(z, window).backward()
        assert torch.isfinite(z.grad).all() and z.grad.abs().sum() > 0
        window.push(z)


# A single row


@pytest.mark.parametrize("kernel", ["imq", "gaussian"])
@pytest.mark.parametrize("scales", [None, (0.5, 3.0)])
def test_a_single_row_has_no_pairs_of_its_own(kernel: str, scales: Any, randn: Randn) -> None:
    """The unbiased MMD of one row z is 0 + vv - 2 zv."""
    z, window = 2 * randn(1, DIM).requires_grad_(), mow.MovingWindow(N, DIM, dtype=torch.float64)
    prior = Recorded()
    value = mow.MMD(prior, kernel=kernel, scales=scales)(z, window)
    (v,) = prior.drawn
    m = len(v)

    def k(r: Tensor) -> Tensor:
        widths = [2 * DIM * s for s in scales or SCALES]
        return sum(c / (c + r) if kernel == "imq" else torch.exp(-r / c) for c in widths)

    vv = sum(k((v[i] - v[j]).square().sum()) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    zv = k((z - v).square().sum(1)).mean()
    torch.testing.assert_close(value, vv - 2 * zv, rtol=1e-12, atol=1e-13)
    for got, expected in zip(torch.autograd.grad(value, z), torch.autograd.grad(-2 * zv, z), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-14)


def test_a_single_row_against_the_normal_prior_in_closed_form(randn: Randn) -> None:
    z, window = 2 * randn(1, DIM).requires_grad_(), mow.MovingWindow(N, DIM, dtype=torch.float64)
    value = mow.MMD(kernel="gaussian")(z, window)
    q = z.square().sum()
    zv = sum((DIM * s / (DIM * s + 1)) ** (DIM / 2) * torch.exp(-q / (2 * (DIM * s + 1))) for s in SCALES)
    vv = sum((DIM * s / (DIM * s + 2)) ** (DIM / 2) for s in SCALES)
    torch.testing.assert_close(value, vv - 2 * zv, rtol=1e-12, atol=1e-13)
    for got, expected in zip(torch.autograd.grad(value, z), torch.autograd.grad(-2 * zv, z), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-14)


def test_a_single_row_under_the_inverse_multiquadric(randn: Randn) -> None:
    """The biased MMD of one row has zz = k(z, z) = 7 and all else the same, when the prior is in closed form."""
    z = randn(1, DIM)
    torch.testing.assert_close(mow.MMD()(z), mow.MMD(estimator="biased")(z) - 7, rtol=1e-12, atol=1e-13)


def test_a_window_of_one_row_in_all(module: Any, randn: Randn) -> None:
    window = window_of(randn(3, DIM), n=1)
    for prior in ("normal", "normal-sample", "uniform", "sphere"):
        assert torch.isfinite(module(prior)(randn(1, DIM), window))


# The logarithm


def test_the_logarithm_above_its_floor(case: Any, randn: Randn) -> None:
    module, function = case
    z = 3 + randn(N, DIM)
    value = function(z)
    assert value > EPS
    torch.testing.assert_close(module(log=True)(z), value.log(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("value", [-5.0, -1e-3, 0.0, 1e-9, 5e-4, 1e-3])
def test_the_tangent_below_it(value: float) -> None:
    z = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    logarithm = Constant(log=True)(z)
    logarithm.backward()
    assert logarithm.item() == pytest.approx(math.log(EPS) + (value - EPS) / EPS, rel=1e-12)
    assert z.grad.item() == pytest.approx(1 / EPS, rel=1e-12)


@pytest.mark.parametrize("value", [1.001e-3, 0.01, 1.0, 40.0])
def test_the_gradient_above_it(value: float) -> None:
    z = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    logarithm = Constant(log=True)(z)
    logarithm.backward()
    assert logarithm.item() == pytest.approx(math.log(value), rel=1e-12)
    assert z.grad.item() == pytest.approx(1 / value, rel=1e-12)


def test_value_and_slope_are_continuous_at_the_floor() -> None:
    step = 1e-9
    z = EPS + step * torch.tensor([-1, 0, 1], dtype=torch.float64)
    values = torch.stack([Constant(log=True)(each.reshape(1, 1)) for each in z])
    torch.testing.assert_close(values.diff(), torch.full((2,), step / EPS).double(), rtol=1e-5, atol=0)


def test_a_negative_distance_has_a_finite_logarithm(randn: Randn) -> None:
    """Half of the unbiased estimates at the prior are below zero."""
    signs = set()
    for _ in range(12):
        z = randn(40, DIM).requires_grad_()
        value, logarithm = mow.MMD()(z), mow.MMD(log=True)(z)
        signs.add(value.sign().item())
        logarithm.backward()
        assert torch.isfinite(logarithm) and torch.isfinite(z.grad).all()
    assert signs == {-1, 1}


def test_measure_is_the_bare_distance(module: Any, randn: Randn) -> None:
    z, window = randn(2, DIM), window_of(randn(5, DIM))
    distance = module(log=True)
    bare = module().measure(z, window)
    assert torch.equal(distance.measure(z, window), bare)
    assert torch.equal(distance.transform(bare), module(log=True)(z, window))
    assert torch.equal(module().transform(bare), bare)


def test_half_latents_give_a_float32_distance(randn: Randn) -> None:
    z, history = randn(1, DIM).half(), randn(5, DIM).half()
    for distance in (mow.MMD(), mow.CramerWold(log=True), mow.SlicedWasserstein(directions=4)):
        for past in (history, None):
            assert distance(z, past).dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "make",
    [
        mow.MMD,
        lambda: mow.CramerWold(log=True),
        lambda: mow.SlicedWasserstein(directions=4, keep=5, generator=seeded(0)),
        lambda: mow.MMD(Uniform(seeded(2))),
        lambda: mow.MMD(mow.PriorWindow(200, DIM, Normal(seeded(3)))),
        lambda: Constant(),
    ],
)
def test_half_latents_over_a_float32_window(make: Any, dtype: torch.dtype, randn: Randn) -> None:
    """They are those of the same latents in float32, from what the window keeps as well, and so is the gradient."""
    half, wide = make(), make()
    window, other = (mow.MovingWindow(200, DIM, dtype=torch.float32) for _ in range(2))
    for each in (window, other):
        each.fill(randn(200, DIM, dtype=torch.float32).fill_(0.5) + torch.arange(200)[:, None] / 100)
    for _ in range(3):
        z = randn(2, DIM).to(dtype)
        g_z, value = half.gradient(z, window)
        expected, right = wide.gradient(z.float(), other)
        assert g_z.dtype == torch.float32
        torch.testing.assert_close((g_z, value), (expected, right))
        window.push(z)
        other.push(z)


# Sampled priors


@pytest.mark.parametrize("k", [1, 3, N])
def test_a_sampled_prior_has_as_many_rows_as_the_window(case: Any, randn: Randn, k: int) -> None:
    module, function = case
    prior, rows, z = Recorded(), randn(N, DIM), randn(k, DIM)
    value = module(prior)(z, window_of(rows))
    (sample,) = prior.drawn
    assert sample.shape == (N, DIM)
    torch.testing.assert_close(value, function(torch.cat([rows[k:], z]), sample), rtol=1e-12, atol=1e-14)


def test_a_sampled_prior_has_as_many_rows_as_history_and_latents(randn: Randn) -> None:
    prior = Recorded()
    distance = mow.CramerWold(prior)
    distance(randn(3, DIM), randn(4, DIM))
    distance(randn(5, DIM))
    assert [len(sample) for sample in prior.drawn] == [7, 5]


def test_a_sample_is_drawn_afresh_at_each_call(module: Any, randn: Randn) -> None:
    prior = Recorded()
    distance, z, window = module(prior), randn(1, DIM), window_of(randn(N, DIM))
    assert distance(z, window) != distance(z, window)
    assert not torch.equal(*prior.drawn)


@pytest.mark.parametrize("name, prior", [("normal-sample", Normal), ("uniform", Uniform), ("sphere", Sphere)])
def test_a_prior_by_name(name: str, prior: type[Prior], module: Any, randn: Randn) -> None:
    z, window = randn(2, DIM), window_of(randn(N, DIM))
    torch.manual_seed(3)
    by_name = module(name)(z, window)
    torch.manual_seed(3)
    assert torch.equal(by_name, module(prior())(z, window))


def test_an_unknown_prior(module: Any) -> None:
    with pytest.raises(ValueError, match="prior is 'cauchy'"):
        module("cauchy")


@pytest.mark.parametrize(
    "prior, width",
    [(Normal, 2 * DIM), (Uniform, DIM), (Sphere, 2)],  # the C of the WAE: 2Ds, Ds, 2s
)
@pytest.mark.parametrize("kernel", ["imq", "gaussian"])
def test_the_kernel_fits_the_prior(prior: type[Prior], width: float, kernel: str, randn: Randn) -> None:
    z = randn(N, DIM)
    v = prior(seeded(2)).sample(N, z)

    def k(x: Tensor, y: Tensor) -> Tensor:
        r = (x[:, None] - y).square().sum(2)
        return sum(width * s / (width * s + r) if kernel == "imq" else torch.exp(-r / (width * s)) for s in SCALES)

    pairs = N * (N - 1)
    expected = (k(z, z).sum() + k(v, v).sum() - 2 * 7 * N) / pairs - 2 * k(z, v).mean()
    torch.testing.assert_close(mow.MMD(prior(seeded(2)), kernel=kernel)(z), expected, rtol=1e-11, atol=1e-13)


def test_given_scales_are_taken_as_they_are(randn: Randn) -> None:
    z = randn(N, DIM)
    sample = Uniform(seeded(2)).sample(N, z)
    value = mow.MMD(Uniform(seeded(2)), scales=(0.25, 4.0))(z)
    torch.testing.assert_close(value, mk.mmd(z, None, sample, scales=(0.25, 4.0)), rtol=1e-13, atol=0)


# As modules


def test_given_directions_belong_to_the_modules_state() -> None:
    distance = mow.SlicedWasserstein(directions=THETA)
    assert torch.equal(distance.state_dict()["directions"], THETA)
    distance.to(torch.float32)
    assert distance(torch.zeros(2, DIM)).dtype == torch.float32


@pytest.mark.parametrize("value", [True, 2.5, "many"])
def test_directions_of_another_type(value: Any, randn: Randn) -> None:
    with pytest.raises(TypeError, match="directions"):
        mow.SlicedWasserstein(directions=value)(randn(4, DIM))


def test_drawn_directions_are_drawn_afresh(randn: Randn) -> None:
    distance, z = mow.SlicedWasserstein(directions=3), randn(5, DIM)
    assert distance(z) != distance(z)


@pytest.mark.parametrize(
    "distance, message",
    [
        (lambda: mow.MMD(kernel="laplace"), "kernel is 'laplace'"),
        (lambda: mow.MMD(estimator="best"), "estimator is 'best'"),
        (lambda: mow.MMD(scales=()), "scales is empty"),
        (lambda: mow.CramerWold(phi="rough"), "phi is 'rough'"),
        (lambda: mow.CramerWold(gamma=-1.0), "gamma is -1.0"),
        (lambda: mow.SlicedWasserstein(directions=0), "directions is 0"),
        (lambda: mow.SlicedWasserstein(p=1), "p is 1 and prior 'normal'"),
    ],
)
@pytest.mark.parametrize("rows", [1, 5])
def test_a_bad_option(distance: Any, message: str, rows: int, randn: Randn) -> None:
    with pytest.raises(ValueError, match=message):
        distance()(randn(rows, DIM))


# The gradient by itself


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("pushed, k", [(0, 1), (0, 3), (5, 1), (20, 5), (20, N)])
def test_the_gradient_is_that_of_the_value(module: Any, randn: Randn, pushed: int, k: int, log: bool) -> None:
    rows, z = randn(pushed, DIM), randn(k, DIM).requires_grad_()
    window, distance = window_of(rows), module(log=log)
    value = distance.measure(z, window)
    (expected,) = torch.autograd.grad(distance.transform(value), z)
    for measure in (True, False):  # each with a module of its own, which draws the same directions
        g_z, measured = module(log=log).gradient(z, window, measure=measure)
        assert torch.equal(g_z, expected) and not g_z.requires_grad
        assert (torch.equal(measured, value) and not measured.requires_grad) if measure else measured is None


def test_a_subclass_that_measures_in_its_own_way_has_the_gradient_of_that(randn: Randn) -> None:
    class Doubled(mow.CramerWold):
        def measure(self, z: Tensor, window: Any = None) -> Tensor:
            return 2 * super().measure(z, window)

    class Shifted(mow.MMD):
        def value(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
            return super().value(z + 1, history, prior)

    z, window = randn(2, DIM), window_of(randn(5, DIM))
    torch.testing.assert_close(Doubled().gradient(z, window)[0], 2 * mow.CramerWold().gradient(z, window)[0])
    torch.testing.assert_close(Shifted().gradient(z, window)[0], mow.MMD().gradient(z + 1, window)[0])


@pytest.mark.parametrize("keep, error", [(0, ValueError), (1.5, TypeError)])
def test_directions_are_kept_at_least_once(keep: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"keep is {keep}"):
        mow.SlicedWasserstein(keep=keep)
    with pytest.raises(ValueError, match="keep is 2 and directions a tensor"):
        mow.SlicedWasserstein(directions=torch.eye(DIM), keep=2)
