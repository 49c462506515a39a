"""A weighting is a row of a table: its formulas, and that a row is all that a new one takes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from rehearsal import as_on_a_device
from torch import Tensor, nn

import mow
from mow import MovingWindow, ShuffledStream, Trainer
from mow.training.weighting import WEIGHTINGS, Weighting

WIDTH, DIM, N, K = 5, 2, 6, 3

TOY = Weighting(divisor=lambda k: k**0.5, scale=lambda n, k: (n / k) ** 0.5, root=False)
"""Half way between the paper's and the compensated one; tests/mow/test_distributed.py trains with it over two ranks."""


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(WEIGHTINGS, "toy", TOY)
    return "toy"


def trainer_of(**options: Any) -> Trainer:
    torch.manual_seed(0)
    encoder, decoder = nn.Linear(WIDTH, DIM).double(), nn.Linear(DIM, WIDTH).double()
    window = MovingWindow(N, DIM, dtype=torch.float64)
    adam = {"optimizer": lambda parameters: torch.optim.Adam(parameters, lr=0.01, fused=True, capturable=True)}
    return Trainer(encoder, decoder, mow.CramerWold(), window, k=K, **{**adam, **options})


def pictures(count: int = 40) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("name", WEIGHTINGS)
def test_the_slope_is_the_derivative(name: str, root: bool) -> None:
    """Of R for every error, with k the elements of all processes and R over them."""
    errors = pictures(K).square().sum(1).requires_grad_()
    row = WEIGHTINGS[name]
    reconstruction = row.reconstruction(errors.sum(), K, root)
    (expected,) = torch.autograd.grad(reconstruction, errors)
    share = errors.detach()[:2]
    got = row.slope(share, reconstruction.detach(), K, root)
    torch.testing.assert_close(got, expected[:2], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", [name for name, row in WEIGHTINGS.items() if row.root])
def test_the_root_of_no_error_has_no_slope_to_speak_of(name: str) -> None:
    """Errors of 0 have gradients of 0 behind them, which an infinite slope would make NaN."""
    row, errors = WEIGHTINGS[name], torch.zeros(2)
    slope = row.slope(errors, row.reconstruction(errors.sum(), 2, True), 2, True)
    assert slope.isfinite().all() and slope.mul(0).eq(0).all()


def test_a_row_is_all_that_it_takes(toy: str) -> None:
    trainer = trainer_of(weighting=toy, weight=1.7)
    trainer.window.fill(torch.ones(N, DIM, dtype=torch.float64))
    encoder, decoder = copy.deepcopy(trainer.encoder), copy.deepcopy(trainer.decoder)
    history, x = trainer.window.history(K), pictures(K)
    result = trainer.step(x)
    z = encoder(x)
    distance = mow.CramerWold()(z, history)
    loss = (decoder(z) - x).square().sum() / K**0.5 + 1.7 * (N / K) ** 0.5 * distance
    loss.backward()
    torch.testing.assert_close(result["loss"], loss.detach(), rtol=1e-12, atol=0)
    for module, other in ((trainer.encoder, encoder), (trainer.decoder, decoder)):
        for got, expected in zip(module.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(got.grad, expected.grad, rtol=1e-12, atol=1e-14)


def test_a_row_in_a_graph(toy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_device(monkeypatch)
    eager, graphed = (trainer_of(weighting=toy, cuda_graph=graph) for graph in (False, True))
    for trainer in (eager, graphed):
        trainer.fit(ShuffledStream(pictures(), seed=3), 20)
    assert graphed.graph is not None and graphed.graph._capture.replayed > 10
    torch.testing.assert_close(graphed.encoder.state_dict(), eager.encoder.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(graphed.decoder.state_dict(), eager.decoder.state_dict(), rtol=0, atol=0)


def test_a_row_without_a_root(toy: str) -> None:
    with pytest.raises(ValueError, match="root is True and weighting 'toy'.*use 'reference' or 'compensated'"):
        trainer_of(weighting=toy, root=True)


def test_a_name_without_a_row() -> None:
    with pytest.raises(ValueError, match="weighting is 'toy'; it must be one of 'reference', 'paper', 'compensated'"):
        trainer_of(weighting="toy")
