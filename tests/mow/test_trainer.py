"""The trainer against loops and formulas that are written out here."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import mow
from mow import MovingWindow, ShuffledStream, Trainer
from mow.training.trainer import default_learning_rate
from mow.window.distances import Distance

WIDTH, DIM, N = 5, 2, 6
THETA = torch.tensor([[1.0, 0.6], [0.0, 0.8]], dtype=torch.float64)

# The distances once more, from their formulas: D = 2, N(0, I) in closed form.


def phi(s: Tensor) -> Tensor:
    """1F1(1/2; 1; -s) = exp(-s/2) I0(s/2)."""
    return torch.special.i0e(s / 2)


def cramer_wold(z: Tensor) -> Tensor:
    n = len(z)
    gamma = (4 / (3 * n)) ** 0.4
    zz = phi((z[:, None] - z).square().sum(2) / (4 * gamma)).sum() / (n**2 * math.sqrt(gamma))
    zv = phi(z.square().sum(1) / (2 + 4 * gamma)).sum() / (n * math.sqrt(gamma + 0.5))
    return (1 / math.sqrt(1 + gamma) + zz - 2 * zv) / (2 * math.sqrt(math.pi))


def gaussian_mmd(z: Tensor) -> Tensor:
    n, value = len(z), torch.zeros((), dtype=z.dtype)
    for s in (0.5, 2.0):
        c = 2 * DIM * s
        r = (z[:, None] - z).square().sum(2)
        zz = (torch.exp(-r / c).sum() - n) / (n * (n - 1))
        zv = (DIM * s / (DIM * s + 1)) ** (DIM / 2) * torch.exp(-z.square().sum(1) / (2 * (DIM * s + 1))).mean()
        value = value + zz + (DIM * s / (DIM * s + 2)) ** (DIM / 2) - 2 * zv
    return value


def sliced_wasserstein(z: Tensor) -> Tensor:
    """Against the quantiles of N(0, 1): mean x^2 + 1 - 2 sum x_(i) (pdf(a_(i-1)) - pdf(a_i)), a_i = Phi^-1(i/n)."""
    normal, n = torch.distributions.Normal(0.0, 1.0), len(z)
    edges = normal.icdf(torch.arange(1, n, dtype=z.dtype) / n)
    density = torch.cat([edges.new_zeros(1), normal.log_prob(edges).exp(), edges.new_zeros(1)])
    projected = (z @ THETA).sort(dim=0).values
    return (projected.square().mean(0) + 1 - 2 * (density[:-1] - density[1:]) @ projected).mean()


DISTANCES: dict[str, tuple[Callable[[], Distance], Callable[[Tensor], Tensor]]] = {
    "cramer-wold": (mow.CramerWold, cramer_wold),
    "mmd": (lambda: mow.MMD(kernel="gaussian", scales=(0.5, 2.0)), gaussian_mmd),
    "sliced": (lambda: mow.SlicedWasserstein(directions=THETA), sliced_wasserstein),
}


def model(seed: int = 0) -> tuple[nn.Module, nn.Module]:
    """An encoder and a decoder of the user's own, in float64."""
    torch.manual_seed(seed)
    encoder = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Linear(4, DIM)).double()
    decoder = nn.Sequential(nn.Linear(DIM, 4), nn.Tanh(), nn.Linear(4, WIDTH)).double()
    return encoder, decoder


def trainer_of(distance: Distance | None = None, n: int = N, **options: Any) -> Trainer:
    options = {"optimizer": sgd, **options}
    return Trainer(*model(), distance or mow.CramerWold(), MovingWindow(n, DIM, dtype=torch.float64), **options)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05)


def adam(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=0.01)


def weights(*modules: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for module in modules for parameter in module.parameters()]


def gradients(*modules: nn.Module) -> list[Tensor]:
    return [parameter.grad for module in modules for parameter in module.parameters()]


