"""The window's running sums behind the same calls: what is measured equals the reference over the rows of a list."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_native
from torch import Tensor

import mow
import mow_kernels as mk
from mow import MovingWindow, Trainer
from mow.window import window

pytestmark = needs_native

DIM = 3
DISTANCES: dict[str, Callable[[], mow.window.distances.Distance]] = {
    "mmd": mow.MMD,
    "gaussian": lambda: mow.MMD(kernel="gaussian", estimator="biased", log=True),
    "cramer-wold": mow.CramerWold,
    "smooth": lambda: mow.CramerWold(gamma=0.5, phi="asymptotic"),
}


@pytest.fixture(autouse=True)
def small_windows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "RUNNING_PAIRS", 1)


def rows(count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def is_running(distance: mow.window.distances.KernelDistance, z: Tensor, window: MovingWindow) -> bool:
    return "\n  from running sums" in distance.explain(z, window)


def both(distance: mow.window.distances.Distance, z: Tensor, history: Any) -> tuple[Tensor, Tensor]:
    live = z.detach().requires_grad_()
    value = distance(live, history)
    return value.detach(), torch.autograd.grad(value, live)[0]


def steady(distance: mow.window.distances.Distance, n: int = 8, k: int = 2) -> MovingWindow:
    """A full window that this distance has been measured over at every step."""
    window = MovingWindow(n, DIM, dtype=torch.float64)
    window.fill(rows(n, 100))
    for step in range(3):
        z = rows(k, step)
        distance(z, window)
        window.push(z)
    return window


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(sorted(DISTANCES)),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    n=st.integers(2, 9),
    steps=st.lists(
        st.tuples(
            st.sampled_from(
                ["step", "step", "step", "encoded again", "push", "fill", "reload", "assign", "edit", "span"]
            ),
            st.integers(1, 9),
        ),
        max_size=20,
    ),
)
def test_random_steps(name: str, dtype: torch.dtype, n: int, steps: list[tuple[str, int]]) -> None:
    distance, window, known = DISTANCES[name](), MovingWindow(n, DIM, dtype=dtype), torch.empty(0, DIM, dtype=dtype)
    for number, (what, k) in enumerate(steps):
        z = rows(k, number, dtype)
        if what in ("step", "encoded again") and k <= n:
            history = known[len(known) - min(len(known), max(0, window.span - k)) :]
            value, gradient = both(distance, z, window)
            with mk.use_backend("reference"):
                right, right_gradient = both(distance, z.double(), history.double())
            tolerance = {"rtol": 1e-9, "atol": 1e-11} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-5}
            torch.testing.assert_close(value.double(), right, **tolerance)
            torch.testing.assert_close(gradient.double(), right_gradient, **tolerance)
        if what == "span":
            window.measure_over(min(k, n))
        elif what == "reload":
            state, window = copy.deepcopy(window.state_dict()), MovingWindow(n, DIM, dtype=dtype)
            window.load_state_dict(state)
        elif what == "assign":
            window.latents = window.latents + 1
            known = known + 1
        elif what == "edit":
            window.latents.mul_(2)
            known = known * 2
        else:
            pushed = rows(k, 1000 + number, dtype) if what == "encoded again" else z
            (window.fill if what == "fill" else window.push)(pushed)
            known = torch.cat([known[:0] if what == "fill" else known, pushed])[-n:]
    window.measure_over(None)
    assert torch.equal(window.history(1), known[max(0, len(known) - (n - 1)) :])


@pytest.mark.parametrize("name", DISTANCES)
def test_they_begin_with_the_second_step_and_end_when_one_leaves_them_out(name: str) -> None:
    distance, window = DISTANCES[name](), MovingWindow(8, DIM, dtype=torch.float64)
    window.fill(rows(8, 0))
    z = rows(2, 1)
    seen = []
    for measured in (True, True, True, False, True, True):
        seen.append(is_running(distance, z, window) if measured else None)
        if measured:
            distance.measure(z, window)
        window.push(z)
    assert seen == [False, True, True, None, False, True]


def test_cramer_wolds_begin_when_the_window_is_full() -> None:
    """gamma depends on the rows present."""
    distance, window, seen = mow.CramerWold(), MovingWindow(6, DIM, dtype=torch.float64), []
    for step in range(8):
        z = rows(1, step)
        seen.append(is_running(distance, z, window))
        distance.measure(z, window)
        window.push(z)
    assert seen == [False] * 5 + [True] * 3


def test_two_distances_each_have_their_own() -> None:
    first, second, window = mow.MMD(), mow.CramerWold(), MovingWindow(8, DIM, dtype=torch.float64)
    window.fill(rows(8, 0))
    for step in range(4):
        z = rows(2, step)
        for distance in (first, second):
            with mk.use_backend("reference"):
                right = both(distance, z, window)
            torch.testing.assert_close(both(distance, z, window), right)
        assert is_running(first, z, window) == is_running(second, z, window) == (step > 0)
        window.push(z)


CHANGES: dict[str, Callable[[MovingWindow], Any]] = {
    "fill": lambda window: window.fill(rows(8, 7)),
    "an assignment": lambda window: setattr(window, "latents", window.latents.flip(0)),
    "an edit in place": lambda window: window.latents.add_(1),
    "a state": lambda window: window.load_state_dict(steady(mow.MMD(), k=1).state_dict()),
    "a turned ring": lambda window: window.head.add_(1).remainder_(8),
    "a dtype": lambda window: window.float().double(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_from_outside_is_noticed(change: str) -> None:
    distance = mow.MMD()
    window = steady(distance)
    z = rows(2, 50)
    assert is_running(distance, z, window)
    CHANGES[change](window)
    seen = both(distance, z, window)
    with mk.use_backend("reference"):
        torch.testing.assert_close(seen, both(distance, z, window.history(2)))


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda window: torch.load(_saved(window), weights_only=False)],
    ids=["deepcopy", "pickle"],
)
def test_a_copy_goes_its_own_way(copied: Callable[[MovingWindow], MovingWindow]) -> None:
    distance = mow.MMD()
    window = steady(distance)
    twin = copied(window)
    for step in range(3):
        z = rows(2, 60 + step)
        seen = both(distance, z, twin)
        with mk.use_backend("reference"):
            torch.testing.assert_close(seen, both(distance, z, twin.history(2)))
        twin.push(z)
    assert is_running(distance, z, window)


def _saved(window: MovingWindow) -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save(window, buffer)
    buffer.seek(0)
    return buffer


def test_double_backward_has_its_graph() -> None:
    distance = mow.CramerWold()
    window, z = steady(distance), rows(2, 70).requires_grad_()
    assert is_running(distance, z, window)
    penalties = []
    for history in (window, window.history(2)):
        (gradient,) = torch.autograd.grad(distance(z, history), z, create_graph=True)
        penalties.append(torch.autograd.grad(gradient.square().sum(), z)[0])
    torch.testing.assert_close(*penalties)


def test_a_resumed_training_goes_on_with_the_same_bits() -> None:
    """The sums are set up anew from the loaded window, to the bit as they were."""

    def trainer() -> Trainer:
        torch.manual_seed(0)
        encoder, decoder = torch.nn.Linear(5, DIM), torch.nn.Linear(DIM, 5)
        return Trainer(encoder, decoder, mow.CramerWold(log=True), MovingWindow(30, DIM), k=2)

    data = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    whole, first, second = trainer(), trainer(), trainer()
    stream = mow.ShuffledStream(data, seed=0)
    losses = [float(seen["loss"]) for seen in whole.run(stream, 60)]
    stream = mow.ShuffledStream(data, seed=0)
    resumed = [float(seen["loss"]) for seen in first.run(stream, 31)]
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    resumed += [float(seen["loss"]) for seen in second.run(stream, 60)]
    assert resumed == losses


def test_what_is_loaded_goes_on_from_running_sums() -> None:
    distance, z = mow.MMD(), rows(2, 7)
    window, other = steady(distance), MovingWindow(8, DIM, dtype=torch.float64)
    other.load_state_dict(copy.deepcopy(window.state_dict()))
    assert is_running(distance, z, other) and not is_running(distance, z, copy.deepcopy(other))
    assert all(map(torch.equal, both(distance, z, other), both(distance, z, window)))
    fresh = MovingWindow(8, DIM, dtype=torch.float64)
    fresh.fill(rows(8, 0))
    other.load_state_dict(fresh.state_dict())
    assert not is_running(distance, z, other)


def assert_as_directly(
    distance: mow.window.distances.KernelDistance,
    direct: mow.window.distances.KernelDistance,
    n: int,
    steps: list[tuple[str, int]],
) -> None:
    """Whatever happens between the steps: the value and the gradient of the same distance without what is kept."""
    window = MovingWindow(n, DIM, dtype=torch.float64)
    window.fill(rows(n, 100))
    for number, (what, k) in enumerate(steps):
        z = rows(k, number)
        if what == "unmeasured":
            window.push(z)
            continue
        for _ in range(2 if what == "twice" else 1):
            pairs = (distance, window), (direct, window.history(k))
            if what == "alone":
                seen, expected = (each.gradient(z, past) for each, past in pairs)
            else:
                seen, expected = (both(each, z, past) for each, past in pairs)
            torch.testing.assert_close(seen, expected, rtol=1e-10, atol=1e-12)
        if what == "load":
            distance.load_state_dict(copy.deepcopy(distance.state_dict()))
            window.load_state_dict(copy.deepcopy(window.state_dict()))
        elif what == "fill":
            window.fill(rows(n - 1, number))
        elif what == "span":
            window.measure_over(2 * k - 1)
        else:
            window.push({"again": rows(k, 50 + number), "other": rows(k + 1, number)}.get(what, z))


# A prior that moves along


def against_prior(name: str, n: int, seed: int = 0) -> mow.window.distances.KernelDistance:
    prior = mow.PriorWindow(n, DIM, mow.priors.Normal(torch.Generator().manual_seed(seed)), dtype=torch.float64)
    return {"mmd": mow.MMD, "cramer-wold": mow.CramerWold, "log": lambda prior: mow.CramerWold(prior, log=True)}[name](
        prior
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(["mmd", "cramer-wold", "log"]),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["push", "again", "other", "twice", "unmeasured", "load", "alone", "fill", "span"]),
            st.integers(1, 5),
        ),
        max_size=14,
    ),
)
def test_a_prior_that_moves_along_is_measured_as_directly(name: str, steps: list[tuple[str, int]]) -> None:
    n = 9
    assert_as_directly(against_prior(name, n), against_prior(name, n), n, steps)


@pytest.mark.parametrize("name", ["mmd", "cramer-wold"])
def test_a_prior_that_moves_along_is_in_step(name: str) -> None:
    distance = against_prior(name, 8)
    window = steady(distance)
    assert is_running(distance, rows(2, 0), window)
    (sums,) = window.kept.following.values()
    for step in range(5):
        distance.gradient(rows(1 + step % 3, step), window)
        window.push(rows(1 + step % 3, 20 + step))
    assert list(window.kept.following.values()) == [sums]  # never set up anew


# Sorted projections


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    given_directions=st.booleans(),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["push", "again", "other", "twice", "unmeasured", "load", "alone", "fill", "span"]),
            st.integers(1, 5),
        ),
        max_size=14,
    ),
)
def test_kept_directions_are_measured_as_directly(given_directions: bool, steps: list[tuple[str, int]]) -> None:
    def distance_of() -> mow.SlicedWasserstein:
        if given_directions:
            return mow.SlicedWasserstein(directions=torch.nn.functional.normalize(rows(6, 9).T[:, :5], dim=0))
        return mow.SlicedWasserstein(directions=6, keep=4, generator=torch.Generator().manual_seed(1))

    assert_as_directly(distance_of(), distance_of(), 9, steps)


def test_directions_are_kept_for_so_many_measurements() -> None:
    distance, z = mow.SlicedWasserstein(directions=4, keep=3), rows(2, 0)
    drawn = []
    for _ in range(8):
        distance.gradient(z, None)
        drawn.append(distance.options(z)["directions"])
    assert [a is b for a, b in zip(drawn, drawn[1:], strict=False)] == [True, True, False, True, True, False, True]
    loaded = mow.SlicedWasserstein(directions=4, keep=3)
    loaded.load_state_dict(copy.deepcopy(distance.state_dict()))
    assert torch.equal(loaded(z), distance(z))
    torch.manual_seed(5)
    first = loaded(z)
    torch.manual_seed(5)
    assert torch.equal(first, distance(z)) and not torch.equal(loaded.options(z)["directions"], drawn[-1])


def test_sorted_projections_begin_and_are_made_anew_for_new_directions() -> None:
    distance, window, seen = mow.SlicedWasserstein(directions=4, keep=3), MovingWindow(8, DIM, dtype=torch.float64), []
    window.fill(rows(8, 0))
    assert "they begin with the second" in distance.explain(rows(1, 0), window)
    for step in range(8):
        distance(rows(1, step), window)
        seen.append(list(window.kept.following.values()))
        window.push(rows(1, step))
    assert seen[0] == [] and seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6] == seen[7]
    assert "\n  from running sums" in distance.explain(rows(1, 0), window)


def test_what_explain_says() -> None:
    window = steady(mow.MMD())
    z = rows(2, 0)
    window.push(z)
    for _ in range(2):
        assert "not from running sums: they begin" in mow.MMD().explain(z, window)  # to look is not to measure
        window.push(z)
    assert "not from running sums: the directions are drawn" in mow.SlicedWasserstein().explain(z, window)
    assert "not from running sums: the prior is sampled" in mow.MMD("normal-sample").explain(z, window)
    assert "running" not in mow.MMD().explain(z, window.history(2))
    with mk.use_backend("reference"):
        assert "not from running sums: another backend" in mow.MMD().explain(z, window)


@pytest.mark.long
@pytest.mark.parametrize("name", ["mmd", "cramer-wold"])
def test_no_drift_over_two_hundred_thousand_pushes(name: str) -> None:
    distance, window = DISTANCES[name](), MovingWindow(4096, DIM)
    window.fill(rows(4096, 0, torch.float32))
    sizes = torch.randint(1, 9, (200_000,), generator=torch.Generator().manual_seed(1)).tolist()
    z = rows(200_000, 2, torch.float32)
    for step, k in enumerate(sizes):
        at = step % 190_000
        new = z[at : at + k] * (1 + step / 100_000)
        value = distance(new, window)
        if step % 40_000 == 39_999:
            with mk.use_backend("reference"):
                right = distance(new.double(), window.history(k).double())
            torch.testing.assert_close(value.double(), right, rtol=1e-6, atol=1e-6)
            assert is_running(distance, new, window)
        window.push(new if step % 2 else new.flip(0))


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize("change", ["window", "prior", "push"])
def test_a_second_derivative_of_what_was_changed_since_is_refused(moving: bool, change: str) -> None:
    if change == "prior" and not moving:
        pytest.skip("there is none")
    prior = mow.PriorWindow(8, DIM, dtype=torch.float64)
    distance = mow.MMD(prior) if moving else mow.MMD()
    window = steady(distance)
    z = rows(2, 0).requires_grad_()
    value = distance(z, window)
    if change == "push":
        window.push(z)
    else:
        (window if change == "window" else prior).latents.mul_(2)
    (first,) = torch.autograd.grad(value, z, create_graph=True)  # came with the value, and is that of then
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(first.sum(), z)
