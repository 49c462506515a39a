"""Half precision, checkpointing and channels last: the same training, by other means."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mow
from mow.app.architectures import ARCHITECTURES
from mow.training.precision import Frugal, ScalingTrainer
from studies.high_resolution.kept import kept_bytes

SHAPE, DIM, N, K = (3, 8, 8), 4, 8, 2


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return ARCHITECTURES["celeba"].build(SHAPE, DIM)


def trainer_of(kind: type[mow.Trainer] = mow.Trainer, **options: Any) -> mow.Trainer:
    encoder, decoder = (Frugal(network, **options) if options else network for network in networks())
    return kind(encoder, decoder, mow.CramerWold(log=True), mow.MovingWindow(N, DIM), k=K)


def losses(trainer: mow.Trainer, steps: int = 3) -> Tensor:
    pictures = torch.rand(steps, K, *SHAPE, generator=torch.Generator().manual_seed(1))
    return torch.stack([trainer.step(x)["loss"] for x in pictures])


def outputs(module: nn.Module, x: Tensor) -> list[Tensor]:
    """What each convolution within gives."""
    found: list[Tensor] = []
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, given, result: found.append(result))
    module(x)
    return found


@pytest.mark.parametrize("options", [{"checkpointing": True}, {"channels_last": True}])
def test_the_training_is_the_same(options: dict[str, Any]) -> None:
    torch.testing.assert_close(losses(trainer_of(**options)), losses(trainer_of()), rtol=1e-5, atol=0)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("others", [{}, {"checkpointing": True, "channels_last": True}])
def test_half_precision_is_nearly_the_same(precision: str, others: dict[str, Any]) -> None:
    plain, half = losses(trainer_of()), losses(trainer_of(precision=precision, **others))
    assert not torch.equal(plain, half)
    torch.testing.assert_close(half, plain, rtol=1e-2, atol=0)


@pytest.mark.parametrize("precision, dtype", [("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_half_within_and_float32_without(precision: str, dtype: torch.dtype) -> None:
    encoder = Frugal(networks()[0], precision=precision)
    x = torch.rand(2, *SHAPE)
    assert {result.dtype for result in outputs(encoder, x)} == {dtype}
    z = encoder(x)
    assert z.dtype == torch.float32 and {p.dtype for p in encoder.parameters()} == {torch.float32}
    z.sum().backward()
    assert {p.grad.dtype for p in encoder.parameters()} == {torch.float32}


def test_channels_last_are_the_weights_and_what_they_give() -> None:
    encoder = Frugal(networks()[0], channels_last=True)
    given = [*(p for p in encoder.parameters() if p.ndim == 4), *outputs(encoder, torch.rand(2, *SHAPE))]
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in given)


def test_checkpointing_keeps_the_input_alone() -> None:
    x = torch.rand(2, *SHAPE)
    plain = networks()[0]
    frugal = Frugal(copy.deepcopy(plain), checkpointing=True)
    assert kept_bytes(lambda: frugal(x), frugal.parameters()) <= x.nbytes < kept_bytes(lambda: plain(x)) / 4
    for encoder in (plain, frugal):
        encoder(x).square().sum().backward()
    for a, b in zip(plain.parameters(), frugal.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)
    with torch.no_grad():
        assert not frugal(x).requires_grad


def test_another_precision() -> None:
    with pytest.raises(ValueError, match="precision is 'fp8'; it must be fp32, bf16 or fp16"):
        Frugal(nn.Identity(), precision="fp8")


# Scaled gradients


def test_scaling_changes_nothing_where_nothing_vanishes() -> None:
    """A power of two: the same bits."""
    scaling = trainer_of(ScalingTrainer)
    scaling.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    assert torch.equal(losses(scaling), losses(trainer_of()))


@pytest.mark.parametrize("kind, vanishes", [(mow.Trainer, True), (ScalingTrainer, False)])
def test_small_gradients_vanish_in_fp16_unless_scaled(kind: type[mow.Trainer], vanishes: bool) -> None:
    """An error of 1e-5 times a latent of 1e-5: far below 6e-8, the smallest number that fp16 has."""
    layers = [nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)]
    for layer in layers:
        nn.init.eye_(layer.weight)
        nn.init.zeros_(layer.bias)
    encoder, decoder = (Frugal(layer, precision="fp16") for layer in layers)
    trainer = kind(encoder, decoder, mow.CramerWold(), mow.MovingWindow(N, DIM), weight=0.0, optimizer=sgd)
    nn.init.zeros_(layers[1].weight)
    trainer.step(torch.full((1, DIM), 1e-5))
    assert layers[1].weight.any() != vanishes


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1.0)


def test_a_step_that_overflows_is_left_out() -> None:
    trainer = trainer_of(ScalingTrainer, precision="fp16")
    trainer.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    before = [p.detach().clone() for p in trainer.encoder.parameters()]
    losses(trainer, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, trainer.encoder.parameters(), strict=True))
    assert trainer.scaler.get_scale() == 2.0**39
    assert trainer.steps_done == 1 and len(trainer.window) == K


def test_the_scale_is_in_the_state() -> None:
    trainer = trainer_of(ScalingTrainer, precision="fp16")
    losses(trainer, 5)
    state = copy.deepcopy(trainer.state_dict())
    expected = losses(trainer, 5)
    other = trainer_of(ScalingTrainer, precision="fp16")
    other.load_state_dict(state)
    assert other.scaler.get_scale() == state["scaler"]["scale"] and torch.equal(losses(other, 5), expected)
    with pytest.raises(KeyError):
        trainer_of(ScalingTrainer).load_state_dict(trainer_of().state_dict())


@pytest.mark.parametrize("scale, left_out", [(2.0**8, False), (2.0**40, True)])
def test_a_refreshed_window_with_scaled_gradients(scale: float, left_out: bool) -> None:
    """Rows are those of the newest weights, in the encoder's own precision, whether the step was taken or left out."""
    encoder, decoder = (Frugal(network, precision="fp16") for network in networks())
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    window = mow.MovingWindow(N, DIM)
    trainer = mow.Trainer(encoder, decoder, mow.CramerWold(), window, k=K, refresh=3, scaler=scaler)
    data = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(encoder.state_dict())
    stream = mow.ShuffledStream(data)
    trainer.fit(stream, 3)
    assert (scaler.get_scale() < scale) == left_out
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items()) == left_out
    with torch.no_grad():
        assert torch.equal(window.newest(N), encoder(stream.recent(N)))


def test_no_graph_with_scaled_gradients() -> None:
    with pytest.raises(ValueError, match="cuda_graph is True"):
        ScalingTrainer(*networks(), mow.CramerWold(), mow.MovingWindow(N, DIM), cuda_graph=True)


def test_the_trainer_that_scales_by_itself() -> None:
    """What `ScalingTrainer` is."""
    scaling = trainer_of(ScalingTrainer, precision="fp16")
    kind = functools.partial(mow.Trainer, scaler=torch.amp.GradScaler("cpu"))
    assert torch.equal(losses(scaling), losses(trainer_of(kind, precision="fp16")))
