"""The updates of PyTorch's optimisers as functions of tensors, for the graph of a step."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer


@dataclass(frozen=True)
class SGDRule:
    """The update of `torch.optim.SGD`."""

    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool

    counts: ClassVar[bool] = False
    """Whether the update depends on how many there were, which the optimiser keeps as "step"."""

    @property
    def reads(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

    def factors(self, group: Mapping[str, Any], steps: float) -> tuple[float, ...]:
        return (-float(group["lr"]),)

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
        if self.maximize:
            g = -g
        if self.weight_decay:
            g = g + self.weight_decay * p
        if not self.momentum:
            return [p + factors[0] * g]
        buffer = self.momentum * state[0] + (1 - self.dampening) * g
        return [p + factors[0] * (g + self.momentum * buffer if self.nesterov else buffer), buffer]


@dataclass(frozen=True)
class AdamRule:
    """The update of `torch.optim.Adam`, and with decoupled weight decay of `AdamW`."""

    betas: tuple[float, float]
    eps: float
    weight_decay: float
    amsgrad: bool
    maximize: bool
    decoupled_weight_decay: bool

    counts: ClassVar[bool] = True

    @property
    def reads(self) -> tuple[str, ...]:
        return "exp_avg", "exp_avg_sq", *["max_exp_avg_sq"] * self.amsgrad

    def factors(self, group: Mapping[str, Any], steps: float) -> tuple[float, ...]:
        """Both bias corrections, by which no element has to be divided then, and the decay."""
        (beta1, beta2), lr = self.betas, float(group["lr"])
        decay = 1 - lr * self.weight_decay
        return -lr / (1 - beta1 ** (steps + 1)), (1 - beta2 ** (steps + 1)) ** -0.5, decay

    def update(self, p: Tensor, g: Tensor, state: Sequence[Tensor], factors: Sequence[Tensor]) -> list[Tensor]:
        size, correction, decay = factors
        if self.maximize:
            g = -g
        if self.weight_decay:
            p, g = (p * decay, g) if self.decoupled_weight_decay else (p, g + self.weight_decay * p)
        mean, square, *most = state
        mean = mean + (1 - self.betas[0]) * (g - mean)
        square = self.betas[1] * square + (1 - self.betas[1]) * g * g
        most = [torch.maximum(each, square) for each in most]
        return [p + size * (mean / ((most or [square])[0].sqrt() * correction + self.eps)), mean, square, *most]


Rule = SGDRule | AdamRule
RULES: dict[type[Optimizer], type[SGDRule] | type[AdamRule]] = {SGD: SGDRule, Adam: AdamRule, AdamW: AdamRule}
"""Of other optimisers, and of their subclasses, the graph gives the gradients and `step()` does the rest."""


def rules_of(optimizer: Optimizer) -> list[Rule] | None:
    """The rule of each of its groups; None where only its `step()` knows what it does."""
    kind = RULES.get(type(optimizer))
    hooked = optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks
    if kind is None or hooked or any(group["differentiable"] for group in optimizer.param_groups):
        return None
    names = [field.name for field in dataclasses.fields(kind)]
    return [kind(**{name: group[name] for name in names}) for group in optimizer.param_groups]
