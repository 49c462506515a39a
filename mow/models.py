"""Encoders and decoders, with the paper's initialisation: Glorot-uniform weights and zero biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

HIDDEN = (200, 200, 200)


def mlp_encoder(shape: Sequence[int], dim: int) -> nn.Sequential:
    """The paper's MNIST encoder for pictures of any shape [C, H, W]: CHW-200-200-200-dim with ReLU."""
    return nn.Sequential(nn.Flatten(), *_layers((math.prod(shape), *HIDDEN, dim)))


def mlp_decoder(shape: Sequence[int], dim: int) -> nn.Sequential:
    """The paper's MNIST decoder for pictures of any shape [C, H, W]: dim-200-200-200-CHW with ReLU, last a sigmoid."""
    layers = _layers((dim, *HIDDEN, math.prod(shape)))
    return nn.Sequential(*layers, nn.Sigmoid(), nn.Unflatten(1, tuple(shape)))


def mlp(*widths: int, activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these widths with the activation between them: [k, widths[0]] -> [k, widths[-1]]."""
    return nn.Sequential(*_layers(widths, activation))


def _layers(widths: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        linear = nn.Linear(wide, narrow)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, activation()]
    return layers[:-1]
