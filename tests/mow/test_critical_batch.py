"""The critical batch size: both laws recovered from points of either, and the noise scale against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import mow
from mow.neighbours.critical_batch import HYPERBOLA, NOISE_SCALE

BATCHES = [2**i for i in range(10)]


def hyperbola(b: float, critical: float, min_steps: float = 300) -> float:
    return min_steps * b / (b - critical / 2)


def noise_scale(b: float, critical: float, min_steps: float = 300) -> float:
    return min_steps * (1 + critical / b)


@pytest.mark.parametrize("critical", [0.01, 0.7, 1.9, 1.99999])
def test_the_hyperbola_is_recovered(critical: float) -> None:
    result = mow.fit_critical_batch(BATCHES, [hyperbola(b, critical) for b in BATCHES])
    fit = result.hyperbola
    assert fit.critical_batch == pytest.approx(critical, rel=1e-6)
    assert fit.min_steps == pytest.approx(300, rel=1e-6)
    assert fit.rms < 1e-7 and result.better is fit
    assert result.noise_scale.rms > 1e-6 and fit.law is HYPERBOLA


@pytest.mark.parametrize("critical", [0.03, 0.3, 16, 5000])
def test_the_noise_scale_law_is_recovered(critical: float) -> None:
    result = mow.fit_critical_batch(BATCHES, [noise_scale(b, critical) for b in BATCHES])
    fit = result.noise_scale
    assert fit.critical_batch == pytest.approx(critical, rel=1e-6)
    assert fit.min_steps == pytest.approx(300, rel=1e-6)
    assert fit.rms < 1e-7 and result.better is fit
    assert result.hyperbola.rms > 1e-6 and fit.law is NOISE_SCALE


def test_the_hyperbola_is_the_line_of_1_over_k() -> None:
    batches = torch.tensor([8.0, 16, 32, 64])
    fit = mow.fit_critical_batch(batches, 500 * batches / (batches - 3.5)).hyperbola
    x, y = 1 / batches.double(), 1 / fit.steps(batches)
    slope = (y[0] - y[-1]) / (x[0] - x[-1])
    intercept = y[0] - slope * x[0]
    assert fit.critical_batch == pytest.approx(7, rel=1e-6)
    assert float(-2 * slope / intercept) == pytest.approx(7, rel=1e-6)
    assert fit.samples(7.0) < min(fit.samples(6.9), fit.samples(7.1))
    assert fit.steps([3.5, 3.0]).tolist() == [math.inf, math.inf]


@pytest.mark.parametrize(
    ("law", "critical", "name"), [(hyperbola, 1.5, "hyperbola"), (noise_scale, 16.0, "noise_scale")]
)
def test_with_noise_the_truth_lies_within_the_intervals(
    law: Callable[..., float], critical: float, name: str, randn: Callable[..., Tensor]
) -> None:
    inside, repeats = 0, 30
    for _ in range(repeats):
        steps = [(law(b, critical) * randn(3).mul(0.2).exp()).tolist() for b in BATCHES]
        fit = getattr(mow.fit_critical_batch(BATCHES, steps, resamples=100), name)
        (low, high), (fewest, most) = fit.critical_batch_interval, fit.min_steps_interval
        assert low <= fit.critical_batch <= high and low < high
        inside += (low <= critical <= high) + (fewest <= 300 <= most)
    assert 0.88 <= inside / (2 * repeats) <= 0.99


def test_seeds_may_be_lists_or_repeated_batch_sizes() -> None:
    lists = mow.fit_critical_batch([1, 4, 16], [[900, 1000], [400], [300, 310, 290]])
    flat = mow.fit_critical_batch([1, 1, 4, 16, 16, 16], torch.tensor([900, 1000, 400, 300, 310, 290]))
    assert lists.batch_sizes.tolist() == flat.batch_sizes.tolist() == [1, 1, 4, 16, 16, 16]
    assert lists.samples.tolist() == [900, 1000, 1600, 4800, 4960, 4640]
    assert lists.noise_scale.critical_batch == flat.noise_scale.critical_batch
    assert lists.noise_scale.critical_batch_interval == flat.noise_scale.critical_batch_interval
    spread = [math.log(value) for value in (900, 1000, 400, 300, 310, 290)]
    means = [sum(spread[:2]) / 2] * 2 + [spread[2]] + [sum(spread[3:]) / 3] * 3
    rms = math.sqrt(sum((a - b) ** 2 for a, b in zip(spread, means, strict=True)) / 6)
    assert lists.spread == pytest.approx(rms)


def test_the_residuals_are_of_the_logarithm() -> None:
    steps = torch.tensor([1000.0, 500, 450, 300])
    fit = mow.fit_critical_batch([1, 2, 4, 8], steps).noise_scale
    expected = (steps.double() / fit.steps([1, 2, 4, 8])).log()
    torch.testing.assert_close(fit.residuals, expected)
    assert fit.rms == pytest.approx(float(expected.square().mean().sqrt()))


def test_it_prints_as_a_table() -> None:
    shown = str(mow.fit_critical_batch(BATCHES, [noise_scale(b, 16) for b in BATCHES])).splitlines()
    assert len(shown) == 1 + 10 + 2
    assert shown[3].split()[:4] == ["4", "1", "1,500", "6,000"]
    assert "critical batch 16 (95%: 16 to 16)" in shown[12]
    assert str(mow.fit_critical_batch([1, 2, 4], [[9, 9 * math.e], 9, 9])).endswith("by an rms of 0.354.")


@pytest.mark.parametrize(
    ("batch_sizes", "steps", "options", "message"),
    [
        ([1, 2, 4], [9, 8], {}, "steps has 2 entries and batch_sizes 3"),
        ([1, 2, 0], [9, 8, 7], {}, "batch_sizes holds 0; they must be finite and > 0"),
        ([1, 2, math.inf], [9, 8, 7], {}, "batch_sizes holds inf"),
        ([1, 2, 4], [9, 8, math.inf], {}, "steps holds inf at batch size 4"),
        ([1, 2, 4], [9, [8, math.nan], 7], {}, "steps holds nan at batch size 2"),
        ([1, 2, 4], [9, [None], 7], {}, "steps holds None at batch size 2"),
        ([1, 2, 4], [9, 8, -7], {}, "steps holds -7 at batch size 4"),
        ([1, 2, 4], [9, 8, []], {}, "batch_sizes holds 2 different ones with steps; it must hold 3 at least"),
        ([1, 2, 2], [9, 8, 7], {}, "batch_sizes holds 2 different ones"),
        ([1, 2, 4], [9, 8, 7], {"resamples": 0}, "resamples is 0; it must be >= 1"),
        ([1, 2, 4], [9, 8, 7], {"confidence": 1}, "confidence is 1; it must lie between 0 and 1"),
    ],
)
def test_bad_input_is_refused(batch_sizes: list, steps: list, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mow.fit_critical_batch(batch_sizes, steps, **options)


class Regression(nn.Module):
    """0.5 (w x - y)^2 a row, whose gradients have known moments."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(dim, dtype=torch.float64))

    def losses(self, x: Tensor, y: Tensor) -> Tensor:
        return (x @ self.w - y).square() / 2


