"""GeomLoss's and POT's calls on mow_kernels: the values and gradients of those libraries, and what is refused."""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

import mow_kernels as mk
from mow.adapters.both import both
from mow.adapters.geomloss import LOSSES, SamplesLoss
from mow.adapters.mmd_gan import mix_rbf_mmd2, mix_rq_mmd2
from mow.adapters.pot import sliced_wasserstein_distance


def value_and_gradients(distance: Callable[..., Tensor], *samples: Tensor) -> tuple[Tensor, ...]:
    leaves = [sample.clone().requires_grad_() for sample in samples]
    value = distance(*leaves)
    return value.detach(), *torch.autograd.grad(value.sum(), leaves)


def test_a_batch_is_that_of_geomloss(randn) -> None:
    geomloss = pytest.importorskip("geomloss")
    for shape, other in (((7, 3), (5, 3)), ((2, 7, 3), (2, 5, 3))):
        x, y = randn(*shape), randn(*other) + 0.5
        ours = value_and_gradients(SamplesLoss("gaussian", blur=0.8), x, y)
        theirs = value_and_gradients(geomloss.SamplesLoss("gaussian", blur=0.8, backend="tensorized"), x, y)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("backend", ["tensorized", "online"])
@pytest.mark.parametrize("n, m, dim", [(7, 5, 3), (300, 200, 20)])
@pytest.mark.parametrize("loss", ["gaussian", "laplacian", "energy"])
def test_kernel_losses_are_those_of_geomloss(randn, loss: str, n: int, m: int, dim: int, backend: str) -> None:
    geomloss = pytest.importorskip("geomloss")
    if backend == "online":
        pytest.importorskip("pykeops")
    x, y, blur = randn(n, dim), randn(m, dim) + 0.5, 0.8 * dim**0.5
    ours = value_and_gradients(SamplesLoss(loss, blur=blur), x, y)
    theirs = value_and_gradients(geomloss.SamplesLoss(loss, blur=blur, backend=backend), x, y)
    floor = 0.0  # under every distance, so that k(x, x) is less by that
    if backend == "tensorized":
        floor = {"gaussian": 0.0, "laplacian": 1 - math.exp(-1e-4), "energy": 1e-4}[loss] * (1 / n + 1 / m) / 2
    torch.testing.assert_close(ours[0] - floor, theirs[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(ours[1:], theirs[1:], rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"degree": 2, "gamma": 0.1, "coef": 0.5}])
def test_the_polynomial_mmd_is_that_of_torchmetrics(randn, options: dict) -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    adapter = importlib.import_module("mow.adapters.torchmetrics")
    x, y = randn(40, 16), randn(40, 16) + 0.5
    ours = value_and_gradients(lambda x, y: adapter.poly_mmd(x, y, **options), x, y)
    theirs = value_and_gradients(lambda x, y: kid.poly_mmd(x, y, **options), x, y)
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)
    assert inspect.signature(adapter.poly_mmd).parameters.keys() == inspect.signature(kid.poly_mmd).parameters.keys()


