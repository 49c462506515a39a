"""The paper's architectures at their real sizes, and `small` at any."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mow.app.architectures import ARCHITECTURES
from mow.app.models import conv_decoder, conv_encoder
from studies.high_resolution.kept import kept_bytes

PAPER = {name: architecture for name, architecture in ARCHITECTURES.items() if architecture.shape}


def linear(*widths: int) -> int:
    """Weights and biases of linear layers."""
    return sum(a * b + b for a, b in zip(widths, widths[1:], strict=False))


def conv(kernel: int, *channels: int) -> int:
    """Weights and biases of convolutions, transposed or not."""
    return sum(kernel**2 * a * b for a, b in zip(channels, channels[1:], strict=False)) + sum(channels[1:])


COUNTS = {
    "mnist": (linear(784, 200, 200, 200, 20), linear(20, 200, 200, 200, 784)),
    "fashion-mnist": (
        conv(4, 1, 128, 256, 512, 1024) + linear(4096, 8),
        linear(8, 7 * 7 * 1024) + conv(4, 1024, 512, 256, 1),
    ),
    "cifar-10": (
        conv(2, 3, 3, 32, 32, 32) + linear(5408, 128, 64),
        linear(64, 128, 8192) + conv(2, 32, 32, 32) + conv(3, 32, 32) + conv(2, 32, 3),
    ),
    "celeba": (
        conv(4, 3, 32, 32, 64, 64) + linear(1024, 1024, 256, 32),
        linear(32, 256, 1024) + conv(4, 64, 64, 32, 32, 3),
    ),
    "ffhq": (
        conv(5, 3, 128, 256, 512, 1024) + linear(16384, 64),
        linear(64, 16 * 16 * 1024) + conv(5, 1024, 512, 256, 128, 3),
    ),
}
"""Of the encoder and the decoder, by hand from the paper's list of layers."""

ENCODED = {
    "mnist": [200, 200, 200, 20],
    "fashion-mnist": [(128, 14), (256, 7), (512, 4), (1024, 2), 8],
    "cifar-10": [(3, 31), (32, 15), (32, 14), (32, 13), 128, 64],
    "celeba": [(32, 32), (32, 16), (64, 8), (64, 4), 1024, 256, 32],
    "ffhq": [(128, 256), (256, 64), (512, 16), (1024, 4), 64],
}
"""What each layer of the encoder gives: features, or channels and the side."""

DECODED = {
    "mnist": [200, 200, 200],
    "fashion-mnist": [50176, (512, 14), (256, 28)],
    "cifar-10": [128, 8192, (32, 16), (32, 16), (32, 33)],
    "celeba": [256, 1024, (64, 8), (32, 16), (32, 32)],
    "ffhq": [262144, (512, 64), (256, 256), (128, 1024)],
}
"""What each layer of the decoder but the last gives, after ReLU."""

LAST = {"mnist": nn.Sigmoid, "fashion-mnist": nn.Tanh, "cifar-10": nn.Sigmoid, "celeba": nn.Sigmoid, "ffhq": nn.Tanh}


def given(network: nn.Module, x: Tensor, *kinds: type[nn.Module]) -> list[int | tuple[int, int]]:
    """The features, or channels and side, that the layers of these kinds give on the way."""
    found: list[int | tuple[int, int]] = []
    for layer in network:
        x = layer(x)
        if isinstance(layer, kinds):
            found.append(x.shape[1] if x.ndim == 2 else (x.shape[1], x.shape[-1]))
    return found


def test_the_table_has_the_papers_five_and_the_small_one() -> None:
    assert list(ARCHITECTURES) == ["mnist", "fashion-mnist", "cifar-10", "celeba", "ffhq", "small"]
    dims = {name: architecture.dim for name, architecture in ARCHITECTURES.items()}
    assert dims == {"mnist": 20, "fashion-mnist": 8, "cifar-10": 64, "celeba": 32, "ffhq": 64, "small": 32}


@pytest.mark.parametrize("name", [pytest.param(x, marks=pytest.mark.long) if x == "ffhq" else x for x in PAPER])
def test_forward_and_backward_at_the_real_size(name: str) -> None:
    architecture = ARCHITECTURES[name]
    torch.manual_seed(0)
    encoder, decoder = architecture.build()
    x = torch.rand(1, *architecture.shape)
    z = encoder(x)
    decoded = decoder(z)
    assert z.shape == (1, architecture.dim) and decoded.shape == x.shape
    (decoded - x).square().sum().backward()
    for parameter in (*encoder.parameters(), *decoder.parameters()):
        assert parameter.grad.isfinite().all() and parameter.grad.any()


