"""What follows the pieces of a batch also follows them when memory runs out, and a state is taken over whole."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mow
from mow.neighbours.gan import GANTrainer
from mow.neighbours.micro_batch import _Work


@pytest.fixture(autouse=True)
def no_limits() -> Any:
    _Work.limits.clear()
    yield
    _Work.limits.clear()


def noise(micro_batch: Any, told: int | None, *, fails_above: int = 99, after: int = 0) -> tuple[float, float]:
    torch.manual_seed(0)
    model, x = nn.Linear(3, 1), torch.randn(12, 3)
    scale = mow.GradientNoiseScale(model.parameters())
    other = mow.GradientNoiseScale(nn.Linear(2, 2).parameters())
    calls = [0]

    def loss(x: Tensor) -> Tensor:
        calls[0] += 1
        if len(x) > fails_above and calls[0] > after:
            raise torch.OutOfMemoryError("no more")
        return model(x).square().mean()

    mow.accumulate(loss, x, micro_batch=micro_batch)
    scale.update(rows=12, micro_batch=told)
    assert other._sizes == []
    return scale.noise, scale.gradient_square


@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("told", [4, None])
def test_the_noise_scale_is_told_of_smaller_pieces(after: int, told: int | None) -> None:
    """Passes of pieces that were given up do not count."""
    assert noise(4, told, fails_above=2, after=after) == noise(2, 2)


def test_pieces_that_nobody_gave_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mow.neighbours.micro_batch._free_memory", lambda device: 0)
    expected = noise(3, None)
    monkeypatch.setattr(_Work, "_fitting", lambda self, forward: 3)
    assert noise("auto", None) == expected


def test_pieces_of_a_loop_of_ones_own_are_not_told() -> None:
    model = nn.Linear(3, 1)
    scale = mow.GradientNoiseScale(model.parameters())
    for piece in torch.randn(12, 3).split(4):
        (model(piece).mean() / 3).backward()
    with pytest.raises(ValueError, match="micro_batch is None and mow.accumulate has not told"):
        scale.update(rows=12)


def test_a_gan_keeps_its_count_of_skipped_steps() -> None:
    training, other = (GANTrainer(nn.Linear(2, 2), nn.Linear(2, 1), 2, on_nonfinite="skip") for _ in range(2))
    training.step(torch.full((3, 2), torch.nan))
    other.load_state_dict(copy.deepcopy(training.state_dict()))
    assert other.steps_skipped == 1
