"""`accumulate_coupled` over several inputs and several outputs."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mow


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.other, self.scale = nn.Linear(4, 3), nn.Linear(5, 3), nn.Parameter(torch.ones(()))
        self.double()

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return self.one(x), self.other(y)


def contrastive(z: Tensor, w: Tensor, *more: Tensor) -> Tensor:
    return nn.functional.cross_entropy(z @ w.T, torch.arange(len(z)))


def gradients(model: nn.Module) -> list[Tensor | None]:
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


X = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
Y = torch.randn(7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("form", [tuple, list])
@pytest.mark.parametrize("micro_batch", [1, 2, 3, 7, "auto"])
@pytest.mark.parametrize("with_separable", [False, True])
def test_two_towers_have_the_gradient_of_the_batch(form: Any, micro_batch: Any, with_separable: bool) -> None:
    model, whole = Towers(), Towers()

    def separable(z: Tensor, w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return ((z - w).square().sum(1) + x[:, 0] * y[:, 0] * z[:, 0]).mean()

    loss = contrastive(*whole(X, Y))
    if with_separable:
        loss = loss + separable(*whole(X, Y), X, Y)
    loss.backward()
    more = {"separable": separable} if with_separable else {}
    found = mow.accumulate_coupled(lambda x, y: form(model(x, y)), contrastive, X, Y, micro_batch=micro_batch, **more)
    torch.testing.assert_close(found, loss.detach())
    torch.testing.assert_close(gradients(model)[1:], gradients(whole)[1:])


def test_outputs_without_a_gradient_come_along() -> None:
    """Numbers of rows, and latents of a network that is not trained."""
    model, whole = Towers(), Towers()
    for towers in (model, whole):
        towers.other.requires_grad_(False)
    numbers = torch.arange(7)

    def loss_fn(z: Tensor, w: Tensor, i: Tensor) -> Tensor:
        return nn.functional.cross_entropy(z @ w.T, i)

    loss_fn(*whole(X, Y), numbers).backward()
    mow.accumulate_coupled(lambda x, y, i: (*model(x, y), i), loss_fn, X, Y, numbers, micro_batch=2)
    torch.testing.assert_close(gradients(model), gradients(whole))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (lambda z: {"z": z}, TypeError, "encode returned dict; it must return a tensor, or a tuple of tensors"),
        (lambda z: (z, 3), TypeError, "encode returned tuple with a int; it must"),
        (lambda z: (), TypeError, "encode returned tuple without any; it must"),
        (lambda z: (z, z[:1]), ValueError, r"encode returned shape \[1, 3\] for 2 rows"),
        (lambda z: (z.detach(), z.detach()), ValueError, "latents that require no grad"),
    ],
)
def test_what_is_no_output(given: Any, error: type[Exception], message: str) -> None:
    model = Towers()
    with pytest.raises(error, match=message):
        mow.accumulate_coupled(lambda x: given(model.one(x)), lambda *z: z[0].square().mean(), X, micro_batch=2)
    assert gradients(model) == [None] * 5
