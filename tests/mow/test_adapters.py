"""GeomLoss's and POT's calls on mow_kernels: the values and gradients of those libraries, and what is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import mow_kernels as mk
from mow.adapters.geomloss import LOSSES, SamplesLoss
from mow.adapters.pot import sliced_wasserstein_distance


def value_and_gradients(distance: Callable[..., Tensor], *samples: Tensor) -> tuple[Tensor, ...]:
    leaves = [sample.clone().requires_grad_() for sample in samples]
    value = distance(*leaves)
    return value.detach(), *torch.autograd.grad(value.sum(), leaves)


def test_gaussian_is_that_of_geomloss(randn) -> None:
    geomloss = pytest.importorskip("geomloss")
    for shape, other in (((7, 3), (5, 3)), ((2, 7, 3), (2, 5, 3))):
        x, y = randn(*shape), randn(*other) + 0.5
        ours = value_and_gradients(SamplesLoss("gaussian", blur=0.8), x, y)
        theirs = value_and_gradients(geomloss.SamplesLoss("gaussian", blur=0.8, backend="tensorized"), x, y)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("p", [1, 2, 3])
def test_sliced_wasserstein_is_that_of_pot(randn, p: float) -> None:
    ot = pytest.importorskip("ot")
    x, y, projections = randn(7, 3), randn(5, 3) + 0.5, torch.nn.functional.normalize(randn(3, 20), dim=0)
    ours = value_and_gradients(lambda x, y: sliced_wasserstein_distance(x, y, projections=projections, p=p), x, y)
    theirs = value_and_gradients(lambda x, y: ot.sliced_wasserstein_distance(x, y, projections=projections, p=p), x, y)
    torch.testing.assert_close(ours, theirs)


def test_a_seed_draws_the_directions_of_pot(randn) -> None:
    ot = pytest.importorskip("ot")
    x, y = randn(7, 3, dtype=torch.float32), randn(5, 3, dtype=torch.float32)
    ours = sliced_wasserstein_distance(x, y, seed=3)
    torch.testing.assert_close(ours, ot.sliced_wasserstein_distance(x, y, seed=3))
    assert not torch.equal(ours, sliced_wasserstein_distance(x, y, seed=4))


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
        (lambda x: SamplesLoss("sinkhorn"), ValueError, "loss is 'sinkhorn'; it must be one of 'gaussian'"),
        (lambda x: SamplesLoss("imq", blur=0), ValueError, "blur is 0; it must be finite and > 0"),
        (lambda x: SamplesLoss()(x[:, 0], x, x[:, 0], x), ValueError, "there are 4 arguments; they must be x and y"),
        (lambda x: SamplesLoss()(x, x[None]), ValueError, r"x has shape \[4, 2\] and y \[1, 4, 2\]; they must be"),
        (lambda x: SamplesLoss()(x[None], x[None].expand(2, -1, -1)), ValueError, "they must be"),
        (lambda x: sliced_wasserstein_distance(x, x, a=x[:, 0]), ValueError, "a or b is given; they must be None"),
        (lambda x: sliced_wasserstein_distance(x.numpy(), x), TypeError, "X_s is ndarray; it must be a tensor"),
        (lambda x: sliced_wasserstein_distance(x, x[0]), TypeError, r"X_t has shape \[2\]; it must be a tensor"),
    ],
)
def test_what_is_refused(call, error: type, message: str) -> None:
    with pytest.raises(error, match=message):
        call(torch.zeros(4, 2))