def test_kernel_inception_distance_is_that_of_torchmetrics(randn) -> None:
    kid = pytest.importorskip("torchmetrics.image.kid")
    adapter = importlib.import_module("mow.adapters.torchmetrics")
    real, fake = (randn(200, 3, 4, 4, dtype=torch.float32) for _ in range(2))
    found = []
    for module in (adapter, kid):
        network = torch.nn.Flatten()
        network.num_features = 48
        metric = module.KernelInceptionDistance(feature=network, subsets=5, subset_size=60)
        metric.update(real, real=True)
        metric.update(fake + 0.3, real=False)
        torch.manual_seed(1)
        found.append(metric.compute())
        metric.update(fake, real=False)
        metric.subset_size = 201
        with pytest.raises(ValueError, match="subset_size"):
            metric.compute()
    torch.testing.assert_close(*found, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("biased", [True, False])
def test_the_losses_of_mmd_gans_are_their_formulas(randn, biased: bool) -> None:
    def mmd2(kernel: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
        def within(x: Tensor) -> Tensor:
            values = kernel(x, x)
            return values.mean() if biased else (values.sum() - values.trace()) / (len(x) * (len(x) - 1))

        return within(x) + within(y) - 2 * kernel(x, y).mean()

    def squared(x: Tensor, y: Tensor) -> Tensor:
        return (x[:, None] - y).square().sum(2)

    def rq(x: Tensor, y: Tensor) -> Tensor:
        return sum((1 + squared(x, y) / (2 * a)) ** -a for a in (0.2, 0.5, 1, 2, 5)) + 0.1 * x @ y.T

    def rbf(x: Tensor, y: Tensor) -> Tensor:
        return sum(torch.exp(-squared(x, y) / (2 * sigma**2)) for sigma in (1, 3))

    x, y = randn(8, 3), randn(6, 3) + 0.5
    for loss, kernel in (
        (lambda x, y: mix_rq_mmd2(x, y, biased=biased, add_dot=0.1), rq),
        (lambda x, y: mix_rbf_mmd2(x, y, sigmas=(1, 3), biased=biased), rbf),
    ):
        ours = value_and_gradients(loss, x, y)
        torch.testing.assert_close(ours, value_and_gradients(lambda x, y: mmd2(kernel, x, y), x, y))  # noqa: B023
    live, other = x.clone().requires_grad_(), y.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x, y: mix_rq_mmd2(x, y, biased=biased, add_dot=0.1), (live, other))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_sliced_wasserstein_is_that_of_pot(randn, p: float) -> None:
    ot = pytest.importorskip("ot")
    x, y, projections = randn(7, 3), randn(5, 3) + 0.5, torch.nn.functional.normalize(randn(3, 20), dim=0)
    ours = value_and_gradients(lambda x, y: sliced_wasserstein_distance(x, y, projections=projections, p=p), x, y)
    theirs = value_and_gradients(lambda x, y: ot.sliced_wasserstein_distance(x, y, projections=projections, p=p), x, y)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("seed", [lambda: 3, lambda: torch.Generator().manual_seed(3)], ids=["integer", "generator"])
def test_a_seed_draws_the_directions_of_pot(randn, dtype: torch.dtype, seed: Callable[[], object]) -> None:
    ot = pytest.importorskip("ot")
    x, y = randn(7, 3, dtype=dtype), randn(5, 3, dtype=dtype)
    ours = sliced_wasserstein_distance(x, y, seed=seed())
    torch.testing.assert_close(ours, ot.sliced_wasserstein_distance(x, y, seed=seed()))
    assert not torch.equal(ours, sliced_wasserstein_distance(x, y, seed=4))
    assert torch.equal(ours, sliced_wasserstein_distance(x, y, seed=np.int64(3)))


def test_the_arguments_are_those_of_the_originals_in_their_order(randn) -> None:
    """Each is given its default by position: the original's value, or an error that names what to pass."""
    geomloss, ot = pytest.importorskip("geomloss"), pytest.importorskip("ot")
    x, y = randn(7, 3, dtype=torch.float32), randn(5, 3, dtype=torch.float32)

    def defaults(function: Callable[..., object]) -> dict[str, object]:
        parameters = inspect.signature(function).parameters.values()
        return {each.name: each.default for each in parameters if each.default is not each.empty}

    theirs = defaults(geomloss.SamplesLoss)
    assert list(defaults(SamplesLoss).items()) == list(theirs.items())
    with pytest.raises(ValueError, match="loss is 'sinkhorn'; it must be one of 'gaussian'"):
        SamplesLoss(*theirs.values())
    given = list((theirs | {"loss": "gaussian"}).values())
    torch.testing.assert_close(SamplesLoss(*given)(x, y), geomloss.SamplesLoss(*given)(x, y))

    theirs = defaults(ot.sliced_wasserstein_distance)
    assert list(defaults(sliced_wasserstein_distance).items()) == list(theirs.items())
    given = list((theirs | {"seed": 3}).values())
    ours = sliced_wasserstein_distance(x, y, *given)
    torch.testing.assert_close(ours, ot.sliced_wasserstein_distance(x, y, *given))


def test_what_steers_sinkhorn_changes_a_kernel_loss_neither_here_nor_there(randn) -> None:
    geomloss = pytest.importorskip("geomloss")
    x, y = randn(7, 3), randn(5, 3)
    options = {"p": 1, "blur": 0.7, "reach": 0.3, "diameter": 2.0, "scaling": 0.9, "debias": False}
    theirs = geomloss.SamplesLoss("gaussian", backend="tensorized", **options)(x, y)
    torch.testing.assert_close(SamplesLoss("gaussian", **options)(x, y), theirs)


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_has_the_gradient_of_both_samples(randn, loss: str) -> None:
    """By central differences along a random direction, and the same to a sample that alone requires one."""
    x, y, dx, dy = randn(6, 3), randn(4, 3) + 0.5, randn(6, 3), randn(4, 3)

    def distance(x: Tensor, y: Tensor) -> Tensor:
        torch.manual_seed(0)  # of the directions
        return SamplesLoss(loss, blur=0.9)(x, y)

    value, g_x, g_y = value_and_gradients(distance, x, y)
    slope = (distance(x + 1e-6 * dx, y + 1e-6 * dy) - distance(x - 1e-6 * dx, y - 1e-6 * dy)) / 2e-6
    torch.testing.assert_close((g_x * dx).sum() + (g_y * dy).sum(), slope, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(value_and_gradients(lambda x: distance(x, y), x), (value, g_x))
    torch.testing.assert_close(value_and_gradients(lambda y: distance(x, y), y), (value, g_y))


def adapted(loss: str) -> Callable[[Tensor, Tensor], Tensor]:
    """A stand-in that draws the same directions at each call."""

    def distance(x: Tensor, y: Tensor) -> Tensor:
        if loss == "pot":
            return sliced_wasserstein_distance(x, y, p=3, seed=0)
        torch.manual_seed(0)
        return SamplesLoss(loss, blur=0.9)(x, y)

    return distance


@pytest.mark.parametrize("loss", [*LOSSES, "pot"])
def test_mixed_second_derivatives(randn, loss: str, backend: str) -> None:
    """By finite differences: across the two samples, and of weights that both share."""
    x, y = randn(4, 2).requires_grad_(), (randn(3, 2) + 0.5).requires_grad_()
    distance = adapted(loss)
    assert torch.autograd.gradgradcheck(distance, (x, y))
    weights = randn(2, 2).requires_grad_()
    shared = x.detach(), y.detach()
    assert torch.autograd.gradgradcheck(lambda w: distance(shared[0] @ w, shared[1] @ w), (weights,))
    (g_x,) = torch.autograd.grad(distance(x, y), x, create_graph=True)
    (g_xy,) = torch.autograd.grad(g_x.square().sum(), y)
    assert g_xy.abs().max() > 1e-4


def test_mixed_second_derivatives_of_a_batch_and_of_one_tensor_twice(randn) -> None:
    x, y = randn(2, 4, 2).requires_grad_(), randn(2, 3, 2).requires_grad_()
    assert torch.autograd.gradgradcheck(SamplesLoss("imq", blur=0.9), (x, y))
    assert torch.autograd.gradgradcheck(lambda x: both(mk.mmd, x, x), (x.detach()[0].requires_grad_(),))


def test_the_first_derivative_is_made_without_the_reference(randn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mk, "differentiable", lambda *args, **options: pytest.fail("the reference ran"))
    value_and_gradients(SamplesLoss("imq"), randn(6, 3), randn(4, 3))
    with torch.no_grad():
        assert not SamplesLoss("imq")(randn(6, 3).requires_grad_(), randn(4, 3).requires_grad_()).requires_grad


@pytest.mark.parametrize("loss", LOSSES)
def test_both_gradients_in_one_graph(randn, loss: str) -> None:
    """torch.compile: the same gradients, and no second derivative in silence."""
    x, y = randn(5, 3), randn(4, 3)
    compiled = torch.compile(SamplesLoss(loss), fullgraph=True, backend="aot_eager")
    torch.manual_seed(0)
    found = value_and_gradients(compiled, x, y)
    torch.manual_seed(0)
    torch.testing.assert_close(found, value_and_gradients(SamplesLoss(loss), x, y))
    x, y = x.requires_grad_(), y.requires_grad_()
    with pytest.raises(RuntimeError, match="create_graph|double backward"):
        (g_x,) = torch.autograd.grad(compiled(x, y), x, create_graph=True)
        torch.autograd.grad(g_x.sum(), y)


def test_a_change_in_place_before_backward_is_an_error(randn) -> None:
    for changed in range(3):
        tensors = randn(4, 2), randn(3, 2), torch.nn.functional.normalize(randn(2, 5), dim=0)
        x, y = (sample.clone().requires_grad_() for sample in tensors[:2])
        given = x * 1, y * 1, tensors[2]
        value = sliced_wasserstein_distance(given[0], given[1], projections=given[2])
        with torch.no_grad():
            given[changed].mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()


def test_the_other_losses_are_those_of_mow_kernels(randn) -> None:
    x, y = randn(6, 3), randn(4, 3)
    assert torch.equal(SamplesLoss("imq", blur=1)(x, y), mk.mmd(x, None, y, estimator="biased") / 2)
    assert torch.equal(SamplesLoss("cramer_wold")(x, y), mk.cramer_wold(x, None, y))
    torch.manual_seed(0)
    ours = SamplesLoss("sliced_wasserstein", p=1)(x, y)
    torch.manual_seed(0)
    assert torch.equal(ours, mk.sliced_wasserstein(x, None, y, p=1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: SamplesLoss(), ValueError, "loss is 'sinkhorn'; it must be one of 'gaussian'"),
        (lambda x: SamplesLoss("hausdorff"), ValueError, "loss is 'hausdorff'; it must be one of 'gaussian'"),
        (lambda x: mix_rq_mmd2(x, x, wts=[1]), ValueError, "wts is .*; it must be None"),
        (lambda x: SamplesLoss("gaussian", kernel=torch.cdist), ValueError, "kernel is <.*>; it must be None"),
        (lambda x: SamplesLoss("gaussian", potentials=True), ValueError, "potentials is True; it must be False"),
        (lambda x: sliced_wasserstein_distance(x, x, log=True), ValueError, "log is True; it must be False"),
        (lambda x: sliced_wasserstein_distance(x, x, scaler=abs), ValueError, "scaler is .*; it must be None"),
        (
            lambda x: sliced_wasserstein_distance(x, x, seed=np.random.RandomState(0)),
            TypeError,
            "seed is RandomState.*; it must be an integer, a torch.Generator or None",
        ),
        (lambda x: SamplesLoss("imq", blur=0), ValueError, "blur is 0; it must be finite and > 0"),
        (
            lambda x: SamplesLoss("gaussian")(x[:, 0], x, x[:, 0], x),
            ValueError,
            "there are 4 arguments; they must be x and y",
        ),
        (
            lambda x: SamplesLoss("gaussian")(x, x[None]),
            ValueError,
            r"x has shape \[4, 2\] and y \[1, 4, 2\]; they must be",
        ),
        (lambda x: SamplesLoss("gaussian")(x[None], x[None].expand(2, -1, -1)), ValueError, "they must be"),
        (lambda x: sliced_wasserstein_distance(x, x, a=x[:, 0]), ValueError, "a or b is given; they must be None"),
        (lambda x: sliced_wasserstein_distance(x.numpy(), x), TypeError, "X_s is ndarray; it must be a tensor"),
        (lambda x: sliced_wasserstein_distance(x, x[0]), TypeError, r"X_t has shape \[2\]; it must be a tensor"),
    ],
)
def test_what_is_refused(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(torch.zeros(4, 2))
