"""Rows carried along with the encoder: the fit by hand, what is kept with the rows, and what it does to a training."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from marks import needs_native
from torch import Tensor, nn

import mow
from mow import DriftCorrection, MovingWindow, ShuffledStream, Trainer
from mow.distributed import ShardedWindow

WIDTH, DIM, N = 5, 2, 40
DISTANCES: dict[str, Callable[[], mow.window.distances.Distance]] = {
    "cramer-wold": lambda: mow.CramerWold(log=True),
    "mmd": mow.MMD,
    "sliced": lambda: mow.SlicedWasserstein(directions=6, generator=torch.Generator().manual_seed(3)),
    "kept projections": lambda: mow.SlicedWasserstein(
        directions=6, keep=50, generator=torch.Generator().manual_seed(3)
    ),
    "sampled": lambda: mow.MMD(
        mow.PriorWindow(N, DIM, mow.priors.Normal(torch.Generator().manual_seed(3)), dtype=torch.float64)
    ),
}


def rows(count: int, dim: int = DIM, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def trainer_of(distance: Any = None, n: int = N, lr: float = 0.02, **options: Any) -> Trainer:
    torch.manual_seed(0)
    networks = nn.Linear(WIDTH, DIM).double(), nn.Linear(DIM, WIDTH).double()
    window = MovingWindow(n, DIM, dtype=torch.float64)
    return Trainer(
        *networks, distance or mow.CramerWold(), window, optimizer=lambda p: torch.optim.SGD(p, lr=lr), **options
    )


def pushed(window: Any) -> Any:
    """In more than one round of the ring."""
    for part in rows(N + 17).split(9):
        window.push(part)
    return window


# The fit


def test_the_map_is_that_of_ridge_regression() -> None:
    """Solved as one least squares problem: each column of A has sqrt(ridge) rows that want it to be zero."""
    window, correction = pushed(MovingWindow(N, DIM, dtype=torch.float64)), DriftCorrection(rows=8)
    before, ages = window.newest(N), correction.ages(window, 3)
    old = window.at(ages)
    z = old @ torch.tensor([[1.1, 0.2], [-0.1, 0.9]], dtype=torch.float64) + 0.3 + 0.05 * rows(8, seed=9)
    correction.correct(window, ages, z)

    centred = old - old.mean(0)
    ridge = DIM * centred.square().mean()
    left = torch.cat(
        [torch.cat([centred, torch.ones(8, 1).double()], 1), ridge.sqrt() * torch.eye(DIM, DIM + 1).double()]
    )
    right = torch.cat([z - old, torch.zeros(DIM, DIM).double()])
    found = torch.linalg.lstsq(left, right).solution
    expected = before + torch.cat([before - old.mean(0), torch.ones(N, 1).double()], 1) @ found
    expected[[-age for age in ages]] = z
    torch.testing.assert_close(window.newest(N), expected, rtol=1e-10, atol=1e-12)
    assert float(correction.moved) == pytest.approx(float((z - old).square().mean()))
    residual = (right - left @ found)[:8]
    assert float(correction.left) == pytest.approx(float(residual.square().mean()))


def test_a_shift_is_taken_whole_and_an_encoder_that_stays_moves_nothing() -> None:
    for shift in (0.0, 7.0):
        window, correction = pushed(MovingWindow(N, DIM, dtype=torch.float64)), DriftCorrection()
        before, ages = window.newest(N), correction.ages(window, 0)
        correction.correct(window, ages, window.at(ages) + shift)
        torch.testing.assert_close(window.newest(N), before + shift, rtol=0, atol=1e-12)


def test_rows_that_all_lie_in_one_point_or_are_fewer_than_the_coordinates() -> None:
    window, correction = MovingWindow(N, DIM, dtype=torch.float64), DriftCorrection()
    window.fill(torch.ones(N, DIM, dtype=torch.float64))
    ages = correction.ages(window, 0)
    correction.correct(window, ages, torch.full((len(ages), DIM), 3.0, dtype=torch.float64))
    assert torch.equal(window.newest(N), torch.full((N, DIM), 3.0, dtype=torch.float64))

    wide, few = MovingWindow(N, 30), DriftCorrection(rows=4)
    wide.fill(rows(N, 30, dtype=torch.float32))
    before, ages = wide.newest(N), few.ages(wide, 0)
    few.correct(wide, ages, wide.at(ages) + 0.01 * rows(4, 30, seed=1, dtype=torch.float32))
    assert float((wide.newest(N) - before).abs().max()) < 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_narrow_window(dtype: torch.dtype) -> None:
    window, correction = MovingWindow(N, DIM, dtype=dtype), DriftCorrection()
    window.fill(rows(N).to(dtype))
    before, ages = window.newest(N), correction.ages(window, 1)
    correction.correct(window, ages, window.at(ages) + 1)
    torch.testing.assert_close(window.newest(N), before + 1, rtol=0, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("present", [2, 7, 31, 40])
@pytest.mark.parametrize("count", [None, 2, 5, 40, 100])
def test_ages_lie_evenly_and_all_have_their_turn(present: int, count: int | None) -> None:
    window, correction = MovingWindow(N, DIM), DriftCorrection(rows=count)
    window.fill(torch.zeros(present, DIM))
    seen: set[int] = set()
    for look in range(400):
        ages = correction.ages(window, look)
        assert len(set(ages)) == len(ages) == min(count or 4 * DIM, present)
        assert 1 <= min(ages) and max(ages) <= present
        gaps = [after - before for before, after in zip(ages, ages[1:], strict=False)]
        assert max(gaps, default=0) - min(gaps, default=0) <= 1
        seen |= set(ages)
    assert seen == set(range(1, present + 1))


@pytest.mark.parametrize(
    "options, said",
    [({"every": 0}, "every is 0"), ({"rows": 1}, "rows is 1; it must be at least 2"), ({"rows": 0}, "rows is 0")],
)
def test_bad_arguments(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DriftCorrection(**options)


# The window


@pytest.mark.parametrize("kind", [MovingWindow, ShardedWindow])
def test_a_window_moves_its_rows_where_they_lie(kind: Any) -> None:
    window, matrix, shift = pushed(kind(N, DIM, dtype=torch.float64)), rows(DIM), rows(1, seed=2)[0]
    before, head = window.at([*range(N, 0, -1)]), int(window.head)
    put = rows(2, seed=5)
    window.carry(matrix, shift, [3, 40], put)
    expected = before + before @ matrix + shift
    expected[[-3, -40]] = put
    torch.testing.assert_close(window.at([*range(N, 0, -1)]), expected)
    assert int(window.head) == head and len(window) == N


@pytest.mark.parametrize("kind", [MovingWindow, ShardedWindow])
@pytest.mark.parametrize(
    "ages, count, said", [([41], 1, r"ages is \[41\]"), ([1, 2], 1, r"rows has shape \[1, 2\]; it must be \[2, 2\]")]
)
def test_what_is_refused_changes_nothing(kind: Any, ages: list[int], count: int, said: str) -> None:
    window = pushed(kind(N, DIM, dtype=torch.float64))
    before = window.at([*range(N, 0, -1)])
    with pytest.raises(ValueError, match=said):
        window.carry(torch.eye(DIM).double(), torch.zeros(DIM).double(), ages, rows(count))
    assert torch.equal(window.at([*range(N, 0, -1)]), before)


@needs_native
@pytest.mark.parametrize("name", DISTANCES)
def test_what_is_kept_follows_at_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The training is that of a window that keeps nothing; and what is kept stays the object that a graph reads."""
    trained, objects = [], []
    for pairs in (1, 1 << 30):
        monkeypatch.setattr("mow.window.window.RUNNING_PAIRS", pairs)
        trainer = trainer_of(DISTANCES[name](), correction=DriftCorrection(every=3))
        for _ in trainer.run(rows(50, WIDTH), 31):
            objects.append([id(each.running) for each in trainer.window.kept.following.values()])
        trained.append([*trainer.encoder.parameters(), trainer.window.newest(N)])
    for one, other in zip(*trained, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)
    assert (len({each for some in objects for each in some}) == 1) == (name != "sliced")


