"""A window as long as the drift allows: the rule by hand, what the trainer shows it, and what it changes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from marks import needs_native
from torch import Tensor, nn

import mow
import mow_kernels as mk
from mow import AdaptiveSpan, MovingWindow, ShuffledStream, Trainer
from mow.distributed import ShardedWindow

WIDTH, DIM = 5, 2
DISTANCES: dict[str, Callable[[], mow.window.distances.Distance]] = {
    "cramer-wold": lambda: mow.CramerWold(log=True),
    "mmd": mow.MMD,
    "sliced": lambda: mow.SlicedWasserstein(directions=6, generator=torch.Generator().manual_seed(3)),
    "sampled": lambda: mow.MMD(mow.priors.Normal(torch.Generator().manual_seed(3))),
}


def rows(count: int, dim: int = DIM, seed: int = 0) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def trainer_of(distance: Any = None, n: int = 40, lr: float = 0.02, **options: Any) -> Trainer:
    torch.manual_seed(0)
    networks = nn.Linear(WIDTH, DIM).double(), nn.Linear(DIM, WIDTH).double()
    window = MovingWindow(n, DIM, dtype=torch.float64)
    return Trainer(
        *networks, distance or mow.CramerWold(), window, optimizer=lambda p: torch.optim.SGD(p, lr=lr), **options
    )


def weights(trainer: Trainer) -> list[Tensor]:
    return [each.detach().clone() for each in (*trainer.encoder.parameters(), *trainer.decoder.parameters())]


# The rule


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_the_span_for_a_power_of_the_age(power: float) -> None:
    """staleness c a^p + 1/a is least where staleness c p a^(p+1) = 1."""
    span = AdaptiveSpan(staleness=0.5)
    span.drift = {age: 2e-4 * age**power for age in (16, 32, 64, 128, 256, 512, 1024, 2048)}
    assert span.best() == pytest.approx((0.5 * 2e-4 * power) ** (-1 / (power + 1)), rel=1e-9)


def test_the_span_is_the_least_of_the_curve_between_the_ages() -> None:
    """Of any measured drift, against every age: smoothed over neighbours, and constant where it would fall."""
    generator = torch.Generator().manual_seed(4)
    for _ in range(50):
        span, ages = AdaptiveSpan(), [16, 32, 64, 128, 200]
        span.drift = dict(zip(ages, (10 ** (-6 * torch.rand(5, generator=generator))).tolist(), strict=True))
        span.variance = 0.7
        q = [square / 0.7 for square in span.drift.values()]
        inner = [math.sqrt(own) * (before * after) ** 0.25 for before, own, after in zip(q, q[1:], q[2:], strict=False)]
        at = list(itertools.accumulate([q[0], *inner, q[-1]], max))

        def cost(age: float, at: list[float] = at, ages: list[int] = ages) -> float:
            i = max(i for i in range(4) if ages[i] <= age)
            share = math.log(age / ages[i]) / math.log(ages[i + 1] / ages[i])
            return at[i] ** (1 - share) * at[i + 1] ** share / 3 + 1 / age

        best = span.best()
        assert 16 <= best <= 200
        assert cost(best) <= min(cost(age / 8) for age in range(16 * 8, 200 * 8 + 1)) * (1 + 1e-12)


def test_without_drift_all_rows_count_and_without_a_look_nothing_is_known() -> None:
    span = AdaptiveSpan()
    assert span.best() is None
    span.drift = {16: 0.0, 32: 0.0, 50: 0.0}
    assert span.best() == 50


def test_ages_double_up_to_the_oldest_row_that_is_there() -> None:
    window = MovingWindow(100, DIM)
    window.fill(torch.zeros(100, DIM))
    assert AdaptiveSpan().ages(window, 1) == [16, 32, 64, 100]
    assert AdaptiveSpan(least=5).ages(window, 1) == [5, 10, 20, 40, 80, 100]
    assert AdaptiveSpan().ages(window, 30) == [60, 100]
    window.fill(torch.zeros(40, DIM))
    assert AdaptiveSpan().ages(window, 1) == [16, 32]


def test_an_update_by_hand() -> None:
    """Plain means first, exponential ones from `memory` looks on; a row that is not finite does not count."""
    window, span = MovingWindow(64, DIM, dtype=torch.float64), AdaptiveSpan(memory=2)
    window.fill(rows(64))
    old = window.at(ages := [16, 32, 64])
    assert torch.equal(old, rows(64)[[-16, -32, -64]])
    moves = [torch.tensor([[0.1], [0.2], [0.4]]), torch.tensor([[0.3], [math.nan], [0.4]]), torch.zeros(3, 1)]
    for move in moves:
        span.update(window, ages, old + move.double(), k=1)
    assert span.drift == pytest.approx({16: (0.01 + 0.09) / 2 / 2, 32: 0.04 / 2, 64: 0.16 / 2})
    variances = [float((old + moves[i].double()).var(0).mean()) for i in (0, 2)]
    assert span.variance == pytest.approx(sum(variances) / 2)
    assert window.span == pytest.approx(span.best(), rel=0.2)
    assert len(window.history(1)) == window.span - 1


def test_the_span_stays_while_the_best_is_near_it() -> None:
    window, span = MovingWindow(400, DIM), AdaptiveSpan()
    window.fill(torch.zeros(400, DIM))
    for wanted, expected in ((100, 100), (119, 100), (84, 100), (121, 121), (9, 16), (1000, 400)):
        span.drift = {}
        span.best = lambda wanted=wanted: float(wanted)  # type: ignore[method-assign]  # what it says, without a drift
        assert span.update(window, [], torch.zeros(0, DIM), k=1) == window.span == expected
    assert span.update(window, [], torch.zeros(0, DIM), k=30) == 400


@pytest.mark.parametrize(
    "options, said",
    [
        ({"every": 0}, "every is 0"),
        ({"memory": 0}, "memory is 0"),
        ({"least": 1}, "least is 1; it must be at least 2"),
        ({"staleness": 0.0}, "staleness is 0"),
    ],
)
def test_bad_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        AdaptiveSpan(**options)


# The window


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("k", [1, 3, 5])
def test_a_span_is_a_shorter_window(name: str, k: int) -> None:
    """In every respect, so that the trainings are the same."""
    whole, short = trainer_of(DISTANCES[name](), n=40, k=k), trainer_of(DISTANCES[name](), n=9, k=k)
    whole.window.measure_over(9)
    data = rows(50, WIDTH)
    for one, other in zip(
        whole.run(ShuffledStream(data), 30, warm_up=False),
        short.run(ShuffledStream(data), 30, warm_up=False),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(weights(whole), weights(short), rtol=1e-9, atol=1e-12)
    many = rows(12)
    assert torch.allclose(DISTANCES[name]()(many, whole.window), DISTANCES[name]()(many))  # more than the span


@pytest.mark.parametrize("span, said", [(0, "span is 0"), (41, "span is 41; it must be from 1 to the window's n = 40")])
def test_a_span_that_is_none(span: int, said: str) -> None:
    window = MovingWindow(40, DIM)
    with pytest.raises(ValueError, match=said):
        window.measure_over(span)
    with pytest.raises(ValueError, match=r"ages is \[1\]"):
        window.at([1])


@needs_native
def test_what_is_kept_for_the_whole_window_alone_says_so() -> None:
    kept = mk.SortedProjections(8, mk.draw_directions(torch.zeros(1, 3), 4))
    kept.measure_over(8)
    with pytest.raises(ValueError, match="span is 7 and n 8; .* is for the whole window alone"):
        kept.measure_over(7)
    with pytest.raises(ValueError, match="span is 9; it must be from 1 to n = 8"):
        mk.RunningSums(mk.mmd, 8, 3).measure_over(9)
    like = torch.zeros(1, 3)
    assert mk.why_not_running(mk.mmd, like, newest=True) is None
    directions = mk.draw_directions(like, 4)
    assert "the whole window alone" in mk.why_not_running(
        mk.sliced_wasserstein, like, newest=True, directions=directions
    )


@needs_native
@pytest.mark.parametrize("distance", [mow.MMD(), mow.CramerWold(gamma=0.3)], ids=["mmd", "cramer-wold"])
def test_rows_that_were_measured_over_few_count_for_all(
    distance: mow.window.distances.KernelDistance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pushed as they were measured, they have met the newest rows alone."""
    monkeypatch.setattr("mow.window.window.RUNNING_PAIRS", 1)
    window = MovingWindow(30, DIM, dtype=torch.float64)
    window.fill(rows(30))
    for step, span in enumerate((20, 20, 5, 5, 20, 12, 20)):
        window.measure_over(span)
        z = rows(1, seed=step)
        with mk.use_backend("reference"):
            expected = distance(z, window.history(1))
        torch.testing.assert_close(distance(z, window), expected, rtol=1e-10, atol=1e-12)
        window.push(z)
    assert "\n  from running sums" in distance.explain(z, window)


