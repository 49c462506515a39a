"""The distances under the transforms of torch.func, for dual numbers, and over batches of windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

import mow
import mow_kernels as mk

Randn = Callable[..., Tensor]
Distance = Callable[..., Tensor]

DISTANCES: dict[str, tuple[Distance, dict[str, Any]]] = {
    "imq": (mk.mmd, {}),
    "gaussian": (mk.mmd, {"kernel": "gaussian", "estimator": "biased"}),
    "energy": (mk.mmd, {"kernel": "energy"}),
    "polynomial": (mk.mmd, {"kernel": "polynomial"}),
    "cramer_wold": (mk.cramer_wold, {}),
    "cramer_wold exact": (mk.cramer_wold, {"phi": "exact"}),
    "sliced_wasserstein": (mk.sliced_wasserstein, {}),
}


@pytest.fixture(
    params=[pytest.param(n, marks=[pytest.mark.long] if n in ("gaussian", "energy") else []) for n in DISTANCES]
)
def distance(request: pytest.FixtureRequest, randn: Randn) -> tuple[Distance, dict[str, Any]]:
    function, options = DISTANCES[request.param]
    if function is mk.sliced_wasserstein:
        options = {"directions": torch.nn.functional.normalize(randn(4, 7), dim=0)}
    return function, options


@pytest.fixture(params=["normal", "sample"])
def measure(
    request: pytest.FixtureRequest, backend: str, distance: tuple[Distance, dict[str, Any]], randn: Randn
) -> Distance:
    """measure(z [k, 4], history [h, 4] = of 5 rows) -> 0-d, on one backend, to one prior."""
    function, options = distance
    own, prior = randn(5, 4), "normal" if request.param == "normal" else randn(6, 4)
    return lambda z, history=own: function(z, history, prior, **options)


def differences(function: Distance, z: Tensor) -> Tensor:
    """The derivative of function at z [k, D] by central differences."""
    steps = 1e-5 * torch.eye(z.numel(), dtype=z.dtype).view(-1, *z.shape)
    columns = torch.stack([(function(z + step) - function(z - step)) / 2e-5 for step in steps])
    return columns.movedim(0, -1).reshape(*columns.shape[1:], *z.shape)


def close(seen: Tensor, right: Tensor) -> None:
    torch.testing.assert_close(seen, right, rtol=1e-6, atol=1e-8)


def by_dual_numbers(function: Distance, z: Tensor, tangent: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(function(forward_ad.make_dual(z, tangent))).tangent


def test_first_derivatives(measure: Distance, randn: Randn) -> None:
    z, tangent = randn(3, 4), randn(3, 4)
    right = differences(measure, z)
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd):
        close(transform(measure)(z), right)
    along = (right * tangent).sum()
    value, product = torch.func.jvp(measure, (z,), (tangent,))
    close(value, measure(z))
    close(product, along)
    close(by_dual_numbers(measure, z, tangent), along)
    close(by_dual_numbers(measure, z.requires_grad_(), tangent), along)


@pytest.mark.parametrize(
    "hessian",
    [
        torch.func.hessian,
        lambda function: torch.func.jacrev(torch.func.jacrev(function)),
        lambda function: torch.func.jacrev(torch.func.jacfwd(function)),
    ],
    ids=["forward over reverse", "reverse over reverse", "reverse over forward"],
)
def test_second_derivatives(measure: Distance, hessian: Callable[..., Distance], randn: Randn) -> None:
    z = randn(3, 4)
    close(hessian(measure)(z), differences(torch.func.grad(measure), z))


def test_third_derivative(measure: Distance, randn: Randn) -> None:
    z, tangent = randn(3, 4).requires_grad_(), randn(3, 4)

    def along(z: Tensor) -> Tensor:
        """The second derivative along the tangent, as a number."""
        (first,) = torch.autograd.grad(measure(z), z, create_graph=True)
        (second,) = torch.autograd.grad((first * tangent).sum(), z, create_graph=True)
        return (second * tangent).sum()

    (seen,) = torch.autograd.grad(along(z), z)
    close(seen, differences(lambda moved: along(moved.detach().requires_grad_()).detach(), z.detach()))


def test_forward_mode_within_forward_mode_is_refused_or_right(measure: Distance, randn: Randn) -> None:
    z = randn(3, 4)
    try:
        seen = torch.func.jacfwd(torch.func.jacfwd(measure))(z)
    except NotImplementedError as error:
        assert "forward mode twice" in str(error)
    else:  # the reference of what is elementary
        close(seen, differences(torch.func.grad(measure), z))


def test_batch_of_windows(measure: Distance, randn: Randn) -> None:
    z, histories = randn(2, 3, 4), randn(2, 5, 4)
    right = torch.stack([measure(one, history) for one, history in zip(z, histories, strict=True)])
    slope = torch.stack([torch.func.grad(measure)(*each) for each in zip(z, histories, strict=True)])
    for function in (measure, torch.func.vmap(measure)):
        leaf = z.clone().requires_grad_()
        values = function(leaf, histories)
        close(values, right)
        close(torch.autograd.grad(values.sum(), leaf)[0], slope)
    close(torch.func.vmap(torch.func.grad(measure))(z, histories), slope)
    close(torch.func.vmap(measure, in_dims=(1, 0))(z.movedim(0, 1), histories), right)
    close(torch.func.vmap(measure, in_dims=(None, 0))(z[0], histories)[0], right[0])  # one z, several windows
    shared = torch.stack([measure(one) for one in z])
    for values in (measure(z), torch.func.vmap(measure)(z)):
        close(values, shared)


def test_gradient_of_a_batch(backend: str, distance: tuple[Distance, dict[str, Any]], randn: Randn) -> None:
    function, options = distance
    z, histories, prior = randn(2, 3, 4), randn(2, 5, 4), randn(2, 6, 4)
    each = [
        mk.gradient(function, *samples, measure=True, **options) for samples in zip(z, histories, prior, strict=True)
    ]
    slopes, values = (torch.stack(parts) for parts in zip(*each, strict=True))

    def transformed(*samples: Tensor) -> tuple[Tensor, Tensor | None]:
        return mk.gradient(function, *samples, measure=True, **options)

    for seen_slopes, seen_values in (
        mk.gradient(function, z, histories, prior, measure=True, **options),
        torch.func.vmap(transformed)(z, histories, prior),
    ):
        close(seen_slopes, slopes)
        close(seen_values, values)
    alone, nothing = mk.gradient(function, z, histories, prior, **options)
    close(alone, slopes)
    assert nothing is None
    close(mk.differentiable(function, z, histories, prior, **options), values)
    assert mk.explain(function, z, histories, prior, **options).backend == backend


def test_what_else_has_a_derivative_is_said(backend: str, randn: Randn) -> None:
    z, history = randn(3, 4), randn(5, 4)
    with pytest.raises(ValueError, match="history requires grad"):
        torch.func.grad(lambda history: mk.mmd(z, history))(history)
    along_history = lambda: torch.func.jvp(lambda history: mk.mmd(z, history), (history,), (history,))  # noqa: E731
    if backend == "reference":  # plain PyTorch has it
        right = differences(lambda history: mk.mmd(z, history), history)
        close(along_history()[1], (right * history).sum())
    else:
        with pytest.raises(ValueError, match="another sample has a tangent"):
            along_history()


@pytest.mark.parametrize(
    "shapes, message",
    [
        (([2, 3, 4], [3, 5, 4]), "history has shape .3, 5, 4.; it must have as many windows as current: 2"),
        (([3, 4], [2, 5, 4]), "history has shape .2, 5, 4.; it must be .rows, D. with D >= 1"),
        (([0, 3, 4], [5, 4]), "current has shape .0, 3, 4.; .* B >= 1"),
        (([2, 0, 4], [5, 4]), "current has shape .2, 0, 4.; it must have at least one row"),
        (([1, 2, 3, 4], [5, 4]), "current has shape .1, 2, 3, 4."),
    ],
)
def test_a_batch_that_is_none_is_refused(shapes: tuple[list[int], list[int]], message: str) -> None:
    current, history = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=message):
        mk.mmd(current, history)


def test_too_few_rows_in_each_window_of_a_batch() -> None:
    with pytest.raises(ValueError, match="it needs at least 2"):
        mk.mmd(torch.zeros(3, 1, 4))


@pytest.fixture
def window(randn: Randn) -> Iterator[mow.MovingWindow]:
    """A window over which what can be kept is kept."""
    window = mow.MovingWindow(128, 4)
    window.fill(randn(128, 4, dtype=torch.float32))
    yield window


@pytest.mark.parametrize("distance", [mow.MMD(), mow.CramerWold(), mow.SlicedWasserstein(keep=1000)], ids=repr)
def test_a_moving_window(distance: mow.MMD, window: mow.MovingWindow, randn: Randn) -> None:
    z = randn(2, 4, dtype=torch.float32).requires_grad_()
    for _ in range(3):  # what is kept begins with the second step
        (right,) = torch.autograd.grad(distance(z, window), z)
        window.push(z)
    (right,) = torch.autograd.grad(distance(z, window), z)
    z = z.detach()
    torch.testing.assert_close(torch.func.grad(lambda z: distance(z, window))(z), right)
    _, product = torch.func.jvp(lambda z: distance(z, window), (z,), (right,))
    torch.testing.assert_close(product, right.square().sum())
    values = torch.func.vmap(lambda z: distance(z, window))(torch.stack([z, -z]))
    torch.testing.assert_close(values, torch.stack([distance(z, window), distance(-z, window)]))
    window.push(z)  # what the transforms have left behind does not matter
    assert torch.equal(window.newest(2), z)


@pytest.mark.parametrize("function", [mk.mmd, pytest.param(mk.cramer_wold, marks=pytest.mark.long)])
def test_in_a_compiled_graph(backend: str, function: Distance, randn: Randn) -> None:
    """Of the eager backend: what is traced."""
    z, history = randn(3, 4), randn(5, 4)
    right, _ = mk.gradient(function, z, history)

    def compiled(transform: Callable[[Tensor], Tensor]) -> Tensor:
        torch.compiler.reset()
        return torch.compile(transform, fullgraph=True, backend="eager")(z)

    close(compiled(lambda z: torch.func.grad(lambda z: function(z, history))(z)), right)
    close(compiled(lambda z: mk.gradient(function, z, history)[0]), right)
    values = compiled(lambda z: torch.func.vmap(lambda z: function(z, history))(torch.stack([z, z])))
    close(values, function(z, history).expand(2))