# The trainer


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("warm_up", [True, False])
@pytest.mark.parametrize("reencode", [True, False])
def test_the_rows_that_are_encoded_again_are_those_of_the_window(k: int, warm_up: bool, reencode: bool) -> None:
    """A linear encoder moves by an affine map, all of whose drift is found: after each time the window is what the
    encoder of now makes of its pictures, but for the ridge. Each pass of 23 ends in a short batch."""
    data = rows(23, WIDTH)
    trainer = trainer_of(k=k, reencode=reencode, correction=DriftCorrection(every=5, rows=N))
    order = ShuffledStream(data, seed=3)
    seen = order.take(N - k) if warm_up else data[:0]
    corrected = 0
    for step, _ in enumerate(trainer.run(ShuffledStream(data, seed=3), 60, warm_up=warm_up), 1):
        seen = torch.cat([seen, order.take(k)])
        if step % 5 == 0 and len(trainer.window) > 1:
            again = trainer.encoder(seen[-len(trainer.window) :]).detach()
            torch.testing.assert_close(trainer.window.newest(len(trainer.window)), again)
            corrected += 1
    assert corrected == 12


def test_old_rows_are_nearer_to_the_encoder_of_now() -> None:
    """With few rows encoded again, and an encoder that is no affine map."""

    def off(correction: DriftCorrection | None) -> float:
        torch.manual_seed(0)
        encoder = nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, DIM)).double()
        window = MovingWindow(N, DIM, dtype=torch.float64)
        trainer = Trainer(
            encoder,
            nn.Linear(DIM, WIDTH).double(),
            mow.CramerWold(),
            window,
            optimizer=lambda p: torch.optim.SGD(p, lr=0.001),
            correction=correction,
        )
        data, total = rows(400, WIDTH), 0.0
        stream = ShuffledStream(data)
        for step, _ in enumerate(trainer.run(stream, 300), 1):
            if step > 100:
                again = encoder(stream.recent(N)).detach()
                total += float((again - window.newest(N)).square().mean())
        return total

    assert off(DriftCorrection()) < 0.3 * off(None)


