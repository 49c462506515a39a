"""The captured step against the eager one. On the CPU, where tests/mow/rehearsal.py does what a CUDA graph does."""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from cuda_shim import library
from marks import needs_compiler
from rehearsal import DeviceGenerator, Rehearsal, as_on_a_device, torch_cuda
from torch import Tensor, nn

import mow
from mow import MovingWindow, ShuffledStream, Trainer
from mow.app import models
from mow.app.options import Options
from mow.app.run import Run
from mow.training import cuda_graph as graph
from mow.window.distances import Distance
from mow.window.priors import Normal

WIDTH, DIM, N = 5, 3, 6

sgd = functools.partial(torch.optim.SGD, lr=0.05)
momentum = functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9)
adam = functools.partial(torch.optim.Adam, lr=0.01, fused=True, capturable=True)


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> None:
    as_on_a_device(monkeypatch)


def trainer_of(distance: Distance | None = None, *, cuda_graph: bool, dropout: float = 0.0, **options: Any) -> Trainer:
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(WIDTH, 4), nn.Tanh(), nn.Dropout(dropout), nn.Linear(4, DIM))
    decoder = nn.Sequential(nn.Linear(DIM, 4), nn.Tanh(), nn.Linear(4, WIDTH))
    options = {"optimizer": adam, **options}
    window = MovingWindow(N, DIM)
    return Trainer(encoder, decoder, distance or mow.CramerWold(), window, cuda_graph=cuda_graph, **options)


def both(*args: Any, **options: Any) -> tuple[Trainer, Trainer]:
    """An eager trainer and a graphed one that begin alike."""
    return tuple(trainer_of(*copy.deepcopy(args), cuda_graph=cuda_graph, **options) for cuda_graph in (False, True))  # type: ignore[return-value]


def pictures(count: int, seed: int = 1) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def capture(trainer: Trainer) -> Rehearsal:
    assert trainer.graph is not None and isinstance(trainer.graph._capture, Rehearsal)
    return trainer.graph._capture


def run(trainer: Trainer, steps: int, data: Tensor | None = None, **options: Any) -> list[dict[str, Tensor]]:
    torch.manual_seed(7)
    stream = ShuffledStream(pictures(40) if data is None else data, seed=3)
    return [dict(result) for result in trainer.run(stream, steps, **options)]


def assert_equal(eager: Trainer, graphed: Trainer, expected: Any = (), results: Any = ()) -> None:
    """Bit for bit."""
    torch.testing.assert_close(results, expected, rtol=0, atol=0)
    one, other = (copy.deepcopy(trainer.state_dict()) for trainer in (eager, graphed))
    for group in (*one["optimizer"]["param_groups"], *other["optimizer"]["param_groups"]):
        group.pop("capturable", None)
    torch.testing.assert_close(other, one, rtol=0, atol=0)


DISTANCES = {
    "cramer-wold": mow.CramerWold,
    "logarithm": lambda: mow.CramerWold(log=True),
    "mmd": mow.MMD,
    "mmd, sampled": lambda: mow.MMD("normal-sample"),
    "cramer-wold, uniform": lambda: mow.CramerWold("uniform"),
    "sliced": mow.SlicedWasserstein,
    "sliced, sampled": lambda: mow.SlicedWasserstein("sphere", directions=7),
}


@pytest.mark.parametrize("k", [1, 2, 4, N])
@pytest.mark.parametrize("name", DISTANCES)
def test_the_steps_are_the_eager_ones(name: str, k: int) -> None:
    """Draws and all; at k = 4 each pass of 17 ends in a short batch."""
    eager, graphed = both(DISTANCES[name](), k=k)
    data = pictures(17)
    assert_equal(eager, graphed, run(eager, 30, data), run(graphed, 30, data))
    assert capture(graphed).recorded == 1 and capture(graphed).replayed > 10


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": None},
        {"optimizer": sgd},
        {"optimizer": momentum},
        {"weighting": "paper"},
        {"weighting": "reference", "root": True},
        {"reencode": False},
        {"weight": 3.0},
        {"dropout": 0.5},
    ],
    ids=str,
)
def test_with_every_option(options: dict[str, Any]) -> None:
    eager, graphed = both(mow.SlicedWasserstein(), k=2, **options)
    assert_equal(eager, graphed, run(eager, 20), run(graphed, 20))
    assert capture(graphed).replayed > 10


