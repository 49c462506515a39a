"""The auto-encoders of the paper (appendix A), by the name of the data set that each was made for, and a small one.

    encoder, decoder = ARCHITECTURES["celeba"].build()                             # as in the paper
    encoder, decoder = ARCHITECTURES["ffhq"].build(shape=(3, 256, 256), dim=32)    # the same layers, for other pictures

Pictures are in [0, 1], as the paper has them. Two of its decoders end in tanh all the same, whose range is (-1, 1). We
keep that: the lower half goes unused, a value below 0 counts in the error as it is and is drawn as black. A tanh scaled
to (0, 1) would be another network (a sigmoid, with black where it is flat instead of where it is steepest).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from mow.app.models import conv_decoder, conv_encoder, glorot, mlp_decoder, mlp_encoder


@dataclass(frozen=True)
class Architecture:
    """An encoder and a decoder, from a picture's shape [C, H, W] and the latent width D.

        >>> from mow.app.architectures import ARCHITECTURES
        >>> encoder, decoder = ARCHITECTURES["small"].build((3, 64, 64), 32)
        >>> encoder(torch.rand(2, 3, 64, 64)).shape
        torch.Size([2, 32])

    shape, dim: what they were made for; `shape` is None where that is any picture.
    encoder: makes a module from pictures [k, C, H, W] to latents [k, D].
    decoder: makes a module from latents [k, D] to pictures [k, C, H, W].
    """

    shape: tuple[int, int, int] | None
    dim: int
    encoder: Callable[[Sequence[int], int], nn.Module]
    decoder: Callable[[Sequence[int], int], nn.Module]

    def build(self, shape: Sequence[int] | None = None, dim: int | None = None) -> tuple[nn.Module, nn.Module]:
        """The encoder and the decoder, with fresh weights.

        Raises:
            ValueError: no shape where the architecture has none of its own; one that it cannot take.
        """
        shape, dim = self.shape if shape is None else shape, self.dim if dim is None else dim
        if shape is None:
            raise ValueError("shape is None; this architecture is for any picture: give its [C, H, W]")
        return self.encoder(shape, dim), self.decoder(shape, dim)


def cifar_decoder(shape: Sequence[int], dim: int) -> nn.Sequential:
    """The decoder for CIFAR-10: D-128-8192, 16x16x32, two transposed 2x2 convolutions, one of 3x3 to 33x33, a 2x2."""
    channels, height, width = shape
    halves = -(-height // 2), -(-width // 2)
    return nn.Sequential(
        *conv_decoder((32, *halves), dim, kernel=2, strides=(1, 1), channels=(32, 32), hidden=(128,), last=nn.ReLU),
        glorot(nn.ConvTranspose2d(32, 32, 3, stride=2)),
        nn.ReLU(inplace=True),
        glorot(nn.Conv2d(32, channels, 2)),
        *([nn.ZeroPad2d((0, -(width % 2), 0, -(height % 2)))] if height % 2 or width % 2 else []),
        nn.Sigmoid(),
    )


def small_encoder(shape: Sequence[int], dim: int) -> nn.Sequential:
    """4x4 convolutions with stride 2 (32, 64, 128, 256, 256, ... channels) down to 4 x 4 or less, then D."""
    channels = _small_channels(shape)
    return conv_encoder(shape, dim, kernel=4, strides=[2] * len(channels), channels=channels)


def small_decoder(shape: Sequence[int], dim: int) -> nn.Sequential:
    """`small_encoder` the other way round, with a sigmoid at the end."""
    channels = _small_channels(shape)[::-1]
    return conv_decoder(shape, dim, kernel=4, strides=[2] * len(channels), channels=channels, last=nn.Sigmoid)


def _small_channels(shape: Sequence[int]) -> list[int]:
    halvings = max(1, math.ceil(math.log2(max(shape[1:]) / 4)))
    return [min(32 * 2**i, 256) for i in range(halvings)]


ARCHITECTURES = {
    "mnist": Architecture((1, 28, 28), 20, mlp_encoder, mlp_decoder),
    "fashion-mnist": Architecture(
        (1, 28, 28),
        8,
        partial(conv_encoder, kernel=4, strides=(2, 2, 2, 2), channels=(128, 256, 512, 1024)),
        partial(conv_decoder, kernel=4, strides=(2, 2, 1), channels=(1024, 512, 256), last=nn.Tanh),
    ),
    "cifar-10": Architecture(
        (3, 32, 32),
        64,
        partial(conv_encoder, kernel=2, strides=(1, 2, 1, 1), channels=(3, 32, 32, 32), hidden=(128,), same=False),
        cifar_decoder,
    ),
    "celeba": Architecture(
        (3, 64, 64),
        32,
        partial(conv_encoder, kernel=4, strides=(2, 2, 2, 2), channels=(32, 32, 64, 64), hidden=(1024, 256)),
        partial(
            conv_decoder, kernel=4, strides=(2, 2, 2, 2), channels=(64, 64, 32, 32), hidden=(256,), last=nn.Sigmoid
        ),
    ),
    "ffhq": Architecture(
        (3, 1024, 1024),
        64,
        partial(conv_encoder, kernel=5, strides=(4, 4, 4, 4), channels=(128, 256, 512, 1024)),
        partial(conv_decoder, kernel=5, strides=(4, 4, 4, 1), channels=(1024, 512, 256, 128), last=nn.Tanh),
    ),
    "small": Architecture(None, 32, small_encoder, small_decoder),
}
"""The paper's five and `small`. docs/options.md has their layers side by side."""
