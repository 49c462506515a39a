"""The optimisers that `mow train --optimizer` takes, and how `--schedule` changes their learning rate."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn, optim

from mow.training.schedules import Cosine

if TYPE_CHECKING:
    from mow.app.options import Options


def adam(parameters: Iterable[nn.Parameter], options: Options) -> optim.Optimizer:
    betas = options.beta1, options.beta2
    return optim.Adam(parameters, lr=_rate(options), betas=betas, fused=True, capturable=options.cuda_graph)


def sgd(parameters: Iterable[nn.Parameter], options: Options) -> optim.Optimizer:
    return optim.SGD(parameters, lr=_rate(options), fused=True)


OPTIMIZERS = {"adam": adam, "sgd": sgd}
"""The optimisers by name: from the parameters and a run's resolved options to one."""


def constant(options: Options) -> None:
    return None


def cosine(options: Options) -> Callable[[optim.Optimizer], optim.lr_scheduler.LRScheduler]:
    return functools.partial(Cosine, steps=options.steps)


SCHEDULES = {"constant": constant, "cosine": cosine}
"""The schedules by name: from a run's resolved options to the trainer's scheduler."""


def _rate(options: Options) -> float | Tensor:
    """The first learning rate; a tensor where a CUDA graph reads what changes between its replays."""
    assert options.lr is not None  # it is resolved
    if options.cuda_graph and options.schedule != "constant":
        return torch.tensor(options.lr, device=options.device)
    return options.lr
