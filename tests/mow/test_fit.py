"""What `Trainer.fit` shows and keeps, and a trainer that is saved and taken up again."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import mow
from mow import Trainer
from mow.training import checkpoint, progress
from mow.training.checkpoint import CheckpointError
from mow.training.progress import Lines
from mow.window.distances import Distance

WIDTH, DIM, N = 5, 2, 8
PICTURES = torch.rand(22, WIDTH, generator=torch.Generator().manual_seed(1))
HELD_OUT = torch.rand(13, WIDTH, generator=torch.Generator().manual_seed(2))


def moving() -> Distance:
    torch.manual_seed(4)
    return mow.MMD(mow.PriorWindow(N, DIM))


DISTANCES: dict[str, Callable[[], Distance]] = {
    "closed form": mow.CramerWold,
    "sampled": lambda: mow.MMD("uniform"),
    "a generator": lambda: mow.MMD(mow.priors.Normal(torch.Generator().manual_seed(5))),
    "a prior's window": moving,
    "directions": lambda: mow.SlicedWasserstein(directions=4, keep=3),
}


def networks(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(WIDTH, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, DIM))
    return encoder, nn.Linear(DIM, WIDTH)


def trainer_of(distance: Distance | None = None, **options: Any) -> Trainer:
    options = {"k": 2, **options}
    return Trainer(*networks(), distance or mow.CramerWold(), mow.MovingWindow(N, DIM), **options)


def weights(trainer: Trainer) -> list[Tensor]:
    modules = trainer.encoder, trainer.decoder, trainer.window
    return [value.clone() for module in modules for value in module.state_dict().values()]


def same(a: Trainer, b: Trainer) -> bool:
    return all(map(torch.equal, weights(a), weights(b)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "trainer.pt"


# The history


def test_the_history_is_what_the_steps_return() -> None:
    trainer, other = trainer_of(mow.CramerWold(log=True)), trainer_of(mow.CramerWold(log=True))
    torch.manual_seed(3)
    history = trainer.fit(PICTURES, 25, log_every=10)
    torch.manual_seed(3)
    results = list(other.run(PICTURES, 25))
    assert history is trainer.history and history["step"] == [10, 20, 25] and len(history) == 3
    assert history["pictures"] == [20, 40, 50]
    for name in ("loss", "reconstruction", "distance"):
        assert history[name] == [float(results[step - 1][name]) for step in (10, 20, 25)]
    assert list(history)[-1] is history[-1] and "loss=" in repr(history)


def test_a_column_that_is_not_there() -> None:
    history = trainer_of().fit(PICTURES, 3)
    with pytest.raises(KeyError, match="name is 'los'; it must be one of distance, loss, pictures"):
        history["los"]
    with pytest.raises(KeyError, match="none, since nothing was measured"):
        mow.History()["loss"]


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_looking_changes_nothing(distance: Callable[[], Distance], capfd: pytest.CaptureFixture[str]) -> None:
    looked, blind = trainer_of(distance()), trainer_of(distance())
    seen: list[Any] = []
    torch.manual_seed(3)
    looked.fit(PICTURES, 30, log_every=1, test=HELD_OUT, test_every=7, callbacks=[seen.append], progress=True)
    torch.manual_seed(3)
    blind.fit(PICTURES, 30)
    assert same(looked, blind) and looked.encoder.training
    assert seen == list(looked.history) and len(seen) == 30
    out, err = capfd.readouterr()
    assert out == "" and "step 28 of 30" in err and "test distance" in err and "\x1b" not in err


@pytest.mark.parametrize(
    "test", [HELD_OUT, HELD_OUT.numpy(), TensorDataset(HELD_OUT), DataLoader(HELD_OUT)], ids=lambda t: type(t).__name__
)
def test_test_scores_by_hand(test: Any) -> None:
    trainer = trainer_of()
    history = trainer.fit(PICTURES, 20, test=test, test_every=6)
    assert [record["step"] for record in history if "test_distance" in record] == [6, 12, 18, 20]
    trainer.encoder.eval()
    with torch.no_grad():
        z = trainer.encoder(HELD_OUT)
        errors = (trainer.decoder(z) - HELD_OUT).square().sum(1)
        distance = trainer.distance.measure(z[:N])
    assert history[-1]["test_reconstruction"] == pytest.approx(float(errors.mean()), rel=1e-6)
    assert history[-1]["test_distance"] == pytest.approx(float(distance), rel=1e-6)


def test_nothing_is_measured_between_the_records(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    step = Trainer.step

    def spy(self: Trainer, x: Tensor, *, measure: bool = True, total: int | None = None) -> Any:
        asked.append(measure)
        return step(self, x, measure=measure, total=total)

    monkeypatch.setattr(Trainer, "step", spy)
    trainer_of().fit(PICTURES, 20, log_every=8)
    assert [i + 1 for i, measure in enumerate(asked) if measure] == [8, 16, 20]


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"log_every": 0}, "log_every is 0; it must be >= 1"),
        ({"test_every": -1}, "test_every is -1"),
        ({"callbacks": ["x"]}, "callbacks holds a str; it must be callables"),
        ({"test": []}, "pictures is empty"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], said: str) -> None:
    trainer = trainer_of()
    before = weights(trainer)
    with pytest.raises((ValueError, TypeError), match=said):
        trainer.fit(PICTURES, 5, **arguments)
    assert trainer.steps_done == 0 and all(map(torch.equal, before, weights(trainer)))


def test_what_was_measured_outlives_an_interruption() -> None:
    trainer = trainer_of()

    def stop(record: dict[str, Any]) -> None:
        if record["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(PICTURES, 20, log_every=3, callbacks=stop)
    assert trainer.history["step"] == [3, 6] and trainer.position is not None
    trainer.fit(PICTURES, 9, log_every=3)
    assert trainer.history["step"] == [3, 6, 9]


# The display


def test_lines_come_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    file = io.StringIO()
    show = Lines(1000, file, seconds=10)
    for step in range(100, 1001, 100):
        clock[0] += 4
        show({"step": step, "pictures": step, "loss": 2.5, **({"test_distance": 0.5} if step == 300 else {})})
    assert file.getvalue().splitlines() == [
        "step 100 of 1,000  loss 2.5",
        "step 300 of 1,000  loss 2.5  test distance 0.5",
        "step 600 of 1,000  loss 2.5",
        "step 900 of 1,000  loss 2.5",
        "step 1,000 of 1,000  loss 2.5",
    ]


def test_silent_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    trainer_of().fit(PICTURES, 5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("asked, shows", [(None, True), (True, True), (False, False)])
def test_a_bar_on_a_terminal(asked: bool | None, shows: bool) -> None:
    pty = pytest.importorskip("pty")
    main, end = pty.openpty()
    with pytest.MonkeyPatch.context() as patch, os.fdopen(end, "w") as terminal:
        patch.setattr("sys.stderr", terminal)
        patch.setenv("TERM", "xterm")
        trainer_of().fit(PICTURES, 5, log_every=1, progress=asked)
        terminal.flush()
        os.set_blocking(main, False)
        content = b""
        with contextlib.suppress(BlockingIOError):
            while part := os.read(main, 2**16):
                content += part
        drawn = content.decode()
    os.close(main)
    assert ("5/5" in drawn) is shows and ("reconstruction" in drawn) is shows


# Saved and taken up again


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
@pytest.mark.parametrize("options", [{}, {"refresh": 4}, {"weighting": "paper", "weight": 0.5, "reencode": False}])
def test_a_loaded_trainer_goes_on_with_the_same_bits(
    distance: Callable[[], Distance], options: dict[str, Any], file: Path
) -> None:
    whole = trainer_of(distance(), **options)
    torch.manual_seed(3)
    whole.fit(PICTURES, 33, log_every=5)
    first = trainer_of(distance(), **options)
    torch.manual_seed(3)
    first.fit(PICTURES, 15, log_every=5)
    assert first.save(file) == file
    torch.manual_seed(77)
    taken_up = Trainer.load(file, *networks(9), distance())
    assert same(first, taken_up) and repr(taken_up) == repr(first) and taken_up.steps_done == 15
    history = taken_up.fit(PICTURES, 33, log_every=5)
    assert same(whole, taken_up) and list(history) == list(whole.history)


def test_saved_from_a_callback(file: Path) -> None:
    trainer = trainer_of()
    torch.manual_seed(3)
    trainer.fit(PICTURES, 30, log_every=10, callbacks=lambda r: trainer.save(file) if r["step"] == 10 else None)
    taken_up = Trainer.load(file, *networks(9), mow.CramerWold())
    taken_up.fit(PICTURES, 30, log_every=10)
    assert same(trainer, taken_up) and list(taken_up.history) == list(trainer.history)


def test_a_second_call_reads_on() -> None:
    whole, parts = trainer_of(), trainer_of()
    torch.manual_seed(3)
    whole.fit(PICTURES, 30)
    torch.manual_seed(3)
    for steps in (4, 13, 30):
        parts.fit(PICTURES, steps)
    assert same(whole, parts)
    parts.fit(HELD_OUT, 31)  # others from their beginning
    assert parts.position == {"seed": 0, "epoch": 0, "offset": 2, "pictures": 13}


@pytest.mark.parametrize(
    "load, said",
    [
        (lambda file: Trainer.load(file, *networks(), mow.MMD()), r"distance is MMD\(\); .* with CramerWold\(\)"),
        (
            lambda file: Trainer.load(file, *networks(), mow.CramerWold(), optimizer=lambda p: torch.optim.SGD(p, 0.1)),
            "optimizer is SGD; .* with Adam",
        ),
        (lambda file: Trainer.load(file, *networks(), mow.CramerWold(), mow.MovingWindow(9, DIM)), "latents has shape"),
        (lambda file: Trainer.load(file, nn.Linear(WIDTH, 3), nn.Linear(3, WIDTH), mow.CramerWold()), "state_dict"),
        (lambda file: Trainer.load(file, *networks(), mow.CramerWold(), k=99), "k is 99"),
    ],
)
def test_another_kind_is_refused(load: Callable[[Path], Trainer], said: str, file: Path) -> None:
    trainer_of().save(file)
    random = torch.get_rng_state() if "state_dict" in said else None
    with pytest.raises((ValueError, RuntimeError), match=said):
        load(file)
    assert random is None or len(random) == len(torch.get_rng_state())


def test_no_file_and_no_trainer(file: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"^there is no file {file}$"):
        Trainer.load(file, *networks(), mow.CramerWold())
    checkpoint.save(file, {"options": {}})
    with pytest.raises(CheckpointError, match="it lacks kinds, trainer"):
        Trainer.load(file, *networks(), mow.CramerWold())
    trainer_of().save(file)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="damaged"):
        Trainer.load(file, *networks(), mow.CramerWold())


def test_a_write_that_fails_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = trainer_of()
    trainer.save(file)
    before = file.read_bytes()
    trainer.fit(PICTURES, 3)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            trainer.save(file)
    assert file.read_bytes() == before and os.listdir(file.parent) == [file.name]


# What it has learned


@pytest.mark.parametrize("distance", DISTANCES.values(), ids=DISTANCES)
def test_pictures_of_a_trainer(distance: Callable[[], Distance]) -> None:
    trainer, other = trainer_of(distance()), trainer_of(distance())
    torch.manual_seed(3)
    trainer.fit(PICTURES, 10)
    samples = trainer.sample(4, seed=1)
    assert samples.shape == (4, WIDTH) and torch.equal(samples, trainer.sample(4, seed=1))
    assert not torch.equal(samples, trainer.sample(4)) and not samples.requires_grad
    shown = trainer.reconstruct(PICTURES.numpy())
    walks = trainer.interpolate(PICTURES[:3], PICTURES[3:6], steps=5)
    assert shown.shape == PICTURES.shape and walks.shape == (3, 5, WIDTH)
    torch.testing.assert_close(walks[:, 0], shown[:3])
    torch.testing.assert_close(walks[:, -1], shown[3:6])
    trainer.fit(PICTURES, 20)
    torch.manual_seed(3)
    other.fit(PICTURES, 20)
    assert same(trainer, other)


def test_pictures_of_other_dtypes() -> None:
    encoder, decoder = (module.double() for module in networks())
    trainer = Trainer(encoder, decoder, mow.CramerWold(), mow.MovingWindow(N, DIM, dtype=torch.float64))
    grey = (PICTURES * 255).to(torch.uint8)
    torch.testing.assert_close(trainer.reconstruct(grey), trainer.reconstruct(grey.double() / 255), rtol=0, atol=1e-7)
    assert trainer.sample(2).dtype is torch.float64


@pytest.mark.parametrize(
    "use, said",
    [
        (lambda trainer: trainer.sample(0), "count is 0; it must be >= 1"),
        (lambda trainer: trainer.interpolate(PICTURES[:2], PICTURES[:3]), r"b has shape \[3, 5\]; it must be a's"),
        (lambda trainer: trainer.interpolate(PICTURES[:2], PICTURES[:2], 1), "steps is 1; it must be >= 2"),
        (lambda trainer: trainer.reconstruct([1.0]), "x is list"),
    ],
)
def test_bad_uses(use: Callable[[Trainer], object], said: str) -> None:
    with pytest.raises((ValueError, TypeError), match=said):
        use(trainer_of())
