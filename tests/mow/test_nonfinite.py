"""A value that is not finite is met once: no row of a window and no average keeps it."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mow
import mow_kernels as mk
from mow.app.models import mlp
from mow.neighbours.gan import GANTrainer


def trainer(window: mow.MovingWindow | None = None, **options: Any) -> mow.Trainer:
    torch.manual_seed(0)
    window = mow.MovingWindow(8, 2) if window is None else window
    return mow.Trainer(nn.Linear(5, 2), nn.Linear(2, 5), mow.CramerWold(), window, k=2, **options)


def pictures_with_one_nan() -> Tensor:
    """Which one is met in the warm-up: it is the first of the first pass."""
    pictures = torch.randn(40, 5)
    pictures[mow.ShuffledStream(pictures)._order[0], 3] = math.nan
    return pictures


def test_one_nan_in_the_warm_up_does_not_skip_every_step() -> None:
    training = trainer(on_nonfinite="skip")
    training.fit(pictures_with_one_nan(), 12)
    assert (training.steps_skipped, training.rows_left_out) == (0, 1)
    assert training.window.latents.isfinite().all() and training.state_dict()["rows_left_out"] == 1


def test_stop_in_the_warm_up_leaves_the_window_empty_and_training_can_go_on() -> None:
    training, stream = trainer(), mow.ShuffledStream(pictures_with_one_nan())
    with pytest.raises(FloatingPointError, match="1 of 6 latents for the window are not finite"):
        training.fit(stream, 4)
    assert len(training.window) == 0 and training.steps_done == 0
    training.fit(stream, 4)
    assert training.steps_done == 4 and training.window.latents.isfinite().all()


def test_a_gradient_of_the_distance_alone_is_looked_at() -> None:
    """Over a window that somebody has spoilt, for elements whose reconstruction is finite."""
    training = trainer(on_nonfinite="skip")
    training.window.fill(torch.randn(6, 2))
    training.window.latents[0] = math.nan
    before = copy.deepcopy(training.encoder.state_dict())
    training.step(torch.randn(2, 5))
    assert training.steps_skipped == 1
    torch.testing.assert_close(training.encoder.state_dict(), before, rtol=0, atol=0)


class Overflows(nn.Linear):
    """Where no gradient is asked for: in the passes for the window alone."""

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return z if torch.is_grad_enabled() else torch.cat([z[:1] / 0, z[1:]])


@pytest.mark.parametrize("on_nonfinite", ["skip", "stop"])
def test_an_encoder_that_overflows_in_the_second_pass(on_nonfinite: str) -> None:
    training = trainer(on_nonfinite=on_nonfinite)
    training.encoder = Overflows(5, 2)
    training.window.fill(torch.zeros(6, 2))
    if on_nonfinite == "stop":
        with pytest.raises(FloatingPointError, match="1 of 2 latents"):
            training.step(torch.randn(2, 5))
        assert len(training.window) == 6
    else:
        training.step(torch.randn(2, 5))
        assert len(training.window) == 7 and training.rows_left_out == 1
    assert training.window.latents.isfinite().all()


@pytest.mark.parametrize("reencode", [False, True])
def test_a_half_window_gets_no_row_that_only_float32_holds(reencode: bool) -> None:
    window = mow.MovingWindow(8, 2, dtype=torch.float16)
    training = trainer(window, on_nonfinite="skip", reencode=reencode)
    training.exchange.enter(torch.tensor([[1e6, 0.0], [1.0, 2.0]]), window)
    assert window.newest(1).tolist() == [[1, 2]] and len(window) == training.rows_left_out == 1


def test_finite_rows_whose_sum_overflows_enter() -> None:
    training = trainer(on_nonfinite="skip")
    training.exchange.enter(torch.full((2, 2), 3e38), training.window)
    assert len(training.window) == 2 and training.rows_left_out == 0


def test_a_refresh_that_overflows_leaves_the_window_as_it_was() -> None:
    training = trainer(refresh=2, reencode=False)
    training.encoder = Overflows(5, 2)
    with pytest.raises(FloatingPointError, match="4 of|1 of"):
        training.fit(torch.randn(40, 5), 3, warm_up=False)
    assert training.steps_done == 2 and len(training.window) == 4 and training.window.latents.isfinite().all()


def one_update(scale: mow.GradientNoiseScale, model: nn.Module, factor: float) -> None:
    model.zero_grad()
    mow.accumulate(lambda x: factor * model(x).mean(), torch.randn(4, 3), micro_batch=2)
    scale.update(rows=4, micro_batch=2)


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e30])
def test_an_average_keeps_no_step_that_is_not_finite(factor: float) -> None:
    """1e30 is finite, its square is not."""
    model = nn.Linear(3, 1)
    scale = mow.GradientNoiseScale(model.parameters(), decay=0.5)
    one_update(scale, model, 1.0)
    before = scale.noise, scale.gradient_square
    one_update(scale, model, factor)
    assert (scale.noise, scale.gradient_square) == before and math.isfinite(scale.noise)


def test_the_averages_are_saved_and_loaded() -> None:
    model = nn.Linear(3, 1)
    scale, other = (mow.GradientNoiseScale(model.parameters()) for _ in range(2))
    one_update(scale, model, 1.0)
    other.load_state_dict(scale.state_dict())
    assert (other.noise, other.gradient_square) == (scale.noise, scale.gradient_square)
    with pytest.raises(ValueError, match=r"averages has shape \[2\]; it must be \[3\]"):
        other.load_state_dict({"averages": torch.zeros(2)})


def gan(**options: Any) -> GANTrainer:
    torch.manual_seed(0)
    return GANTrainer(mlp(3, 2), mlp(2, 1), 3, **options)


def weights(training: GANTrainer) -> Tensor:
    return nn.utils.parameters_to_vector([*training.generator.parameters(), *training.discriminator.parameters()])


def test_a_gan_does_not_go_on_over_nan() -> None:
    x = torch.full((4, 2), math.nan)
    training = gan()
    before = weights(training).clone()
    with pytest.raises(FloatingPointError, match="the discriminator's loss is not finite"):
        training.step(x)
    assert torch.equal(weights(training), before)
    skipping = gan(on_nonfinite="skip")
    assert set(skipping.step(x)) == {"discriminator"} and skipping.steps_skipped == 1
    assert torch.equal(weights(skipping), before)
    with pytest.raises(ValueError, match="on_nonfinite is 'hope'; it must be one of 'stop', 'skip', 'ignore'"):
        gan(on_nonfinite="hope")


def test_a_gan_goes_on_from_its_state() -> None:
    x = torch.randn(4, 2)
    whole, resumed = gan(penalty=1.0), gan(penalty=1.0, seed=5)
    whole.step(x)
    resumed.load_state_dict(copy.deepcopy(whole.state_dict()))  # an optimiser takes tensors over as they are
    for training in (whole, resumed):
        training.step(x)
    assert torch.equal(weights(whole), weights(resumed))
    before = weights(resumed).clone()
    with pytest.raises(KeyError, match="random"):
        resumed.load_state_dict({name: value for name, value in gan().state_dict().items() if name != "random"})
    assert torch.equal(weights(resumed), before)


def test_a_window_looks_where_finite_values_are_checked() -> None:
    window = mow.MovingWindow(4, 2)
    for feed in (window.push, window.fill):
        with mk.check_finite(), pytest.raises(ValueError, match="z holds NaN or infinite values"):
            feed(torch.tensor([[math.inf, 0.0]]))
    assert len(window) == 0
