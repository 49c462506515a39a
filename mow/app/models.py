"""What encoders and decoders are built of, with the paper's initialisation: Glorot-uniform weights and zero biases."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TypeVar

from torch import nn

HIDDEN = (200, 200, 200)

_Layer = TypeVar("_Layer", bound=nn.Linear | nn.Conv2d | nn.ConvTranspose2d)


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


def conv_encoder(
    shape: Sequence[int],
    dim: int,
    *,
    kernel: int,
    strides: Sequence[int],
    channels: Sequence[int],
    hidden: Sequence[int] = (),
    same: bool = True,
) -> nn.Sequential:
    """Convolutions, then linear layers: pictures [k, *shape] -> latents [k, dim], ReLU between.

    Args:
        shape: of a picture [C, H, W].
        dim: latent width.
        kernel: of every convolution.
        strides: of each of them.
        channels: that each of them gives.
        hidden: widths of the linear layers before the last.
        same: with SAME padding, by which a convolution makes ceil(H / stride) of any H; else without padding.

    Raises:
        ValueError: without padding nothing is left of so small a picture.
    """
    layers: list[nn.Module] = []
    into, *sides = shape
    for out, stride in zip(channels, strides, strict=True):
        pad, convolution = _convolution(nn.Conv2d, into, out, sides, kernel, stride, same)
        # Zeros stay zeros under ReLU. Padded before it, the backward pass keeps one copy of its output, not two.
        layers += [*pad, *([_relu()] if layers else []), convolution]
        into, sides = out, [-(-side // stride) if same else (side - kernel) // stride + 1 for side in sides]
        if min(sides) < 1:
            raise ValueError(f"pictures of shape {list(shape)} are too small: a convolution leaves {sides} of them")
    return nn.Sequential(*layers, _relu(), nn.Flatten(), *_layers((into * math.prod(sides), *hidden, dim)))


def conv_decoder(
    shape: Sequence[int],
    dim: int,
    *,
    kernel: int,
    strides: Sequence[int],
    channels: Sequence[int],
    hidden: Sequence[int] = (),
    last: Callable[[], nn.Module],
) -> nn.Sequential:
    """Linear layers, then transposed convolutions with SAME padding: latents [k, dim] -> pictures [k, *shape].

    The inverse in shape of convolutions with these strides in reverse order, for pictures of any size. ReLU between.

    Args:
        shape: of a picture [C, H, W].
        dim: latent width.
        kernel: of every transposed convolution.
        strides: of each of them.
        channels: that each of them takes; the last gives C.
        hidden: widths of the linear layers before the one that makes the first channels.
        last: makes the activation at the end.
    """
    sizes = [list(shape[1:])]
    for stride in reversed(strides):
        sizes.append([-(-side // stride) for side in sizes[-1]])
    smallest, *larger = reversed(sizes)
    first = (channels[0], *smallest)
    layers = [*_layers((dim, *hidden, math.prod(first))), _relu(), nn.Unflatten(1, first)]
    for (into, out), sides, stride in zip(pairwise((*channels, shape[0])), larger, strides, strict=True):
        pad, convolution = _convolution(nn.ConvTranspose2d, into, out, sides, kernel, stride)
        layers += [convolution, *pad, _relu()]
    return nn.Sequential(*layers[:-1], last())


def glorot(layer: _Layer) -> _Layer:
    """The layer with Glorot-uniform weights and zero biases."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def _convolution(
    kind: type[nn.Conv2d] | type[nn.ConvTranspose2d],
    into: int,
    out: int,
    sides: Sequence[int],
    kernel: int,
    stride: int,
    same: bool = True,
) -> tuple[list[nn.Module], nn.Module]:
    """A convolution of pictures with these sides, or the transpose of one, which gives such pictures; and its pad.

    SAME is TensorFlow's, which the paper's code has: as many zeros on both ends, one more at the lower and right end
    where their number is odd. PyTorch pads evenly, so that one is a layer of its own: it goes before the convolution,
    or cuts off after the transpose.
    """
    down, across = (max((-(-side // stride) - 1) * stride + kernel - side, 0) if same else 0 for side in sides)
    convolution: nn.Module = glorot(kind(into, out, kernel, stride, padding=(down // 2, across // 2)))
    below, right = (zeros % 2 if kind is nn.Conv2d else -(zeros % 2) for zeros in (down, across))
    return [nn.ZeroPad2d((0, right, 0, below))] if below or right else [], convolution


def _relu() -> nn.Module:
    return nn.ReLU(inplace=True)  # no layer before it needs its own output for the backward pass


def _layers(widths: Sequence[int], activation: Callable[[], nn.Module] = nn.ReLU) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [glorot(nn.Linear(wide, narrow)), activation()]
    return layers[:-1]