def test_the_window_is_the_one_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    graphed = trainer_of(cuda_graph=True, k=2)
    run(graphed, 20)
    monkeypatch.undo()
    eager = trainer_of(cuda_graph=False, k=2)
    run(eager, 20)
    torch.testing.assert_close(graphed.window.history(1), eager.window.history(1), rtol=1e-5, atol=1e-6)


def test_steps_are_captured_once_the_window_is_full() -> None:
    graphed = trainer_of(cuda_graph=True, k=2)
    counts = []
    for _ in graphed.run(pictures(40), 8, warm_up=False):
        counts.append((len(graphed.window), capture(graphed).warmed, capture(graphed).replayed))
    assert counts == [(2, 0, 0), (4, 0, 0), (6, 0, 0), (6, 1, 0), (6, 2, 0), (6, 3, 0), (6, 3, 1), (6, 3, 2)]


def test_a_short_batch_is_not_what_is_captured() -> None:
    """Not even as the first one with a full window."""
    graphed = trainer_of(cuda_graph=True, k=4)
    for count in (4, 2, 1, 4, 4, 4, 4, 3, 4):
        graphed.step(pictures(count))
    assert (capture(graphed).warmed, capture(graphed).replayed) == (3, 2)


def test_only_measured_steps_have_values() -> None:
    """Each kind of step has a capture of its own."""
    eager, graphed = both(k=2)
    options = {"measured": lambda step: step % 3 == 0}
    expected, results = run(eager, 40, **options), run(graphed, 40, **options)
    assert_equal(eager, graphed, expected, results)
    assert capture(graphed).recorded == 2 and len(results[1]) < len(results[2])


def test_results_are_of_their_own_step() -> None:
    """A later replay does not write into them."""
    graphed = trainer_of(cuda_graph=True)
    seen = [(result, copy.deepcopy(result)) for result in graphed.run(pictures(40), 12)]
    assert all(result == then for result, then in seen)
    assert len({float(result["loss"]) for result, _ in seen}) == 12


def test_draws_are_fresh_at_every_replay() -> None:
    graphed = trainer_of(mow.MMD("normal-sample"), cuda_graph=True, optimizer=functools.partial(sgd, lr=0.0), k=N)
    same = pictures(N)
    distances = [float(graphed.step(same)["distance"]) for _ in range(12)]
    assert len(set(distances)) == 12 and capture(graphed).replayed == 9


@pytest.mark.parametrize("where", ["prior", "window of the prior", "directions"])
def test_draws_from_a_generator_of_the_users_own(where: str) -> None:
    def distance() -> Distance:
        generator = torch.Generator().manual_seed(5)
        if where == "prior":
            return mow.MMD(Normal(generator))
        if where == "window of the prior":
            return mow.MMD(mow.PriorWindow(N, DIM, Normal(generator)))
        return mow.SlicedWasserstein(generator=generator)

    eager, graphed = trainer_of(distance(), cuda_graph=False), trainer_of(distance(), cuda_graph=True)
    assert len(capture(graphed).generators) == 2
    assert_equal(eager, graphed, run(eager, 12), run(graphed, 12))


def test_a_span_that_changes_is_captured_anew() -> None:
    eager, graphed = (
        trainer_of(cuda_graph=cuda_graph, adaptive=mow.AdaptiveSpan(every=9, least=3, staleness=50.0))
        for cuda_graph in (False, True)
    )
    spans = set()
    for trainer in (eager, graphed):
        torch.manual_seed(7)
        for _ in trainer.run(ShuffledStream(pictures(40), seed=3), 50):
            spans.add(trainer.window.span)
    assert_equal(eager, graphed)
    assert len(spans) > 1 and capture(graphed).recorded > 1 and capture(graphed).replayed > 10


def test_rows_that_are_carried_along_are_read_by_the_graph_that_there_is() -> None:
    eager, graphed = both(mow.CramerWold(), correction=mow.DriftCorrection(every=3))
    assert_equal(eager, graphed, run(eager, 30), run(graphed, 30))
    assert capture(graphed).recorded == 1 and capture(graphed).replayed > 10