def latents(count: int, seed: int = 3) -> Tensor:
    return 1 + torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def assert_close(got: Any, expected: Any, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(got, expected, rtol=rtol, atol=1e-12)


# k = n is the classical method


@pytest.mark.parametrize("optimizer", [sgd, adam])
@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("weighting", ["compensated", "reference"])
def test_k_equal_to_n_is_the_classical_method(name: str, optimizer: Any, weighting: str) -> None:
    module, formula = DISTANCES[name]
    data = pictures(20)  # three batches of six and one of two in a pass
    trainer = trainer_of(module(), k=N, optimizer=optimizer, weight=0.7, weighting=weighting)
    trainer.fit(ShuffledStream(data, seed=9), steps=20)

    encoder, decoder = model()
    step = optimizer([*encoder.parameters(), *decoder.parameters()])
    batches = ShuffledStream(data, seed=9)
    for _ in range(20):
        x = batches.take(N)
        z = encoder(x)
        loss = ((decoder(z) - x) ** 2).sum() / len(x) + 0.7 * formula(z)
        step.zero_grad()
        loss.backward()
        step.step()
    assert_close(weights(trainer.encoder, trainer.decoder), weights(encoder, decoder))
    assert (trainer.steps_done, trainer.pictures_seen) == (20, 100)


def test_k_equal_to_n_is_the_classical_method_in_the_papers_weighting() -> None:
    trainer = trainer_of(k=N, weighting="paper")
    encoder, decoder = model()
    step = sgd([*encoder.parameters(), *decoder.parameters()])
    for number in range(20):
        x = pictures(N, seed=number)
        trainer.step(x)
        z = encoder(x)
        step.zero_grad()
        (((decoder(z) - x) ** 2).sum() + cramer_wold(z)).backward()
        step.step()
    assert_close(weights(trainer.encoder, trainer.decoder), weights(encoder, decoder))


# One step by hand


def reconstruction(errors: Tensor, weighting: str, root: bool = False) -> Tensor:
    if weighting == "paper":
        return errors.sum()
    return errors.mean() ** 0.5 if root else errors.mean()


@pytest.mark.parametrize("present, k", [(2, 1), (4, 1), (5, 1), (6, 1), (3, 2), (4, 2), (6, 2), (6, 3), (6, 6), (0, 2)])
@pytest.mark.parametrize(
    "weighting, root",
    [("reference", False), ("reference", True), ("paper", False), ("compensated", False), ("compensated", True)],
)
@pytest.mark.parametrize("log", [False, True])
def test_one_step(present: int, k: int, weighting: str, root: bool, log: bool) -> None:
    """R + weight * s * T(F), where n counts the rows present, also while the window grows."""
    trainer = trainer_of(mow.CramerWold(log=log), k=k, weight=1.7, weighting=weighting, root=root)
    before, x = latents(present), pictures(k)
    if present:
        trainer.window.push(before)
    encoder, decoder = copy.deepcopy(trainer.encoder), copy.deepcopy(trainer.decoder)
    result = trainer.step(x)

    z = encoder(x)
    rows = torch.cat([before[max(0, present - (N - k)) :] if k < N else before[:0], z])
    scale = {"reference": 1, "paper": 1, "compensated": len(rows) / k}[weighting]
    errors, distance = ((decoder(z) - x) ** 2).sum(1), cramer_wold(rows)
    assert distance > 1e-3  # so that the logarithm is the logarithm
    loss = reconstruction(errors, weighting, root) + 1.7 * scale * (distance.log() if log else distance)
    loss.backward()
    assert_close(gradients(trainer.encoder, trainer.decoder), gradients(encoder, decoder))
    expected = {"loss": loss, "reconstruction": errors.mean(), "distance": distance}
    assert_close(result, {name: value.detach() for name, value in expected.items()})
    assert not any(value.requires_grad for value in result.values())


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("weighting", ["reference", "paper", "compensated"])
def test_a_short_last_batch(name: str, weighting: str) -> None:
    """Two new pictures where k = 4: the distance is over the newest four latents and them."""
    module, formula = DISTANCES[name]
    trainer = trainer_of(module(), k=4, weighting=weighting)
    before, x = latents(N), pictures(2)
    trainer.window.push(before)
    encoder, decoder = copy.deepcopy(trainer.encoder), copy.deepcopy(trainer.decoder)
    trainer.step(x)

    z = encoder(x)
    scale = 6 / 2 if weighting == "compensated" else 1
    errors = ((decoder(z) - x) ** 2).sum(1)
    (reconstruction(errors, weighting) + scale * formula(torch.cat([before[2:], z]))).backward()
    assert_close(gradients(trainer.encoder, trainer.decoder), gradients(encoder, decoder))


@pytest.mark.parametrize("weighting", ["reference", "compensated"])
def test_a_batch_short_of_the_classical_method(weighting: str) -> None:
    trainer = trainer_of(k=N, weighting=weighting)
    trainer.step(pictures(N, seed=5))
    x = pictures(2)
    encoder, decoder = copy.deepcopy(trainer.encoder), copy.deepcopy(trainer.decoder)
    trainer.step(x)
    encoder.zero_grad(), decoder.zero_grad()
    z = encoder(x)
    (((decoder(z) - x) ** 2).sum(1).mean() + cramer_wold(z)).backward()
    assert_close(gradients(trainer.encoder, trainer.decoder), gradients(encoder, decoder))


def test_without_weight_the_distance_does_nothing() -> None:
    trainer = trainer_of(k=2, weight=0)
    x = pictures(2)
    encoder, decoder = copy.deepcopy(trainer.encoder), copy.deepcopy(trainer.decoder)
    trainer.step(x)
    ((decoder(encoder(x)) - x) ** 2).sum(1).mean().backward()
    assert_close(gradients(trainer.encoder, trainer.decoder), gradients(encoder, decoder))


# The whole algorithm against a plain list


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("k", [1, 2, 4, 5])
@pytest.mark.parametrize("reencode, warm_up", [(True, True), (False, True), (True, False)])
def test_the_algorithm(name: str, k: int, reencode: bool, warm_up: bool) -> None:
    """Twenty steps over passes of 17 pictures, which k = 2, 4 and 5 do not divide.

    The seed is one with which no picture stands in two batches in a row, at the end of a pass and the beginning of the
    next: encoded twice by the same weights, it would tie with itself but for rounding.
    """
    module, formula = DISTANCES[name]
    if name == "mmd" and not warm_up and k == 1:
        formula = lambda z: gaussian_mmd(z) if len(z) > 1 else gaussian_mmd(z.expand(2, -1)) - 2  # noqa: E731
    trainer = trainer_of(module(), k=k, optimizer=adam, reencode=reencode)
    trainer.fit(ShuffledStream(pictures(17), seed=15), steps=20, warm_up=warm_up)

    encoder, decoder = model()
    step = adam([*encoder.parameters(), *decoder.parameters()])
    batches = ShuffledStream(pictures(17), seed=15)
    rows = list(encoder(batches.take(N - k)).detach()) if warm_up else []
    for _ in range(20):
        x = batches.take(k)
        z = encoder(x)
        history = rows[max(0, len(rows) - (N - len(x))) :]
        everything = torch.stack([*history, *z])
        loss = ((decoder(z) - x) ** 2).sum(1).mean() + len(everything) / len(x) * formula(everything)
        step.zero_grad()
        loss.backward()
        step.step()
        rows = (rows + list((encoder(x) if reencode else z).detach()))[-N:]
    assert_close(weights(trainer.encoder, trainer.decoder), weights(encoder, decoder))
    assert_close(trainer.window.history(1), torch.stack(rows)[-(N - 1) :])


@pytest.mark.parametrize("reencode", [True, False])
def test_what_is_pushed(reencode: bool) -> None:
    trainer, x = trainer_of(k=2, reencode=reencode), pictures(2)
    before = trainer.encoder(x).detach()
    trainer.step(x)
    after = trainer.encoder(x).detach()
    assert not torch.allclose(before, after, rtol=1e-3)
    assert torch.equal(trainer.window.history(1), after if reencode else before)


class Watched(mow.CramerWold):
    """Keeps the history that each step sees."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def measure(self, z: Tensor, window: Any = None) -> Tensor:
        self.seen.append(window.history(len(z)))
        return super().measure(z, window)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_the_window_warms_up_under_the_initial_weights(k: int) -> None:
    trainer, encoder = trainer_of(Watched(), k=k), model()[0]
    trainer.fit(ShuffledStream(pictures(40), seed=2), steps=3)
    expected = encoder(ShuffledStream(pictures(40), seed=2).take(N - k)).detach()
    assert_close(trainer.distance.seen[0], expected)
    assert [len(history) for history in trainer.distance.seen] == [N - k] * 3
    assert (trainer.steps_done, trainer.pictures_seen) == (3, 3 * k), "the warm-up is no step"


@pytest.mark.parametrize(
    "k, values, batches", [(1, 2**21, [5]), (1, 2 * WIDTH, [2, 2, 1]), (4, 1, [2]), (2, 1, [2, 2])]
)
def test_large_elements_are_not_all_encoded_at_once(
    k: int, values: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warm-up has as many rows as before, in pieces of at least k."""
    monkeypatch.setattr("mow.training.trainer.VALUES_AT_ONCE", values)
    trainer, sizes = trainer_of(Watched(), k=k), []
    trainer.encoder.register_forward_pre_hook(lambda encoder, given: sizes.append(len(given[0])))
    data = pictures(17)
    next(trainer.run(ShuffledStream(data, seed=1), steps=1))
    assert sizes[: len(batches)] == batches
    assert_close(trainer.distance.seen[0], model()[0](ShuffledStream(data, seed=1).take(N - k)).detach())


def test_a_filled_window_does_not_warm_up_again() -> None:
    trainer = trainer_of(Watched())
    trainer.window.fill(latents(3))
    trainer.fit(pictures(40), steps=2)
    assert torch.equal(trainer.distance.seen[0], latents(3))
    trainer.fit(pictures(40), steps=4)
    assert [len(history) for history in trainer.distance.seen] == [3, 4, 5, 5]


@pytest.mark.parametrize(
    "k, sizes", [(1, [0, 1, 2, 3, 4, 5, 5]), (2, [0, 2, 4, 4, 4, 4, 4]), (4, [0, 2, 2, 2, 2, 2, 2])]
)
def test_without_warm_up_the_window_grows(k: int, sizes: list[int]) -> None:
    trainer = trainer_of(Watched(), k=k)
    trainer.fit(pictures(40), steps=7, warm_up=False)
    assert [len(history) for history in trainer.distance.seen] == sizes


@pytest.mark.parametrize("k, warm_up", [(1, True), (4, True), (1, False), (4, False)])
def test_a_refreshed_window_is_that_of_the_newest_weights(k: int, warm_up: bool) -> None:
    """Passes of 7 pictures, with short batches; every third step."""
    data = pictures(7)
    trainer, order = trainer_of(k=k, refresh=3), ShuffledStream(data, seed=3)
    seen = order.take(N - k) if warm_up else data[:0]
    for step, _ in enumerate(trainer.run(ShuffledStream(data, seed=3), 10, warm_up=warm_up), 1):
        seen = torch.cat([seen, order.take(k)])
        rows, fresh = trainer.window.newest(len(trainer.window)), trainer.encoder(seen[-len(trainer.window) :])
        assert torch.allclose(rows, fresh, rtol=1e-12) == (step % 3 == 0 or (step == 1 and not warm_up))


def test_a_refresh_leaves_the_rows_of_another_stream() -> None:
    trainer = trainer_of(refresh=1)
    trainer.window.fill(latents(4))
    trainer.fit(pictures(40), steps=3)
    assert torch.equal(trainer.window.history(1)[:2], latents(4)[2:])
    trainer.fit(ShuffledStream(pictures(40)), steps=9)
    assert not torch.equal(trainer.window.history(1)[:2], latents(4)[2:])


def test_fewer_pictures_than_the_window_holds() -> None:
    trainer = trainer_of(Watched(), n=20)
    trainer.fit(pictures(7), steps=20)
    assert [len(history) for history in trainer.distance.seen[:3]] == [7, 8, 9]
    assert len(trainer.window) == 20


def test_the_classical_method_keeps_no_history() -> None:
    trainer = trainer_of(Watched(), k=N)
    trainer.fit(pictures(20), steps=8)
    assert [len(history) for history in trainer.distance.seen] == [0] * 8


# Runs


def test_steps_are_counted_in_all() -> None:
    trainer = trainer_of(k=2)
    stream = ShuffledStream(pictures(5))
    assert len(list(trainer.run(stream, 4))) == 4
    assert len(list(trainer.run(stream, 6))) == 2
    assert list(trainer.run(stream, 6)) == []
    # after the warm-up of four: batches of 1 | 2 2 1 | 2 2
    assert (trainer.steps_done, trainer.pictures_seen) == (6, 10)


def test_a_run_in_parts_is_the_run_in_one() -> None:
    whole, parts = trainer_of(k=2, optimizer=adam), trainer_of(k=2, optimizer=adam)
    whole.fit(ShuffledStream(pictures(9)), 12)
    stream = ShuffledStream(pictures(9))
    for steps in (1, 5, 12):
        parts.fit(stream, steps)
    assert all(map(torch.equal, weights(whole.encoder, whole.decoder), weights(parts.encoder, parts.decoder)))


class Photographs(Dataset):
    """Grey pictures with labels, as torchvision's data sets give them."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((1, 8, 8), 20 * index, dtype=torch.uint8), index % 3


def test_the_users_own_modules_and_data_set() -> None:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(1, 4, 4, stride=4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    decoder = nn.Sequential(nn.Linear(3, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    trainer = Trainer(encoder, decoder, mow.SlicedWasserstein(), MovingWindow(n=10, dim=3), k=1, optimizer=adam)
    results = [result["reconstruction"].item() for result in trainer.run(Photographs(), steps=400)]
    assert sum(results[-60:]) < 0.5 * sum(results[:60])
    assert len(trainer.window) == 10


def test_the_default_optimiser() -> None:
    trainer = trainer_of(k=4, optimizer=None)
    assert isinstance(trainer.optimizer, torch.optim.Adam)
    assert trainer.optimizer.param_groups[0]["lr"] == default_learning_rate(4) == pytest.approx(2e-3 * (4 / 64) ** 0.5)
    assert default_learning_rate(64) == pytest.approx(2e-3)
    assert sum(p.numel() for g in trainer.optimizer.param_groups for p in g["params"]) == sum(
        w.numel() for w in weights(*model())
    )


# State


@pytest.mark.parametrize(
    "distance",
    [
        mow.CramerWold,
        lambda: mow.MMD("uniform", log=True),
        lambda: mow.SlicedWasserstein("normal-sample", directions=7),
        lambda: mow.SlicedWasserstein(directions=THETA),
    ],
)
@pytest.mark.parametrize("saved_at, warm_up", [(0, True), (3, False), (8, True)])
def test_the_state_goes_on_bit_for_bit(distance: Any, saved_at: int, warm_up: bool, tmp_path: Any) -> None:
    trainer, stream = trainer_of(distance(), k=2, optimizer=adam), ShuffledStream(pictures(9), seed=4)
    torch.manual_seed(11)
    trainer.fit(stream, saved_at, warm_up=warm_up)
    torch.save(trainer.state_dict(), tmp_path / "state")
    position, random = (stream.epoch, stream.offset), torch.get_rng_state()
    expected = list(trainer.run(stream, 20, warm_up=warm_up))

    other, other_stream = trainer_of(distance(), k=2, optimizer=adam), ShuffledStream(pictures(9), seed=4)
    for parameter in itertools.chain(other.encoder.parameters(), other.decoder.parameters()):
        parameter.data.fill_(0.5)
    other.load_state_dict(torch.load(tmp_path / "state", weights_only=True))
    assert other.steps_done == saved_at
    other_stream.seek(*position)
    torch.set_rng_state(random)
    results = list(other.run(other_stream, 20, warm_up=warm_up))
    assert results == expected and len(results) == 20 - saved_at
    assert all(map(torch.equal, weights(trainer.encoder, trainer.decoder), weights(other.encoder, other.decoder)))
    assert torch.equal(trainer.window.history(1), other.window.history(1))
    assert (other.steps_done, other.pictures_seen) == (trainer.steps_done, trainer.pictures_seen)


# Bad input


@pytest.mark.parametrize(
    "options, kind, message",
    [
        ({"k": 0}, ValueError, "k is 0"),
        ({"k": -1}, ValueError, "k is -1"),
        ({"k": N + 1}, ValueError, f"k is {N + 1}.* n = {N}"),
        ({"k": 1.0}, TypeError, "k is 1.0"),
        ({"k": True}, TypeError, "k is True"),
        ({"weighting": "fair"}, ValueError, "weighting is 'fair'.*'compensated'"),
        ({"weight": -1.0}, ValueError, "weight is -1.0"),
        ({"weight": math.nan}, ValueError, "weight is nan"),
        ({"weight": math.inf}, ValueError, "weight is inf"),
        ({"root": True, "weighting": "paper"}, ValueError, "root is True"),
        ({"refresh": 0}, ValueError, "refresh is 0"),
        ({"refresh": 2.0}, TypeError, "refresh is 2.0"),
        ({"refresh": 2, "k": N}, ValueError, "refresh is 2 and k = n"),
        ({"refresh": 2, "on_nonfinite": "skip"}, ValueError, "refresh is 2 and on_nonfinite 'skip'"),
        ({"correction": mow.DriftCorrection(), "k": N}, ValueError, "correction is DriftCorrection.* and k = n"),
        ({"adaptive": mow.AdaptiveSpan(), "k": N}, ValueError, "adaptive is AdaptiveSpan.* and k = n"),
        (
            {"adaptive": mow.AdaptiveSpan(), "on_nonfinite": "skip"},
            ValueError,
            "adaptive is .* and on_nonfinite 'skip'",
        ),
    ],
)
def test_a_bad_argument(options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        trainer_of(**options)


@pytest.mark.parametrize(
    "x", [torch.zeros(1, WIDTH + 1).double(), torch.zeros(1, WIDTH).long(), torch.zeros(N + 1, WIDTH).double()]
)
def test_a_failed_step_leaves_everything_as_it_was(x: Tensor) -> None:
    trainer = trainer_of(k=2)
    trainer.step(pictures(2))
    before, rows = weights(trainer.encoder, trainer.decoder), trainer.window.history(1)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        trainer.step(x)
    assert all(map(torch.equal, before, weights(trainer.encoder, trainer.decoder)))
    assert torch.equal(trainer.window.history(1), rows)
    assert (trainer.steps_done, trainer.pictures_seen) == (1, 2)


def test_a_window_that_does_not_fit_the_latents() -> None:
    window = MovingWindow(N, DIM + 1, dtype=torch.float64)
    window.push(torch.zeros(2, DIM + 1))
    trainer = Trainer(*model(), mow.CramerWold(), window, optimizer=sgd)
    before = weights(trainer.encoder, trainer.decoder)
    with pytest.raises(ValueError, match="shape"):
        trainer.step(pictures(1))
    assert all(map(torch.equal, before, weights(trainer.encoder, trainer.decoder)))


@pytest.mark.parametrize("shape", [(8, 8), (64,), (1, 1, 8, 8), (1,), (1, 1, 1)])
def test_pictures_of_another_shape_are_not_broadcast(shape: tuple[int, ...]) -> None:
    """[k, 8, 8] against [k, 1, 8, 8] is [k, k, 8, 8] in PyTorch: each picture against every other."""
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, DIM))
    decoder = nn.Sequential(nn.Linear(DIM, math.prod(shape)), nn.Unflatten(1, shape))
    trainer = Trainer(encoder, decoder, mow.CramerWold(), MovingWindow(N, DIM), k=4)
    with pytest.raises((ValueError, RuntimeError), match="shape|size"):
        trainer.step(torch.rand(4, 1, 8, 8))
    assert len(trainer.window) == 0 and trainer.steps_done == 0


def test_no_pictures() -> None:
    with pytest.raises(ValueError, match="pictures is empty"):
        trainer_of().fit(torch.empty(0, WIDTH), steps=3)


@pytest.mark.parametrize("broken", ["decoder", "window", "optimizer", "steps_done"])
def test_a_state_that_does_not_fit_changes_nothing(broken: str) -> None:
    trainer, other = trainer_of(k=2, optimizer=adam), trainer_of(k=2, optimizer=adam)
    for step in range(3):
        trainer.step(pictures(2, seed=step))
        other.step(pictures(2, seed=10 + step))
    state, before = other.state_dict(), copy.deepcopy(trainer.state_dict())
    if broken == "steps_done":
        del state["steps_done"]
    else:
        state[broken] = {"nothing": torch.zeros(1)} if broken != "optimizer" else {"state": {}, "param_groups": []}
    with pytest.raises((KeyError, RuntimeError, ValueError)):
        trainer.load_state_dict(state)
    for part in ("encoder", "decoder", "window"):
        assert all(map(torch.equal, trainer.state_dict()[part].values(), before[part].values()))
    torch.testing.assert_close(trainer.optimizer.state_dict(), before["optimizer"], rtol=0, atol=0)
    assert trainer.steps_done == before["steps_done"]


@pytest.mark.parametrize("name", DISTANCES)
@pytest.mark.parametrize("n, k", [(1, 1), (N, 1), (N, 2), (40, 3)])
def test_a_step_is_the_same_without_the_value(name: str, n: int, k: int) -> None:
    """To the bit, so that a run does not depend on how often it logs."""
    trainers = [trainer_of(DISTANCES[name][0](), n, k=k) for _ in range(2)]
    pictures = torch.rand(60, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for start in range(0, 60, k):
        x = pictures[start : start + k]
        assert set(trainers[0].step(x)) == {"loss", "reconstruction", "distance"}
        assert set(trainers[1].step(x, measure=False)) == {"reconstruction"}
    for one, other in zip(*(trainer.encoder.parameters() for trainer in trainers), strict=True):
        assert torch.equal(one, other)


def test_an_encoder_that_is_not_trained_stays_as_it_is() -> None:
    trainer = trainer_of()
    trainer.encoder.requires_grad_(False)
    before = copy.deepcopy(trainer.encoder.state_dict()), copy.deepcopy(trainer.decoder.state_dict())
    trainer.step(torch.rand(1, WIDTH, dtype=torch.float64))
    assert all(torch.equal(value, before[0][name]) for name, value in trainer.encoder.state_dict().items())
    assert not any(torch.equal(value, before[1][name]) for name, value in trainer.decoder.state_dict().items())


class OwnZeroGrad(torch.optim.SGD):
    """Counts, as a wrapper of an optimiser might, or one that keeps gradients in a buffer of its own."""

    calls = 0

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.calls += 1
        super().zero_grad(set_to_none)


def test_gradients_are_those_of_one_step() -> None:
    """With `Optimizer.zero_grad`, which is passed by, and with an optimiser's own, also of the instance alone."""
    plain = trainer_of(optimizer=sgd)
    own = trainer_of(optimizer=lambda parameters: OwnZeroGrad(parameters, lr=0.01))
    replaced = trainer_of(optimizer=sgd)
    calls: list[None] = []
    original = replaced.optimizer.zero_grad
    replaced.optimizer.zero_grad = lambda *_: (calls.append(None), original())  # type: ignore[method-assign]  # of this instance
    for trainer in (plain, own, replaced):
        trainer.optimizer.param_groups[0]["lr"] = 0.01
        for _ in range(3):
            trainer.step(pictures(1))
    assert own.optimizer.calls == len(calls) == 3
    for trainer in (own, replaced):
        assert_close(weights(trainer.encoder, trainer.decoder), weights(plain.encoder, plain.decoder), rtol=0)


def test_networks_may_be_replaced() -> None:
    """By what torch.compile makes of them, for instance: every pass is then through the new one."""
    trainer, passes = trainer_of(k=2), []
    for name in ("encoder", "decoder"):
        network = getattr(trainer, name)
        replaced = nn.Sequential(network)
        replaced.register_forward_hook(lambda *_, name=name: passes.append(name))
        setattr(trainer, name, replaced)
    trainer.step(pictures(2))
    assert passes == ["encoder", "decoder", "encoder"]


def test_drop_last_takes_no_short_batch() -> None:
    trainer = trainer_of(k=3)
    sizes: list[int] = []
    trainer.encoder.register_forward_hook(lambda m, x, z: sizes.append(len(x[0])) if torch.is_grad_enabled() else None)
    trainer.fit(pictures(10), 7, warm_up=False, drop_last=True)
    assert sizes == [3] * 7 and trainer.pictures_seen == 21
    trainer.fit(ShuffledStream(pictures(10), drop_last=True), 9, drop_last=True)
    assert sizes == [3] * 9


@pytest.mark.parametrize(
    ("options", "data", "message"),
    [
        ({"k": 4}, pictures(3), "drop_last is True, k 4 and there are 3 pictures: no batch"),
        ({"k": 2, "refresh": 2}, pictures(9), "drop_last is True and refresh 2"),
        ({"k": 2, "adaptive": mow.AdaptiveSpan()}, pictures(9), "drop_last is True and adaptive AdaptiveSpan"),
        (
            {"k": 2, "correction": mow.DriftCorrection()},
            pictures(9),
            "drop_last is True and correction DriftCorrection",
        ),
        ({"k": 2}, ShuffledStream(pictures(9)), "drop_last is True and pictures a stream"),
    ],
)
def test_drop_last_where_it_cannot_be(options: dict[str, Any], data: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(**options).fit(data, 3, drop_last=True)