@pytest.mark.parametrize("name", DISTANCES)
def test_a_training_goes_on_with_the_same_bits(name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mow.window.window.RUNNING_PAIRS", 1)
    data = rows(30, WIDTH)

    def both() -> dict[str, Any]:
        """With a span that adapts, where there can be one."""
        spans = name in ("mmd", "cramer-wold")
        adaptive = mow.AdaptiveSpan(every=8, least=4) if spans else None
        return {"correction": DriftCorrection(every=4), "adaptive": adaptive}

    def of(steps: int, trainer: Trainer | None = None) -> Trainer:
        trainer = trainer or trainer_of(DISTANCES[name](), **both())
        trainer.fit(data, steps)
        return trainer

    whole, half = of(50), of(26)
    path = half.save(tmp_path / "trainer.pt")
    networks = nn.Linear(WIDTH, DIM).double(), nn.Linear(DIM, WIDTH).double()
    distance = DISTANCES[name]()
    sgd = functools.partial(torch.optim.SGD, lr=0.02)
    resumed = Trainer.load(path, *networks, distance, optimizer=sgd, **both())
    of(50, resumed)
    for one, other in zip(
        (*whole.encoder.parameters(), whole.window.newest(N)),
        (*resumed.encoder.parameters(), resumed.window.newest(N)),
        strict=True,
    ):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="correction is None; .* was written with DriftCorrection"):
        Trainer.load(path, *networks, DISTANCES[name](), optimizer=sgd, adaptive=both()["adaptive"])


def test_an_encoder_that_gives_nan_is_told_of() -> None:
    trainer = trainer_of(correction=DriftCorrection(every=2))
    stream = trainer.run(rows(50, WIDTH), 10)
    next(stream)
    before = trainer.window.newest(N - 1)
    trainer.encoder.register_forward_hook(lambda module, x, z: z * float("nan") if len(z) > 1 else z)
    with pytest.raises(FloatingPointError, match="not finite"):
        next(stream)
    assert torch.equal(trainer.window.newest(N)[:-1], before)


@needs_native
def test_a_cuda_graph_would_read_the_same_memory_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latents, head and count, and the row sums that are kept."""
    monkeypatch.setattr("mow.window.window.RUNNING_PAIRS", 1)
    trainer, places = trainer_of(correction=DriftCorrection(every=2)), set()
    for _ in trainer.run(rows(50, WIDTH), 11):
        places.add(tuple(each.data_ptr() for each in trainer.window.buffers()))
    assert len(places) == 1


def test_rows_whose_pictures_are_not_known_stay() -> None:
    """Those that somebody else has filled the window with, as long as it has some of them."""
    trainer = trainer_of(n=12, correction=DriftCorrection(every=2))
    trainer.window.fill(rows(12))
    steps = trainer.run(rows(50, WIDTH), 20)
    for step in range(1, 12):
        next(steps)
        assert torch.equal(trainer.window.newest(12)[:-step], rows(12)[step:])
    next(steps)
    assert trainer.correction.moved is not None


def test_other_rows_have_their_turn_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    ages = DriftCorrection.ages
    monkeypatch.setattr(
        DriftCorrection, "ages", lambda self, window, look: looks.append(look) or ages(self, window, look)
    )
    trainer_of(correction=DriftCorrection(every=3)).fit(rows(50, WIDTH), 13)
    assert looks == [1, 2, 3, 4]