@pytest.mark.parametrize("name", PAPER)
def test_the_layers_are_the_papers(name: str) -> None:
    architecture = ARCHITECTURES[name]
    with torch.device("meta"):
        encoder, decoder = architecture.build()
        x, z = torch.empty(1, *architecture.shape), torch.empty(1, architecture.dim)
    assert tuple(sum(p.numel() for p in network.parameters()) for network in (encoder, decoder)) == COUNTS[name]
    assert given(encoder, x, nn.Linear, nn.Conv2d) == ENCODED[name]
    assert given(decoder, z, nn.ReLU) == DECODED[name]
    bare = [type(layer) for layer in decoder if not list(layer.parameters()) and not isinstance(layer, nn.ZeroPad2d)]
    assert LAST[name] in bare[-2:] and set(bare) - {nn.ReLU, nn.Unflatten} == {LAST[name]}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_weights_are_glorot_uniform_and_biases_zero(name: str) -> None:
    torch.manual_seed(0)
    shape = (3, 64, 64) if name == "ffhq" else ARCHITECTURES[name].shape or (3, 20, 30)
    for network in ARCHITECTURES[name].build(shape):
        for layer in network.modules():
            if not hasattr(layer, "weight"):
                continue
            assert not layer.bias.any()
            kernel = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
            bound = math.sqrt(6 / (kernel * sum(layer.weight.shape[:2])))
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            if layer.weight.numel() > 2000:
                assert layer.weight.mean().item() == pytest.approx(0, abs=0.1 * bound)
                assert layer.weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_the_seed_decides_the_weights() -> None:
    weights = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        weights.append(ARCHITECTURES["celeba"].build()[1][0].weight)
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 4), (1, 8, 8), (3, 47, 80), (2, 3, 130)])
def test_the_small_one_takes_any_picture(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    encoder, decoder = ARCHITECTURES["small"].build(shape, 5)
    x = torch.rand(2, *shape)
    decoded = decoder(encoder(x))
    assert decoded.shape == x.shape and decoded.min() > 0 and decoded.max() < 1
    decoded.sum().backward()
    assert all(parameter.grad is not None for parameter in (*encoder.parameters(), *decoder.parameters()))


def test_the_small_one_halves_down_to_four() -> None:
    encoder, _ = ARCHITECTURES["small"].build((3, 100, 64))
    halved = [(layer.out_channels, layer.stride) for layer in encoder if isinstance(layer, nn.Conv2d)]
    assert halved == [(32, (2, 2)), (64, (2, 2)), (128, (2, 2)), (256, (2, 2)), (256, (2, 2))]
    assert encoder[-1].in_features == 256 * 4 * 2 and encoder[-1].out_features == 32


@pytest.mark.parametrize("name", ["fashion-mnist", "cifar-10", "celeba", "ffhq"])
@pytest.mark.parametrize("shape", [(1, 7, 9), (3, 33, 20)])
def test_the_papers_take_other_pictures_too(name: str, shape: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        encoder, decoder = ARCHITECTURES[name].build(shape, 5)
        z = encoder(torch.empty(2, *shape))
        assert z.shape == (2, 5) and decoder(z).shape == (2, *shape)


def test_shapes_that_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"shape \[3, 6, 9\] are too small"):
        ARCHITECTURES["cifar-10"].build((3, 6, 9))
    with pytest.raises(ValueError, match="shape is None"):
        ARCHITECTURES["small"].build()


# SAME padding


def same(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Zeros before and after, by TensorFlow's definition."""
    windows = math.ceil(size / stride)
    zeros = max((windows - 1) * stride + kernel - size, 0)
    return zeros // 2, zeros - zeros // 2


@pytest.mark.parametrize("kernel, stride", [(4, 2), (5, 4), (4, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("sides", [(8, 8), (7, 10), (1, 5), (13, 16)])
def test_padding_is_tensorflows_same(sides: tuple[int, int], kernel: int, stride: int) -> None:
    torch.manual_seed(0)
    encoder = conv_encoder((2, *sides), 3, kernel=kernel, strides=(stride, stride), channels=(4, 5)).double()
    x = torch.randn(2, 2, *sides, dtype=torch.float64)
    expected = x
    for layer in [layer for layer in encoder if isinstance(layer, nn.Conv2d)]:
        (top, bottom), (left, right) = (same(side, kernel, stride) for side in expected.shape[2:])
        expected = functional.pad(expected, (left, right, top, bottom))
        expected = functional.conv2d(expected, layer.weight, layer.bias, stride).relu()
    torch.testing.assert_close(encoder(x), encoder[-1](expected.flatten(1)))


@pytest.mark.parametrize("kernel, stride", [(4, 2), (5, 4), (4, 1), (2, 1), (3, 2)])
@pytest.mark.parametrize("sides", [(8, 8), (7, 10), (1, 5), (13, 16)])
def test_a_transposed_convolution_is_the_gradient_of_one_with_same_padding(
    sides: tuple[int, int], kernel: int, stride: int
) -> None:
    """Which is what TensorFlow calls a transposed convolution with SAME padding."""
    torch.manual_seed(0)
    decoder = conv_decoder((2, *sides), 3, kernel=kernel, strides=(stride,), channels=(4,), last=nn.Identity).double()
    z = torch.randn(2, 3, dtype=torch.float64)
    *first, transposed = [layer for layer in decoder if not isinstance(layer, nn.ZeroPad2d | nn.Identity)]
    small = nn.Sequential(*first)(z)
    x = torch.zeros(2, 2, *sides, dtype=torch.float64, requires_grad=True)
    (top, bottom), (left, right) = (same(side, kernel, stride) for side in sides)
    forward = functional.conv2d(functional.pad(x, (left, right, top, bottom)), transposed.weight, None, stride)
    (expected,) = torch.autograd.grad(forward, x, small)
    torch.testing.assert_close(decoder(z), expected)


@pytest.mark.parametrize("name", ["fashion-mnist", "celeba", "ffhq"])
def test_each_activation_is_kept_once_for_the_backward_pass(name: str) -> None:
    """Padding after ReLU would keep a second copy of nearly everything."""
    inputs: dict[int, int] = {}

    def note(layer: nn.Module, given: tuple[Tensor]) -> None:
        storage = given[0].untyped_storage()
        inputs[storage._cdata] = storage.nbytes()

    with torch.device("meta"):
        encoder, _ = ARCHITECTURES[name].build()
        x = torch.empty(1, *ARCHITECTURES[name].shape)
    for layer in encoder:
        if list(layer.parameters()):
            layer.register_forward_pre_hook(note)
    assert kept_bytes(lambda: encoder(x), encoder.parameters()) == sum(inputs.values())
