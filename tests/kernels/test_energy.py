"""The energy kernel of `mk.mmd`, and everything around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import pytest
import torch
from scipy.spatial.distance import cdist
from torch import Tensor, nn

import mow
import mow_kernels as mk

Randn = Callable[..., Tensor]


@pytest.mark.parametrize("estimator", ["biased", "unbiased"])
@pytest.mark.parametrize("n, m, dim", [(5, 7, 3), (2, 2, 1), (40, 3, 20)])
def test_two_samples(n: int, m: int, dim: int, estimator: str, randn: Randn) -> None:
    z, v = randn(n, dim), randn(m, dim)

    def mean_within(x: Tensor) -> float:
        return cdist(x, x).sum() / (len(x) ** 2 if estimator == "biased" else len(x) * (len(x) - 1))

    expected = 2 * cdist(z, v).mean() - mean_within(z) - mean_within(v)
    value = mk.mmd(z[1:], z[:1], v, kernel="energy", estimator=estimator)
    assert float(value) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3, 20, 512])
@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0])
def test_to_the_normal_prior(dim: int, scale: float, randn: Randn) -> None:
    z = scale * randn(2, dim)
    mean = mpmath.sqrt(2) * mpmath.gamma(mpmath.mpf(dim + 1) / 2) / mpmath.gamma(mpmath.mpf(dim) / 2)
    to_prior = sum(mean * mpmath.hyp1f1(-0.5, mpmath.mpf(dim) / 2, -float(row.square().sum()) / 2) for row in z) / 2
    expected = 2 * to_prior - float((z[0] - z[1]).norm()) - mpmath.sqrt(2) * mean
    assert float(mk.mmd(z, kernel="energy")) == pytest.approx(float(expected), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("prior", ["normal", "sample"])
def test_its_gradient(prior: str, randn: Randn) -> None:
    z, history, sample = randn(3, 4).requires_grad_(), randn(4, 4), randn(5, 4)

    def energy(current: Tensor) -> Tensor:
        return mk.mmd(current, history, "normal" if prior == "normal" else sample, kernel="energy")

    assert torch.autograd.gradcheck(energy, z) and torch.autograd.gradgradcheck(energy, z)
    (expected,) = torch.autograd.grad(energy(z), z)
    g_z, value = mk.gradient(
        mk.mmd, z, history, "normal" if prior == "normal" else sample, kernel="energy", measure=True
    )
    assert torch.equal(g_z, expected) and value == energy(z)


def test_no_gradient_between_rows_that_coincide(randn: Randn) -> None:
    z = randn(1, 3).expand(4, -1).clone().requires_grad_()
    (g_z,) = torch.autograd.grad(mk.mmd(z, z.detach(), kernel="energy"), z)
    assert torch.isfinite(g_z).all()
    (g_z,) = torch.autograd.grad(mk.mmd(z, z.detach(), z.detach(), kernel="energy"), z)
    assert torch.equal(g_z, torch.zeros_like(g_z))


@pytest.mark.parametrize("scales, kernel", [((1.0,), "energy"), ((), "imq")])
def test_scales_that_do_not_go_with_the_kernel(scales: Any, kernel: str, randn: Randn) -> None:
    with pytest.raises(ValueError, match="scales is"):
        mk.mmd(randn(4, 2), kernel=kernel, scales=scales)


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_it_trains(prior: str) -> None:
    torch.manual_seed(0)
    encoder, decoder, window = nn.Linear(6, 2), nn.Linear(2, 6), mow.MovingWindow(32, 2)
    trainer = mow.Trainer(
        encoder,
        decoder,
        mow.MMD(prior, kernel="energy"),
        window,
        k=2,
        weight=1000,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=0.002),
    )
    first, *_, last = (float(step["distance"]) for step in trainer.run(5 + torch.randn(300, 6), 600))
    assert last < first / 4
