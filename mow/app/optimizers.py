"""The optimisers that `mow train --optimizer` takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn, optim

if TYPE_CHECKING:
    from mow.app.options import Options


def adam(parameters: Iterable[nn.Parameter], options: Options) -> optim.Optimizer:
    assert options.lr is not None  # it is resolved
    betas = options.beta1, options.beta2
    return optim.Adam(parameters, lr=options.lr, betas=betas, fused=True, capturable=options.cuda_graph)


def sgd(parameters: Iterable[nn.Parameter], options: Options) -> optim.Optimizer:
    assert options.lr is not None  # it is resolved
    return optim.SGD(parameters, lr=options.lr, fused=True)


OPTIMIZERS = {"adam": adam, "sgd": sgd}
"""The optimisers by name: from the parameters and a run's resolved options to one."""
