"""Learning rates that change over the steps: what a step takes, what is saved, what is refused."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

import mow
from mow import Trainer

PICTURES = torch.rand(50, 6, generator=torch.Generator().manual_seed(0))

SCHEDULERS: dict[str, Callable[[Optimizer], lr_scheduler.LRScheduler]] = {
    "cosine": lambda optimizer: mow.Cosine(optimizer, 40),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=50),
    "a user's": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step)),
}


def trainer_of(scheduler: Any = None, seed: int = 0, **options: Any) -> Trainer:
    torch.manual_seed(seed)
    return Trainer(
        nn.Linear(6, 2), nn.Linear(2, 6), mow.CramerWold(), mow.MovingWindow(5, 2), scheduler=scheduler, **options
    )


def rate(trainer: Trainer) -> float:
    return float(trainer.optimizer.param_groups[0]["lr"])


def weights(trainer: Trainer) -> list[list[float]]:
    return [each.tolist() for each in (*trainer.encoder.parameters(), *trainer.decoder.parameters())]


def test_a_step_takes_the_rate_of_its_place_on_the_curve() -> None:
    """Plain gradient descent is linear in the rate: the first two steps by hand."""
    plain = functools.partial(torch.optim.SGD, lr=0.1)
    trainer = trainer_of(functools.partial(mow.Cosine, steps=3), optimizer=plain)
    for share in (1.0, 0.75, 0.25, 0.0, 0.0):  # (1 + cos(pi t / 3)) / 2
        assert rate(trainer) == pytest.approx(0.1 * share, abs=1e-15)
        before = [each.detach().clone() for each in trainer.decoder.parameters()]
        trainer.step(PICTURES[:1])
        for was, now in zip(before, trainer.decoder.parameters(), strict=True):
            torch.testing.assert_close(now.detach(), was - 0.1 * share * now.grad, rtol=1e-5, atol=1e-7)


def test_groups_keep_their_proportion() -> None:
    def optimizer(parameters: Any) -> Optimizer:
        first, *others = parameters
        return torch.optim.SGD([{"params": [first], "lr": 1.0}, {"params": others, "lr": 0.2}])

    trainer = trainer_of(lambda optimizer: mow.Cosine(optimizer, 4), optimizer=optimizer)
    trainer.step(PICTURES[:1])
    share = (1 + math.cos(math.pi / 4)) / 2
    assert [group["lr"] for group in trainer.optimizer.param_groups] == pytest.approx([share, 0.2 * share])


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_loaded_trainer_goes_on_along_the_curve(scheduler: Any, tmp_path: Path) -> None:
    whole, first = trainer_of(scheduler), trainer_of(scheduler)
    whole.fit(PICTURES, 30)
    first.fit(PICTURES, 11)
    other = trainer_of(seed=1)
    taken_up = Trainer.load(
        first.save(tmp_path / "trainer.pt"), other.encoder, other.decoder, mow.CramerWold(), scheduler=scheduler
    )
    assert rate(taken_up) == rate(first) != rate(other)
    taken_up.fit(PICTURES, 30)
    assert rate(taken_up) == rate(whole) and weights(taken_up) == weights(whole)


def test_another_scheduler_is_refused(tmp_path: Path) -> None:
    path = trainer_of(SCHEDULERS["cosine"]).save(tmp_path / "trainer.pt")
    for scheduler, is_now in ((None, "None"), (SCHEDULERS["one cycle"], "OneCycleLR")):
        with pytest.raises(ValueError, match=f"scheduler is {is_now}; .* with Cosine"):
            Trainer.load(path, nn.Linear(6, 2), nn.Linear(2, 6), mow.CramerWold(), scheduler=scheduler)


def test_a_rate_in_a_tensor_changes_in_place() -> None:
    optimizer = torch.optim.Adam(nn.Linear(6, 2).parameters(), lr=torch.tensor(0.5))
    held, falling = optimizer.param_groups[0]["lr"], mow.Cosine(optimizer, 4)
    state = falling.state_dict()
    optimizer.step()
    falling.step()
    assert float(held) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)) / 2)
    falling.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] is held and float(held) == 0.5


@pytest.mark.parametrize(
    "scheduler, said",
    [
        (lambda optimizer: 0.1, "scheduler gives float; it must give a torch LRScheduler"),
        (lr_scheduler.ReduceLROnPlateau, "ReduceLROnPlateau, which waits for a score"),
        (lambda optimizer: mow.Cosine(optimizer, 0), "steps is 0; it must be >= 1"),
    ],
)
def test_what_is_refused(scheduler: Any, said: str) -> None:
    with pytest.raises((TypeError, ValueError), match=said):
        trainer_of(scheduler)