def backward_in_pieces(model: Regression, x: Tensor, y: Tensor, micro_batch: int) -> None:
    model.zero_grad()
    for x_j, y_j in zip(x.split(micro_batch), y.split(micro_batch), strict=True):
        (model.losses(x_j, y_j).sum() / len(x)).backward()


def test_pieces_of_one_row_give_the_sample_covariance(randn: Callable[..., Tensor]) -> None:
    model, x, y = Regression(3), randn(7, 3), randn(7)
    scale = mow.GradientNoiseScale(model.parameters(), decay=0)
    backward_in_pieces(model, x, y, 1)
    scale.update(rows=7, micro_batch=1)
    rows = -y[:, None] * x  # the gradients at w = 0
    products = rows @ rows.T
    assert scale.noise == pytest.approx(float(torch.cov(rows.T).trace()))
    assert scale.gradient_square == pytest.approx(float((products.sum() - products.trace()) / 42))
    expected = scale.noise / scale.gradient_square if scale.gradient_square > 0 else math.inf
    assert scale.value == pytest.approx(expected)


@pytest.mark.parametrize("micro_batch", [8, 24])
def test_linear_regression_has_its_closed_form(micro_batch: int, randn: Callable[..., Tensor]) -> None:
    """x ~ N(0, I_d), y = <w*, x> + sigma e: |G|^2 = |w - w*|^2 and tr(Sigma) = (d + 1) |w - w*|^2 + d sigma^2."""
    dim, sigma, true = 6, 2.0, torch.tensor([0.5, -1, 0.25, 0, 1, 0.5], dtype=torch.float64)
    model = Regression(dim)
    scale = mow.GradientNoiseScale(model.parameters(), decay=0.999)
    for _ in range(600):
        x = randn(64, dim)
        backward_in_pieces(model, x, x @ true + sigma * randn(64), micro_batch)  # of 24: the last one has 16
        scale.update(rows=64, micro_batch=micro_batch)
    square = float(true.square().sum())
    noise = (dim + 1) * square + dim * sigma**2
    assert scale.gradient_square == pytest.approx(square, rel=0.06)
    assert scale.noise == pytest.approx(noise, rel=0.06)
    assert scale.value == pytest.approx(noise / square, rel=0.08)