def test_a_sharded_window_has_the_same_rows_and_measures() -> None:
    whole, sharded = MovingWindow(40, DIM, dtype=torch.float64), ShardedWindow(40, DIM, dtype=torch.float64)
    for window in (whole, sharded):
        window.push(rows(57))
        window.measure_over(11)
    assert torch.equal(whole.at([1, 7, 40]), sharded.at([1, 7, 40]))
    again = ShardedWindow(40, DIM, dtype=torch.float64)
    again.load_state_dict(whole.state_dict())
    z = rows(2, seed=1)
    for window in (sharded, again):
        torch.testing.assert_close(window.gradient(mow.MMD(), z), mow.MMD().gradient(z, whole))


def test_the_span_is_part_of_the_state() -> None:
    window, other = MovingWindow(40, DIM), MovingWindow(40, DIM)
    before = other.state_dict()
    window.measure_over(7)
    other.load_state_dict(window.state_dict())
    assert other.span == 7 and "span=7" in repr(other)
    other.load_state_dict(before)
    assert other.span == 40 and "span" not in repr(other)


# The trainer


def test_pictures_of_an_age() -> None:
    stream = ShuffledStream(torch.arange(7.0)[:, None], seed=2)
    seen = torch.cat([stream.take(3) for _ in range(8)])
    assert torch.equal(stream.ago([1, 2, 6, 11, len(seen)]), seen[[-1, -2, -6, -11, 0]])
    with pytest.raises(ValueError, match="ages is .*; they must be from 1 to the"):
        stream.ago([len(seen) + 1])


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("warm_up", [True, False])
def test_the_drift_is_that_of_the_windows_rows(k: int, warm_up: bool) -> None:
    """Of those that were encoded then, by the weights of now; each pass of 23 ends in a short batch."""
    looks: list[dict[int, float]] = []

    class Watched(AdaptiveSpan):
        def update(self, window: Any, ages: Any, z: Tensor, k: int) -> int:
            looks.append(dict(zip(ages, (z - window.at(ages)).square().mean(1).tolist(), strict=True)))
            return super().update(window, ages, z, k)

    data = rows(23, WIDTH)
    trainer = trainer_of(k=k, adaptive=Watched(every=5, least=8))
    order = ShuffledStream(data, seed=3)
    seen = order.take(40 - k) if warm_up else data[:0]
    for step, _ in enumerate(trainer.run(ShuffledStream(data, seed=3), 60, warm_up=warm_up), 1):
        seen = torch.cat([seen, order.take(k)])
        if step % 5 == 0 and looks:
            again = trainer.encoder(seen[-len(trainer.window) :]).detach()
            moved = again - trainer.window.newest(len(trainer.window))
            squares = moved.square().mean(1)
            assert looks[-1] == pytest.approx({age: float(squares[-age]) for age in looks[-1]})
    assert list(looks[-1]) == [8, 16, 32, 40] and looks[-1][40] > looks[-1][8] > 0