def test_a_learning_rate_that_falls_is_read_by_every_replay() -> None:
    def of_tensor(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=torch.tensor(0.05), fused=True)

    falling = functools.partial(mow.Cosine, steps=15)
    eager, graphed = both(k=2, optimizer=of_tensor, scheduler=falling)
    run(eager, 20)
    run(graphed, 20)
    assert capture(graphed).recorded == 1
    for one, other in zip(eager.encoder.parameters(), graphed.encoder.parameters(), strict=True):
        assert torch.equal(other, one)
    state = copy.deepcopy(eager.state_dict())
    state["optimizer"]["param_groups"][0]["lr"] = 0.02  # of a trainer whose rate was a number
    graphed.load_state_dict(state)
    assert isinstance(graphed.optimizer.param_groups[0]["lr"], Tensor)
    with pytest.raises(ValueError, match="the optimizer's lr is a number, which a graph holds"):
        trainer_of(cuda_graph=True, scheduler=falling)


@pytest.mark.parametrize("last", ["replay", "eager"])
def test_gradients_are_those_of_the_last_step(last: str) -> None:
    eager, graphed = both(k=2)
    for trainer in (eager, graphed):
        run(trainer, 12)
        trainer.step(pictures(1, seed=8))
        if last == "replay":
            trainer.step(pictures(2, seed=9))
    for one, other in zip(eager.encoder.parameters(), graphed.encoder.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_any_function_of_tensors() -> None:
    """A regression, in which there is no window: what it is given to watch is all that the graph knows of it."""
    torch.manual_seed(0)
    eager = nn.Linear(WIDTH, 1)
    graphed, factor = copy.deepcopy(eager), [2.0]

    def step_of(line: nn.Linear, optimizer: torch.optim.Optimizer, x: Tensor, measure: bool) -> dict[str, Tensor]:
        optimizer.zero_grad()
        loss = factor[0] * (line(x) - 1).square().mean()
        loss.backward()
        optimizer.step()
        return {"loss": loss.detach(), "weight": line.weight.detach().norm()} if measure else {"loss": loss.detach()}

    steps = [functools.partial(step_of, line, sgd(line.parameters())) for line in (eager, graphed)]
    captured = graph.GraphedStep(
        steps[1],
        steps[1].args[1],
        device=torch.device("cpu"),
        generators=[],
        modules=lambda: [graphed],
        options=lambda: factor[0],
        repeats=lambda x: len(x) == 4,
    )
    for number in range(30):
        if number == 20:
            factor[0] = 1.0
        x, measure = pictures(3 if number % 7 == 6 else 4, seed=number), number % 2 == 0
        assert captured(x, measure) == steps[0](x, measure)
        assert torch.equal(graphed.weight, eager.weight) and torch.equal(graphed.weight.grad, eager.weight.grad)
    assert captured._capture.recorded == 4 and captured._capture.replayed > 5


def test_it_knows_no_trainer() -> None:
    """The module imports nothing of the package, not even for its types."""
    imported = [node for node in ast.walk(ast.parse(inspect.getsource(graph))) if isinstance(node, ast.ImportFrom)]
    assert [node.module for node in imported if (node.module or "").startswith("mow")] == []


@needs_compiler
@pytest.mark.parametrize("name, most", [("cramer-wold", 63), ("mmd", 63), ("sliced", 64)])
def test_the_launches_of_a_step(name: str, most: int) -> None:
    """At n = 64, k = 1 with the paper's networks for MNIST and Adam; the distance is one launch there."""
    torch.manual_seed(0)
    encoder, decoder = models.mlp_encoder((1, 28, 28), 20), models.mlp_decoder((1, 28, 28), 20)
    window = MovingWindow(64, 20)
    window.fill(torch.randn(64, 20))
    with library.ring_on_the_cpu():
        trainer = Trainer(encoder, decoder, DISTANCES[name](), window, k=1, optimizer=adam, cuda_graph=True)
        for _ in range(4):
            trainer.step(torch.rand(1, 1, 28, 28), measure=False)
    launches = capture(trainer).launches
    assert len(launches) <= most, launches
    assert sum("mow_kernels" in launch for launch in launches) == 2  # the distance over the ring, and the push


# What makes the capture void


@pytest.mark.parametrize("of", ["eager", "graphed"])
@pytest.mark.parametrize("optimizer", [adam, momentum])
def test_another_state(optimizer: Any, of: str) -> None:
    """The optimiser's state is in other memory from then on."""
    other = trainer_of(cuda_graph=of == "graphed", k=2, optimizer=optimizer)
    run(other, 14)
    state = copy.deepcopy(other.state_dict())
    for group in state["optimizer"]["param_groups"]:
        if of == "eager" and "capturable" in group:
            group["capturable"] = False
    eager, graphed = both(k=2, optimizer=optimizer)
    run(eager, 9), run(graphed, 9)
    for trainer in (eager, graphed):
        trainer.load_state_dict(copy.deepcopy(state))
    assert capture(graphed).recorded == 1
    assert_equal(eager, graphed, run(eager, 26), run(graphed, 26))
    assert capture(graphed).recorded == 2
    assert all(group.get("capturable", True) for group in graphed.optimizer.param_groups)


def test_a_state_that_does_not_fit_changes_nothing() -> None:
    eager, graphed = both(k=2)
    run(eager, 9), run(graphed, 9)
    with pytest.raises((KeyError, ValueError)):
        graphed.load_state_dict({**graphed.state_dict(), "optimizer": {"state": {}, "param_groups": []}})
    assert_equal(eager, graphed, run(eager, 20), run(graphed, 20))


def change_rate(trainer: Trainer) -> None:
    trainer.optimizer.param_groups[0]["lr"] = 0.002


def change_weight(trainer: Trainer) -> None:
    trainer.weight = 5.0


def evaluate(trainer: Trainer) -> None:
    trainer.encoder.eval()


def move(trainer: Trainer) -> None:
    for parameter in trainer.encoder.parameters():
        parameter.data = parameter.data.clone()


def replace_latents(trainer: Trainer) -> None:
    trainer.window._apply(torch.clone)


def forget(trainer: Trainer) -> None:
    trainer.distance.log = True
    if trainer.graph is not None:
        trainer.graph.forget()


def replace_directions(trainer: Trainer) -> None:
    trainer.distance.directions = torch.eye(DIM).flip(0)


@pytest.mark.parametrize(
    "change", [change_rate, change_weight, evaluate, move, replace_latents, replace_directions, forget]
)
def test_a_change_that_a_capture_would_miss(change: Any) -> None:
    eager, graphed = both(mow.SlicedWasserstein(directions=torch.eye(DIM)[:, :2]), k=2, dropout=0.3)
    for trainer in (eager, graphed):
        run(trainer, 10)
        change(trainer)
    assert_equal(eager, graphed, run(eager, 20), run(graphed, 20))
    assert capture(graphed).recorded == 2


@pytest.mark.parametrize("rows", [1, N - 1, 2 * N])
def test_a_window_that_starts_afresh(rows: int) -> None:
    eager, graphed = both(k=2)
    latents = torch.randn(rows, DIM)
    for trainer in (eager, graphed):
        run(trainer, 10)
        trainer.window.fill(latents)
    assert_equal(eager, graphed, run(eager, 20), run(graphed, 20))
    assert capture(graphed).recorded == 1


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_run(
    optimizer: Any, pictures_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_metrics: Callable
) -> None:
    """--cuda-graph changes no figure, and is restored with the other options."""
    monkeypatch.setattr(Run, "write_pictures", lambda run: None)
    monkeypatch.setattr(Run, "write_report", lambda run: None)
    small = {"n": 16, "dim": 4, "steps": 40, "log_every": 5, "evaluate_every": 20, "checkpoint_every": 10}
    options = Options(**small, model="swae", data=str(pictures_file), optimizer=optimizer)
    Run.start(options, tmp_path / "eager").train()
    Run.start(dataclasses.replace(options, steps=20, cuda_graph=True), tmp_path / "graphed").train()
    resumed = Run.resume(tmp_path / "graphed", steps=40)
    resumed.train()
    assert capture(resumed.trainer).replayed > 5
    assert read_metrics(tmp_path / "graphed") == read_metrics(tmp_path / "eager")


# What cannot be captured


class Reading(mow.CramerWold):
    """Waits for the device."""

    def measure(self, z: Tensor, window: Any = None) -> Tensor:
        value = super().measure(z, window)
        return value * float(value.detach() < 1e9)


class Copying(mow.CramerWold):
    """Copies from the host."""

    def measure(self, z: Tensor, window: Any = None) -> Tensor:
        return super().measure(z, window) * torch.tensor(2.0)


class Choosing(mow.CramerWold):
    """Has a shape that depends on values."""

    def measure(self, z: Tensor, window: Any = None) -> Tensor:
        return super().measure(z[z[:, 0].abs() < 1e9], window)


@pytest.mark.parametrize("distance", [Reading, Copying, Choosing])
def test_a_step_that_cannot_be_captured(distance: type[Distance]) -> None:
    eager, graphed = both(distance(), k=2)
    run(eager, 4), run(graphed, 4)
    steps = graphed.steps_done
    with pytest.raises(RuntimeError, match="cuda_graph is True and the step cannot be captured.*use cuda_graph=False"):
        graphed.step(pictures(2))
    assert_equal(eager, graphed)
    assert graphed.steps_done == steps and all(parameter.grad is None for parameter in graphed.encoder.parameters())


def test_what_was_captured_before_a_failure_is_void() -> None:
    """Steps without values are captured, one with values cannot be: all begin anew."""

    class Scaled(mow.CramerWold):
        factor: Any = 1.0

        def measure(self, z: Tensor, window: Any = None) -> Tensor:
            return super().measure(z, window) * float(self.factor)

    eager, graphed = both(Scaled(), k=2)
    silent = {"measured": lambda step: False}
    for trainer in (eager, graphed):
        run(trainer, 12, **silent)
        for _ in range(3):
            trainer.step(pictures(2))
    assert capture(graphed).recorded == 1
    graphed.distance.factor = torch.ones(())
    with pytest.raises(RuntimeError, match="cannot be captured.*captured elsewhere.*have to be captured anew"):
        graphed.step(pictures(2))
    graphed.distance.factor = 1.0
    assert capture(graphed).failed == 1
    assert_equal(eager, graphed, run(eager, 30, **silent), run(graphed, 30, **silent))
    assert capture(graphed).recorded == 2


def test_a_failed_capture_gives_the_generators_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch leaves them captured, and the memory pool as well: no draw and no capture would be possible any more."""
    monkeypatch.undo()
    default, own = torch_cuda(monkeypatch), DeviceGenerator()
    graphs = graph.CudaGraphs(torch.device("cuda:0"), [own])
    assert default.draw() == own.draw() == 4

    def step() -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    with pytest.raises(RuntimeError, match="previous error during capture"):
        graphs.record(step)
    assert default.draw() == own.draw() == 8
    replay, result = graphs.record(lambda: "result")
    replay()
    assert result == "result" and default.draw() == own.draw() == 12


@pytest.mark.parametrize(
    "optimizer, name",
    [
        (functools.partial(torch.optim.Adam, fused=True), "Adam"),
        (torch.optim.Adagrad, "Adagrad"),
    ],
)
def test_an_optimizer_that_cannot_be_captured(optimizer: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"the optimizer {name}; it must be SGD or one with capturable=True"):
        trainer_of(cuda_graph=True, optimizer=optimizer)


def test_directions_that_are_kept_for_some_steps() -> None:
    with pytest.raises(ValueError, match="cuda_graph is True and the distance's keep 5.*; it must be 1"):
        trainer_of(mow.SlicedWasserstein(keep=5), cuda_graph=True)


def test_it_needs_a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(ValueError, match="cuda_graph is True and the window is on cpu; it must be on a CUDA device"):
        trainer_of(cuda_graph=True)


@pytest.mark.parametrize("x", [torch.zeros(2, WIDTH + 1), torch.zeros(2, WIDTH).long(), torch.zeros(N + 1, WIDTH)])
def test_a_failed_step_leaves_everything_as_it_was(x: Tensor) -> None:
    eager, graphed = both(k=2)
    run(eager, 12), run(graphed, 12)
    with pytest.raises((ValueError, TypeError, RuntimeError)):
        graphed.step(x)
    assert_equal(eager, graphed, run(eager, 20), run(graphed, 20))