def test_it_listens_to_accumulate(randn: Callable[..., Tensor]) -> None:
    model, x, y = Regression(3), randn(8, 3) + 1, randn(8) + 1
    scale = mow.GradientNoiseScale(model.parameters(), decay=0)
    backward_in_pieces(model, x, y, 3)
    scale.update(rows=8, micro_batch=3)
    expected = scale.gradient_square, scale.noise
    model.zero_grad()
    mow.accumulate(lambda x, y: model.losses(x, y).mean(), x, y, micro_batch=3)
    scale.update(rows=8, micro_batch=3)
    assert (scale.gradient_square, scale.noise) == pytest.approx(expected)


def test_the_averages_are_of_the_terms_not_of_their_ratio(randn: Callable[..., Tensor]) -> None:
    model = Regression(3)
    alone, squares, noises = mow.GradientNoiseScale(model.parameters(), decay=0), [], []
    both = mow.GradientNoiseScale(model.parameters(), decay=0.75)
    for _ in range(2):
        backward_in_pieces(model, randn(8, 3) + 1, randn(8) + 1, 2)
        for scale in (alone, both):
            scale.update(rows=8, micro_batch=2)
        squares.append(alone.gradient_square)
        noises.append(alone.noise)
    assert both.gradient_square == pytest.approx((3 * squares[0] + 4 * squares[1]) / 7)
    assert both.noise == pytest.approx((3 * noises[0] + 4 * noises[1]) / 7)
    assert both.value == pytest.approx(both.noise / both.gradient_square)


def test_a_sum_over_the_rows_has_the_same_ratio(randn: Callable[..., Tensor]) -> None:
    model, x, y, values = Regression(3), randn(8, 3) + 1, randn(8) + 1, []
    for divisor in (8, 1):
        scale = mow.GradientNoiseScale(model.parameters())
        model.zero_grad()
        for x_j, y_j in zip(x.split(2), y.split(2), strict=True):
            (model.losses(x_j, y_j).sum() / divisor).backward()
        scale.update(rows=8, micro_batch=2)
        values.append(scale.value)
        scale.close()
    assert values[1] == pytest.approx(values[0])


def test_passes_that_are_no_pieces_are_refused_and_forgotten(randn: Callable[..., Tensor]) -> None:
    model, x, y = Regression(3), randn(8, 3) + 1, randn(8) + 1
    scale = mow.GradientNoiseScale(model.parameters(), decay=0)
    assert math.isnan(scale.value)
    model.losses(x, y).mean().backward()  # one pass more, for the log
    backward_in_pieces(model, x, y, 2)
    with pytest.raises(ValueError, match="5 backward passes have run; rows = 8 and micro_batch = 2 make 4"):
        scale.update(rows=8, micro_batch=2)
    assert math.isnan(scale.value)
    backward_in_pieces(model, x, y, 2)
    scale.update(rows=8, micro_batch=2)
    value = scale.value
    with pytest.raises(ValueError, match="micro_batch is 8 and rows 8"):
        scale.update(rows=8, micro_batch=8)
    assert scale.value == value and math.isfinite(value)


def test_close_takes_the_hooks_off(randn: Callable[..., Tensor]) -> None:
    model = Regression(3)
    scale = mow.GradientNoiseScale(model.parameters())
    scale.close()
    backward_in_pieces(model, randn(4, 3), randn(4), 1)
    with pytest.raises(ValueError, match="0 backward passes"):
        scale.update(rows=4, micro_batch=1)


def test_the_noise_scale_refuses_bad_arguments() -> None:
    with pytest.raises(ValueError, match="parameters holds none that requires grad"):
        mow.GradientNoiseScale([])
    with pytest.raises(ValueError, match="decay is 1; it must be in"):
        mow.GradientNoiseScale(Regression(1).parameters(), decay=1)