def test_an_encoder_that_does_not_move_is_measured_over_all_rows() -> None:
    trainer = trainer_of(lr=0.0, n=100, adaptive=AdaptiveSpan())
    assert trainer.window.span == 64
    trainer.fit(rows(200, WIDTH), 16)
    assert trainer.window.span == 100 and max(trainer.adaptive.drift.values()) < 1e-25


def test_a_look_leaves_no_trace_but_the_span() -> None:
    def training(**options: Any) -> list[Tensor]:
        trainer = trainer_of(n=9, **options)
        trainer.encoder = nn.Sequential(trainer.encoder, nn.BatchNorm1d(DIM).double())
        trainer.fit(rows(50, WIDTH), 20)
        return weights(trainer) + [each.clone() for each in trainer.encoder.buffers()]

    always_all = AdaptiveSpan(every=1, least=9)
    assert all(map(torch.equal, training(k=3), training(k=3, adaptive=always_all)))


@pytest.mark.parametrize("name", ["cramer-wold", "mmd", "sliced"])
def test_a_loaded_trainer_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    """Saved right after a change of the span, and not."""

    def rule() -> AdaptiveSpan:
        return AdaptiveSpan(every=4, memory=4, staleness=3.0)

    data = rows(300, WIDTH)
    whole = trainer_of(DISTANCES[name](), n=200, adaptive=rule())
    spans, saved = [], {}

    def look(record: dict[str, Any]) -> None:
        spans.append(whole.window.span)
        if record["step"] in (1, 30, 32, 33):
            saved[record["step"]] = whole.save(tmp_path / f"{record['step']}.pt")

    whole.fit(data, 60, log_every=1, callbacks=look)
    assert len(set(spans)) > 2 and max(spans) > 128
    for step, path in saved.items():
        other = trainer_of()
        taken_up = Trainer.load(path, other.encoder, other.decoder, DISTANCES[name](), optimizer=sgd, adaptive=rule())
        assert taken_up.window.span == spans[step - 1]
        taken_up.fit(data, 60, log_every=1)
        assert all(map(torch.equal, weights(whole), weights(taken_up)))
        assert taken_up.window.span == whole.window.span and taken_up.adaptive.drift == whole.adaptive.drift
    with pytest.raises(ValueError, match="adaptive is None; .* with AdaptiveSpan"):
        Trainer.load(path, other.encoder, other.decoder, DISTANCES[name](), optimizer=sgd)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.02)
