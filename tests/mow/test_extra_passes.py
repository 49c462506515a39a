"""A pass that does not train leaves the buffers of the modules as they were."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import spectral_norm as older_spectral_norm
from torch.nn.utils.parametrizations import spectral_norm

import mow
from mow.neighbours.gan import GANTrainer
from mow.neighbours.micro_batch import BatchNormWarning
from mow.training.buffers import Buffers
from mow.training.precision import Frugal


class Counts(nn.Module):
    """Counts its passes in training mode in a buffer that it makes anew each time."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes = self.passes + 1
        return x


def network(width: int, to: int) -> nn.Sequential:
    return nn.Sequential(spectral_norm(nn.Linear(width, 6)), nn.BatchNorm1d(6), Counts(), nn.Tanh(), nn.Linear(6, to))


def passes(module: nn.Module) -> set[int]:
    counts = [b for name, b in module.named_buffers() if name.endswith(("num_batches_tracked", "passes"))]
    return {int(count) for count in counts}


def buffers(*modules: nn.Module) -> list[Tensor]:
    return [buffer.clone() for module in modules for buffer in module.buffers()]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(map(torch.equal, one, other))


def trainer(**options: Any) -> mow.Trainer:
    torch.manual_seed(0)
    return mow.Trainer(network(5, 2), network(2, 5), mow.CramerWold(), mow.MovingWindow(8, 2), k=2, **options)


@pytest.mark.parametrize(
    "options", [{}, {"refresh": 2}, {"reencode": False}, {"on_nonfinite": "ignore"}], ids=lambda o: str(o)
)
def test_a_step_writes_buffers_once(options: dict[str, Any]) -> None:
    training = trainer(**options)
    training.fit(torch.randn(40, 5), 5)
    assert passes(training.encoder) == passes(training.decoder) == {5}


def test_what_the_extra_passes_would_have_written_is_not_there() -> None:
    """The statistics are those of the training passes, seen by a hook."""
    training, seen = trainer(refresh=2), []
    norm = training.encoder[1]
    norm.register_forward_hook(lambda m, x, _: seen.append(x[0].mean(0)) if torch.is_grad_enabled() else None)
    training.fit(torch.randn(40, 5), 5)
    mean = torch.zeros(6)
    for each in seen:
        mean = mean.lerp(each.detach(), norm.momentum)
    assert len(seen) == 5
    torch.testing.assert_close(norm.running_mean, mean)


@pytest.mark.parametrize("on_nonfinite", ["skip", "stop"])
def test_a_step_that_is_not_taken_leaves_buffers(on_nonfinite: str) -> None:
    training = trainer(on_nonfinite=on_nonfinite)
    training.window.fill(torch.randn(6, 2))
    before = buffers(training.encoder, training.decoder)
    try:
        training.step(torch.full((2, 5), math.nan))
    except FloatingPointError:
        assert on_nonfinite == "stop"
    assert same(buffers(training.encoder, training.decoder), before)
    with pytest.raises(ValueError, match="decoder gives shape"):
        training.decoder.append(nn.Linear(5, 4))
        training.step(torch.randn(2, 5))
    assert same(buffers(training.encoder, training.decoder), before)


