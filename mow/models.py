"""Encoders and decoders, with the paper's initialisation: Glorot-uniform weights and zero biases."""

from __future__ import annotations

import math
from collections.abc import Sequence
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


def _layers(widths: Sequence[int]) -> list[nn.Module]:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        linear = nn.Linear(wide, narrow)
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return layers[:-1]
