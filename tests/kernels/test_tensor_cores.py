"""Distances by tensor cores, emulated by studies/cuda/tensor_cores.py: within the bounds of the float32 kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from adversaries import ADVERSARIES
from bounds import CRAMER_WOLD, SWEEP, UNBIASED, check_pairs, draw, usable
from torch import Tensor

from mow_kernels.reference import sums
from mow_kernels.reference.mmd import KERNELS
from mow_kernels.registry import OPS, TABLE
from studies.cuda import tensor_cores
from studies.cuda.tensor_cores import COARSEST, GENERATIONS, Accumulator

BOTH = [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0])]


class _SquaredDistances(torch.autograd.Function):
    """The gradient is taken by differences, as the kernels do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, centre: Tensor, accumulator: Accumulator) -> Tensor:
        ctx.save_for_backward(x, y)
        return tensor_cores.squared_distances(x.detach(), y.detach(), centre, accumulator)[0]

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, y = ctx.saved_tensors
        pulls = 2 * g[:, :, None] * (x[:, None] - y)
        return pulls.sum(1), -pulls.sum(0), None, None


def emulated(op: str, accumulator: Accumulator) -> Callable[..., Tensor]:
    """The reference, but for its squared distances."""

    def distance(current: Tensor, history: Tensor, prior: Tensor | None, **options: Any) -> Tensor:
        centre = tensor_cores.centre_of(torch.cat([history, current.detach()]))

        def squared_distances(x: Tensor, y: Tensor) -> Tensor:
            return _SquaredDistances.apply(x, y, centre, accumulator)

        with pytest.MonkeyPatch.context() as patch:
            for function in (sums.sum_between, sums.sum_within, sums.sum_window):
                patch.setattr(function, "__defaults__", (squared_distances,))
            for name, kernel in KERNELS.items():
                if kernel.argument is sums.squared_distances:
                    patch.setitem(KERNELS, name, kernel._replace(argument=squared_distances))
            return OPS[op].reference(current, history, prior, **options)

    return distance


def check(
    op: str, options: dict, window: Tensor, k: int, prior: Tensor | None, accumulator: Accumulator = COARSEST
) -> None:
    """A window and a prior in float64 by `bounds.check_pairs`, whose backend here is the emulation."""
    n = len(window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TABLE[op], "emulated", type("", (), {"run": staticmethod(emulated(op, accumulator))}))
        check_pairs("emulated", op, options, window[n - k :], window[: n - k], prior)


@pytest.mark.parametrize("op, options", [each for each in SWEEP if each.values[1].get("kernel") != "polynomial"])
def test_value_and_gradient(op: str, options: dict) -> None:
    for n, k, m, dim in ((2, 1, 2, 513), (40, 9, 33, 20), (70, 1, 50, 64)):
        if usable(op, options, min(n, m), dim):
            check(op, options, draw(n, dim, 0) * 1.1, k, draw(m, dim, 1))


@pytest.mark.parametrize("spoil", ADVERSARIES)
@pytest.mark.parametrize("op, options", BOTH)
def test_adversaries(op: str, options: dict, spoil: Callable[[Tensor, Tensor], None]) -> None:
    window, prior = draw(40, 48, 3), draw(30, 48, 4)
    spoil(window, prior)
    check(op, options, window, 9, prior)


@pytest.mark.parametrize("magnitude, shift", [(1, 0), (1e-12, 0), (1e12, 0), (1, 1e3)])
@pytest.mark.parametrize("generation", GENERATIONS)
def test_the_error_is_that_of_differences(generation: str, magnitude: float, shift: float) -> None:
    """Of a squared distance at D = 64: the root of the mean square is within a fifth, and hardly any of it is bias."""
    x, y = ((draw(100, 64, seed) * magnitude + shift).float() for seed in (5, 6))
    truth = (x.double()[:, None] - y.double()).square().sum(2)
    r, again = tensor_cores.squared_distances(x, y, tensor_cores.centre_of(x), GENERATIONS[generation])
    error = r / truth - 1
    assert not again.any()
    assert error.square().mean() <= (1.2 * 5e-8) ** 2
    assert error.mean().abs() < 1e-8 and error.abs().max() < 4e-7


def test_the_instruction() -> None:
    """What lies below the last place of the largest term is cut off, before the terms are added up and after."""
    one, small = np.array([[1.0]]), np.full((1, 3), 1.2 * 2.0**-12)
    for name, above, below in (("sm_70", 1.0, -1.0), ("sm_80", 1 + 2.0**-23, 2.0**-24 - 1)):
        assert tensor_cores.mma(small, small, one, GENERATIONS[name]) == above  # each is 0.72 of the last place
        assert tensor_cores.mma(small[:, :1], small[:, :1], -one, GENERATIONS[name]) == below
    ones = np.ones((1, 16))
    large = np.array([[2.0**24]])
    for name, total in (("sm_70", 0), ("sm_80", 16), ("sm_90", 16)):  # ones below its last place, which is 2
        assert tensor_cores.mma(ones, ones, large, GENERATIONS[name]) == large + total