@pytest.mark.parametrize("norm", [spectral_norm, older_spectral_norm])
@pytest.mark.parametrize("micro_batch", [2, 3, "auto"])
def test_coupled_pieces_have_the_gradient_of_the_batch_under_spectral_norm(norm: Any, micro_batch: Any) -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(norm(nn.Linear(5, 4)), nn.Tanh(), norm(nn.Linear(4, 2))).double()
    whole, x = copy.deepcopy(encoder), torch.randn(8, 5, dtype=torch.float64)
    mow.MMD()(whole(x)).backward()
    mow.accumulate_coupled(encoder, mow.MMD(), x, micro_batch=micro_batch)
    for one, other in zip(encoder.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(buffers(encoder), buffers(whole))


@pytest.mark.parametrize("micro_batch", [2, 3, "auto"])
def test_separable_pieces_too(micro_batch: Any) -> None:
    torch.manual_seed(0)
    model = spectral_norm(nn.Linear(20, 15)).double()
    whole, x = copy.deepcopy(model), torch.randn(8, 20, dtype=torch.float64)
    whole(x).square().mean().backward()
    mow.accumulate(lambda x: model(x).square().mean(), x, micro_batch=micro_batch)
    torch.testing.assert_close([p.grad for p in model.parameters()], [p.grad for p in whole.parameters()])
    torch.testing.assert_close(buffers(model), buffers(whole))


@pytest.mark.filterwarnings("ignore::mow.neighbours.micro_batch.BatchNormWarning")
@pytest.mark.parametrize("micro_batch", [2, 3, "auto"])
@pytest.mark.parametrize("coupled", [False, True])
def test_a_batch_in_pieces_writes_buffers_once(coupled: bool, micro_batch: Any) -> None:
    model, x = network(5, 2), torch.randn(8, 5)
    entering = model[1].register_forward_hook
    norm, inputs = model[1], []
    entering(lambda m, x, _: inputs.append(x[0].detach()))
    if coupled:
        mow.accumulate_coupled(lambda x: model(x), mow.MMD(), x, micro_batch=micro_batch)
        del inputs[: len(inputs) // 2 if micro_batch != "auto" else -1]
    else:
        mow.accumulate(lambda x: model(x).square().mean(), x, micro_batch=micro_batch)
    assert passes(model) == {1}
    if micro_batch != "auto":
        torch.testing.assert_close(norm.running_mean, norm.momentum * torch.cat(inputs).mean(0))


def test_pieces_that_fail_leave_buffers() -> None:
    model, x = network(5, 2), torch.randn(8, 5)
    before = buffers(model)

    def fails(z: Tensor) -> Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        mow.accumulate_coupled(model, fails, x, micro_batch=2)
    with pytest.warns(BatchNormWarning), pytest.raises(ArithmeticError):
        calls = iter(range(3))
        mow.accumulate(lambda x: model(x).mean() if next(calls) < 2 else fails(x), x, micro_batch=2)
    assert same(buffers(model), before)


def gan(**options: Any) -> GANTrainer:
    torch.manual_seed(0)
    return GANTrainer(network(3, 2), network(2, 1), 3, **options)


def test_a_gan_draws_without_a_trace() -> None:
    training = gan()
    before = buffers(training.generator)
    training.sample(10)
    assert same(buffers(training.generator), before)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_gan_writes_buffers_by_the_passes_that_train(penalty: float) -> None:
    training = gan(penalty=penalty)
    for _ in range(3):
        training.step(torch.randn(4, 2))
    assert passes(training.generator) == {3} and passes(training.discriminator) == {6}


def test_a_gan_step_that_is_skipped_leaves_buffers() -> None:
    training = gan(on_nonfinite="skip", penalty=1.0)
    before = buffers(training.generator, training.discriminator)
    training.step(torch.full((4, 2), math.nan))
    assert same(buffers(training.generator, training.discriminator), before)


@pytest.mark.parametrize("norm", [spectral_norm, older_spectral_norm, nn.Sequential])
def test_gradient_checkpointing_is_the_same_pass_twice(norm: Callable[..., nn.Module]) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(norm(nn.Linear(5, 4)), nn.BatchNorm1d(4), Counts(), nn.Tanh(), norm(nn.Linear(4, 2)))
    frugal = Frugal(copy.deepcopy(plain), checkpointing=True)
    for _ in range(2):
        x = torch.randn(6, 5)
        for module in (plain, frugal):
            module(x).square().sum().backward()
    torch.testing.assert_close([p.grad for p in frugal.parameters()], [p.grad for p in plain.parameters()])
    assert same(buffers(frugal), buffers(plain))


def test_a_window_among_the_modules_is_left_alone() -> None:
    """A copy over it would end the running sums, and a push is no pass."""
    window = mow.MovingWindow(4, 2)
    with Buffers(nn.ModuleList([window])):
        window.push(torch.ones(1, 2))
        versions = [b._version for b in window.buffers()]
    assert len(window) == 1 and [b._version for b in window.buffers()] == versions
