"""Learning rates that change over the steps: PyTorch's schedulers, and one that falls to zero over a training."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from mow.checks import positive
from mow.naming import named


class Cosine(LRScheduler):
    """Learning rates that fall to zero along half a cosine: (1 + cos(pi t / steps)) / 2 of the first ones at step t.

        >>> falling = lambda optimizer: mow.Cosine(optimizer, steps=20)
        >>> trainer = mow.Trainer(encoder, decoder, mow.CramerWold(), window, scheduler=falling)

    How many steps there are is not part of its state: a training that is taken up with more of them goes on along the
    longer curve. After the last one the rates stay 0.

    Args:
        optimizer: whose groups have the first rates.
        steps: of the training, >= 1.

    Raises:
        TypeError, ValueError: steps is no positive integer.

    Source: Loshchilov and Hutter, "SGDR", 2017, equation (5), without restarts.
    """

    def __init__(self, optimizer: Optimizer, steps: int) -> None:
        self.steps = positive("steps", steps)
        super().__init__(optimizer)

    def __repr__(self) -> str:
        return named(self, steps=self.steps, steps_done=self.last_epoch)

    def get_lr(self) -> list[float | Tensor]:
        share = (1 + math.cos(math.pi * min(1.0, self.last_epoch / self.steps))) / 2
        return [rate * share for rate in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        return {name: value for name, value in super().state_dict().items() if name != "steps"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._last_lr = self.get_lr()
        set_rates(self.optimizer, self._last_lr)


def set_rates(optimizer: Optimizer, rates: list[float | Tensor]) -> None:
    """A learning rate for each group, in place where it is a tensor."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = float(rate)


def check(scheduler: object, *, cuda_graph: bool) -> None:
    """Whether a trainer can take a scheduler, which it steps after every step.

    Raises:
        TypeError: it is none of PyTorch's.
        ValueError: it needs more than a step to tell it, or the rates could not be changed within a CUDA graph.
    """
    if not isinstance(scheduler, LRScheduler):
        raise TypeError(f"scheduler gives {type(scheduler).__name__}; it must give a torch LRScheduler")
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ValueError("scheduler gives ReduceLROnPlateau, which waits for a score; step that one in a callback")
    if cuda_graph and not all(isinstance(group["lr"], Tensor) for group in scheduler.optimizer.param_groups):
        raise ValueError(
            "cuda_graph is True and there is a scheduler, but the optimizer's lr is a number, which a graph holds for "
            "ever; it must be a tensor on the window's device, e.g. torch.tensor(1e-4, device=...)"
        )
