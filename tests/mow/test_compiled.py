"""The compiled step against the eager one: in float64 to rounding, whatever is combined.

Most tests run what would be compiled as it stands, which takes no compiler; those that compile share what they can.
"""

from __future__ import annotations

import copy
import functools
import math
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import mow
from mow import MovingWindow, ShuffledStream, Trainer
from mow.app.cli import app
from mow.app.options import Options
from mow.training import compiled, step_graph
from mow.training.compiled import CompiledStep
from mow.training.precision import Frugal
from mow.training.step_graph import CompiledGraph, Function
from mow.training.updates import SGDRule
from mow.window.distances import Distance

WIDTH, DIM, N, K = 5, 3, 8, 3

adam = functools.partial(torch.optim.Adam, lr=0.01)
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": functools.partial(torch.optim.SGD, lr=0.05, weight_decay=0.1, maximize=False),
    "sgd, momentum": functools.partial(torch.optim.SGD, lr=0.05, momentum=0.9, dampening=0.3, fused=True),
    "sgd, nesterov": functools.partial(torch.optim.SGD, lr=0.02, momentum=0.8, nesterov=True, weight_decay=0.2),
    "sgd, maximize": functools.partial(torch.optim.SGD, lr=1e-3, maximize=True),
    "adam": adam,
    "adam, fused": functools.partial(adam, fused=True, betas=(0.8, 0.9), eps=1e-3),
    "adam, weight decay": functools.partial(adam, weight_decay=0.1),
    "adam, amsgrad": functools.partial(adam, amsgrad=True, maximize=True),
    "adamw": functools.partial(torch.optim.AdamW, lr=0.01, weight_decay=0.3),
    "rmsprop": functools.partial(torch.optim.RMSprop, lr=0.01),  # by its own step()
    "a tensor": functools.partial(torch.optim.Adam, lr=torch.tensor(0.01), fused=True),
}
DISTANCES: dict[str, Callable[[], Distance]] = {
    "cramer-wold": lambda: mow.CramerWold(log=True),
    "mmd": mow.MMD,
    "mmd, sampled": lambda: mow.MMD("normal-sample"),
    "moving prior": lambda: mow.CramerWold(mow.PriorWindow(N, DIM, dtype=torch.float64)),
    "sliced": lambda: mow.SlicedWasserstein(keep=3),
    "sliced, p = 1": lambda: mow.SlicedWasserstein("sphere", directions=7, p=1),
}


@pytest.fixture
def as_it_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compiled."""
    monkeypatch.setattr(compiled, "CompiledGraph", lambda function, owned: function)


def trainer_of(distance: Distance | None = None, *, compile: bool, batch_norm: bool = True, **options: Any) -> Trainer:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4) if batch_norm else nn.Identity()
    encoder = nn.Sequential(nn.Linear(WIDTH, 4, bias=not batch_norm), norm, nn.Tanh(), nn.Linear(4, DIM)).double()
    decoder = nn.Sequential(nn.Linear(DIM, 4), nn.Tanh(), nn.Linear(4, WIDTH)).double()
    options = {"k": K, "optimizer": adam, **options}
    window = MovingWindow(N, DIM, dtype=torch.float64)
    return Trainer(encoder, decoder, distance or mow.CramerWold(log=True), window, compile=compile, **options)


def both(distance: Callable[[], Distance] = DISTANCES["cramer-wold"], **options: Any) -> tuple[Trainer, Trainer]:
    """An eager trainer and a compiled one that begin alike."""
    trainers = []
    for compile in (False, True):
        torch.manual_seed(0)
        trainers.append(trainer_of(distance(), compile=compile, **options))
    return trainers[0], trainers[1]


def pictures(count: int = 20) -> Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def run(trainer: Trainer, steps: int, data: Tensor | None = None, **options: Any) -> list[dict[str, Tensor]]:
    """So many steps in all, with draws of their own; every second one measures."""
    torch.manual_seed(7 + trainer.steps_done)
    stream: Any = pictures() if data is None else data
    if trainer.position is None:
        stream = ShuffledStream(stream, seed=3)

    def measured(step: int) -> bool:
        return step % 2 == 0

    return [dict(result) for result in trainer.run(stream, steps, measured=measured, **options)]


def assert_close(eager: Trainer, other: Trainer, expected: Any = (), results: Any = ()) -> None:
    torch.testing.assert_close(results, expected, rtol=1e-9, atol=1e-11)
    one, two = (copy.deepcopy(trainer.state_dict()) for trainer in (eager, other))
    torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-11)


def graphs(trainer: Trainer) -> int:
    assert isinstance(trainer.compiled, CompiledStep)
    return len(trainer.compiled._functions)


def check(eager: Trainer, other: Trainer, steps: int = 20, **options: Any) -> None:
    assert_close(eager, other, run(eager, steps, **options), run(other, steps, **options))


# As it stands


@pytest.mark.usefixtures("as_it_stands")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str) -> None:
    eager, other = both(optimizer=OPTIMIZERS[name])
    check(eager, other)
    assert graphs(other) == 1
    check(eager, other, 30)


@pytest.mark.usefixtures("as_it_stands")
@pytest.mark.parametrize("name", DISTANCES)
def test_every_distance(name: str) -> None:
    check(*both(DISTANCES[name]))


@pytest.mark.usefixtures("as_it_stands")
@pytest.mark.parametrize(
    "options",
    [
        {"weighting": "paper"},
        {"weighting": "reference", "root": True},
        {"reencode": False},
        {"weight": 3.0},
        {"k": 1, "batch_norm": False},
        {"k": N, "batch_norm": False},
        {"refresh": 5},
        {"on_nonfinite": "ignore"},
        {"on_nonfinite": "skip"},
    ],
    ids=str,
)
def test_every_option(options: dict[str, Any]) -> None:
    check(*both(**options))


@pytest.mark.usefixtures("as_it_stands")
def test_a_growing_window_takes_one_graph() -> None:
    eager, other = both()
    check(eager, other, 12, warm_up=False)
    assert graphs(other) == 1


@pytest.mark.usefixtures("as_it_stands")
def test_running_sums_are_kept() -> None:
    eager, other = (
        Trainer(nn.Linear(WIDTH, DIM), nn.Linear(DIM, WIDTH), mow.MMD(), MovingWindow(256, DIM), compile=compile)
        for compile in (False, True)
    )
    other.load_state_dict(eager.state_dict())
    data = pictures(300).float()
    for trainer in (eager, other):
        run(trainer, 20, data)
        assert trainer.window.kept.in_use
    torch.testing.assert_close(other.state_dict(), eager.state_dict(), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("as_it_stands")
def test_groups_frozen_and_unused_parameters_and_ties() -> None:
    def made(compile: bool) -> Trainer:
        torch.manual_seed(0)
        shared = nn.Linear(DIM, DIM)
        encoder = nn.Sequential(nn.Linear(WIDTH, DIM), shared)
        decoder = nn.Sequential(shared, nn.Linear(DIM, WIDTH))
        decoder.register_parameter("unused", nn.Parameter(torch.ones(2)))
        encoder[0].bias.requires_grad_(False)

        def optimizer(parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
            first, *rest = dict.fromkeys(parameters)
            return torch.optim.AdamW([{"params": [first], "lr": 0.1}, {"params": rest, "weight_decay": 0.5}], lr=0.01)

        window = MovingWindow(N, DIM, dtype=torch.float64)
        encoder.double(), decoder.double()
        return Trainer(encoder, decoder, mow.MMD(), window, k=K, optimizer=optimizer, compile=compile)

    eager, other = made(False), made(True)
    check(eager, other)
    assert other.decoder.unused.tolist() == [1, 1]
    for trainer in (eager, other):
        trainer.encoder[0].bias.requires_grad_(True)  # which has fewer updates behind it than the others
    check(eager, other, 40)
    assert graphs(other) == 2 and other.encoder[0].bias.requires_grad


@pytest.mark.usefixtures("as_it_stands")
@pytest.mark.parametrize("kind", ["adam", "rmsprop"])
def test_a_schedule_changes_the_learning_rate_of_the_same_graph(kind: str) -> None:
    eager, other = both(optimizer=OPTIMIZERS[kind])
    for trainer in (eager, other):
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(trainer.optimizer, 20)
        torch.manual_seed(2)
        for _ in trainer.run(ShuffledStream(pictures(), seed=3), 15):
            schedule.step()
    assert_close(eager, other)
    assert graphs(other) == 1


@pytest.mark.usefixtures("as_it_stands")
@pytest.mark.filterwarnings("error")
def test_a_schedule_is_not_told_that_no_step_was_taken() -> None:
    trainer = trainer_of(compile=True, optimizer=OPTIMIZERS["sgd"])
    schedule = torch.optim.lr_scheduler.StepLR(trainer.optimizer, 3)
    run(trainer, 1)
    schedule.step()


@pytest.mark.usefixtures("as_it_stands")
def test_a_changed_option_of_the_optimizer_and_evaluation_mode_are_noticed() -> None:
    eager, other = both()
    check(eager, other, 5)
    for trainer in (eager, other):
        trainer.optimizer.param_groups[0]["betas"] = (0.5, 0.6)
    check(eager, other, 10)
    for trainer in (eager, other):
        trainer.encoder.eval()
    check(eager, other, 15)
    hooked: list[int] = []
    for trainer in (eager, other):
        trainer.optimizer.register_step_post_hook(lambda *_: hooked.append(1))
    check(eager, other, 20)
    assert len(hooked) == 10


@pytest.mark.usefixtures("as_it_stands")
def test_gradients_of_an_eager_step_do_not_stay() -> None:
    trainer = trainer_of(compile=True)
    run(trainer, 12)  # the last one is short
    assert trainer.encoder[0].weight.grad is not None
    run(trainer, 13)
    assert all(p.grad is None for p in (*trainer.encoder.parameters(), *trainer.decoder.parameters()))


# What is not finite


def poisoned(trainer: Trainer, bad: float = math.nan) -> tuple[Any, Any]:
    """The states before and after a step with a picture that is not finite."""
    run(trainer, 4)
    before = copy.deepcopy(trainer.state_dict())
    x = pictures()[:K].clone()
    x[0, 0] = bad
    try:
        trainer.step(x)
    except FloatingPointError as error:
        assert trainer.on_nonfinite == "stop" and "the loss of step 5 is not finite" in str(error)
    after = copy.deepcopy(trainer.state_dict())
    return before, after


def check_refusals(trainer: Trainer) -> None:
    for word, done, skipped in (("stop", 4, 0), ("skip", 5, 1)):
        trainer.on_nonfinite, trainer._finite.on_nonfinite = word, word
        beginning = copy.deepcopy(trainer.state_dict())
        before, after = poisoned(trainer)
        assert (after.pop("steps_done"), after.pop("steps_skipped")) == (done, skipped)
        for state in (before, after):
            for name in ("steps_done", "steps_skipped", "pictures_seen"):
                state.pop(name, None)
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        run(trainer, 8)
        assert all(p.isfinite().all() for p in trainer.encoder.parameters())
        trainer.load_state_dict(beginning)
        trainer.position = None


@pytest.mark.usefixtures("as_it_stands")
@pytest.mark.parametrize("name", ["adam", "sgd, momentum", "rmsprop"])
def test_a_refused_step_changes_nothing(name: str) -> None:
    check_refusals(trainer_of(compile=True, optimizer=OPTIMIZERS[name]))


# What cannot be


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cuda_graph": True}, "compile is True and cuda_graph"),
        ({"scaler": torch.amp.GradScaler("cpu")}, "compile is True and there is a scaler"),
        ({"exchange": mow.training.exchange.Exchange()}, "compile is True and there is an exchange"),
    ],
)
def test_what_cannot_be_had_together(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trainer_of(compile=True, **options)


@pytest.mark.usefixtures("as_it_stands")
def test_networks_are_refused_as_by_the_eager_step() -> None:
    trainer = trainer_of(compile=True)
    trainer.encoder.register_forward_hook(lambda module, inputs, z: (z, z))
    with pytest.raises(TypeError, match="the encoder gives a tuple"):
        trainer.step(pictures()[:K])
    trainer = trainer_of(compile=True)
    with pytest.raises(ValueError, match="the decoder gives shape"):
        trainer.decoder[-1] = nn.Linear(4, WIDTH + 1).double()
        trainer.step(pictures()[:K])


def test_what_cannot_be_compiled_is_an_error_that_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(graph: Any, inputs: Any) -> Any:
        raise ImportError("no compiler")

    trainer = trainer_of(compile=True, optimizer=OPTIMIZERS["sgd"])
    monkeypatch.setattr(step_graph, "inductor", refuse)
    before = copy.deepcopy(trainer.state_dict())
    with pytest.raises(
        RuntimeError, match="(?s)compile is True and the step cannot be compiled; use compile=False .*no compiler"
    ):
        trainer.step(pictures()[:K])
    torch.testing.assert_close(trainer.state_dict(), before, rtol=0, atol=0)


def test_a_distance_raises_its_own_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Distance):
        def value(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
            raise KeyError("mine")

    monkeypatch.setattr(compiled, "CompiledGraph", lambda function, owned: function)
    trainer = trainer_of(Broken(), compile=True, optimizer=OPTIMIZERS["sgd"])
    with pytest.raises(KeyError, match="mine"):
        trainer.step(pictures()[:K])


def test_importing_mow_does_not_import_the_compiler() -> None:
    import subprocess
    import sys

    code = "import sys, mow; sys.exit('torch._inductor.compile_fx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# The command line


@pytest.mark.usefixtures("as_it_stands")
def test_the_command_line_says_what_compiling_took_and_resumes_to_the_bit(pictures_file: Path, tmp_path: Path) -> None:
    given = ["train", "--data", str(pictures_file), "--n", "16", "--dim", "4", "--compile", "--checkpoint-every", "5"]
    for name, steps in (("whole", "20"), ("parts", "11")):
        ran = CliRunner().invoke(app, [*given, "--steps", steps, "--out", str(tmp_path / name)])
        assert ran.exit_code == 0 and ran.output.count("compiled in 0 s") == 1, ran.output
    again = CliRunner().invoke(app, ["train", "--resume", str(tmp_path / "parts"), "--steps", "20"])
    assert again.exit_code == 0 and "compiled in" in again.output, again.output
    one, two = (torch.load(tmp_path / name / "checkpoint.pt")["trainer"] for name in ("whole", "parts"))
    torch.testing.assert_close(two, one, rtol=0, atol=0)


def test_the_options_of_a_run_that_cannot_be_had_together() -> None:
    with pytest.raises(ValueError, match="compile is True and checkpointing True"):
        Options(compile=True, checkpointing=True).resolved()


@pytest.mark.usefixtures("as_it_stands")
def test_half_precision() -> None:
    def made(compile: bool) -> Trainer:
        torch.manual_seed(0)
        networks = (Frugal(net, precision="bf16") for net in (nn.Linear(WIDTH, DIM), nn.Linear(DIM, WIDTH)))
        return Trainer(*networks, mow.MMD(), MovingWindow(N, DIM), k=K, compile=compile)

    eager, other = made(False), made(True)
    for trainer in (eager, other):
        run(trainer, 10, pictures().float())
    torch.testing.assert_close(other.state_dict(), eager.state_dict(), rtol=1e-2, atol=1e-3)


# What the compiler is given


def made(trainer: Trainer) -> Function:
    assert trainer.compiled is not None and trainer.compiled._built is not None
    return trainer.compiled._built.function


@pytest.mark.usefixtures("as_it_stands")
def test_a_step_gives_what_its_middle_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the graph would use its memory again, which the results of the step are read from afterwards."""
    trainer, given = trainer_of(compile=True, optimizer=OPTIMIZERS["sgd"]), []
    trainer.step(pictures()[:K])
    whole, slopes = made(trainer), compiled.slopes
    monkeypatch.setattr(compiled, "slopes", lambda *all: given.extend(all[:2]) or slopes(*all))
    found: list[Any] = []
    trainer.compiled._built.function = lambda *all: found.extend(whole(*all)) or found
    trainer.step(pictures()[:K])
    assert [id(each) for each in found[:2]] == [id(each) for each in given] and len(found) == 3


@pytest.mark.usefixtures("as_it_stands")
def test_the_largest_parameters_are_updated_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler writes down a gradient that reads what is written before it is read."""
    order: list[int] = []
    update = SGDRule.update
    monkeypatch.setattr(SGDRule, "update", lambda rule, p, *rest: order.append(p.numel()) or update(rule, p, *rest))
    trainer_of(compile=True, optimizer=OPTIMIZERS["sgd"]).step(pictures()[:K])
    assert len(order) > 6 and order == sorted(order, reverse=True)


@pytest.mark.parametrize("late", [False, True])
def test_a_new_value_is_read_where_it_is_written_unless_the_old_one_is_still_read(late: bool) -> None:
    graph, ops = torch.fx.Graph(), torch.ops.aten
    weight, gradient = graph.placeholder("weight"), graph.placeholder("gradient")
    new = graph.call_function(ops.add.Tensor, (weight, gradient))
    again = graph.call_function(ops.mul.Tensor, (new, new))
    old = [graph.call_function(ops.neg.default, (weight,))] if late else []
    copy = graph.call_function(ops.copy_.default, (weight, new))
    graph.output((again, *old))
    step_graph.read_where_it_is_written(graph)
    graph.lint()
    assert again.args == ((new, new) if late else (copy, copy)) and copy.args == (weight, new)


# Compiled


def test_compiled_steps_are_the_eager_ones(tmp_path: Path) -> None:
    """Short batches, a growing window, refreshing, distances, weightings, refusals and resuming, by one graph."""
    eager, other = both(refresh=7)
    check(eager, other, 20, warm_up=False)
    assert other.compiled.seconds > 0 and graphs(other) == 1
    check_when_the_compiler_is_asked(eager, other)
    beginning = other.save(tmp_path / "beginning.pt")
    for steps, weighting, root, distance in (
        (30, "paper", False, "mmd, sampled"),
        (40, "reference", True, "sliced"),
        (50, "compensated", False, "cramer-wold"),
    ):
        for trainer in (eager, other):
            trainer.weighting, trainer.root, trainer.distance = weighting, root, DISTANCES[distance]()
        check(eager, other, steps)
    for trainer in (eager, other):
        trainer.refresh = None
    kept = copy.deepcopy(other.state_dict())
    other.load_state_dict(torch.load(beginning, weights_only=True)["trainer"])
    other.steps_done = 0
    other.position = None
    check_refusals_from(other)
    other.load_state_dict(kept)
    assert graphs(other) == 1, "all by the same graph"


def check_when_the_compiler_is_asked(eager: Trainer, other: Trainer) -> None:
    """A step passes it by, but not where the tensors have gone elsewhere or PyTorch is set in another way."""
    graph, asked = made(other), 0
    assert isinstance(graph, CompiledGraph)
    compiler = graph._asked

    def counted(*arguments: Any) -> Any:
        nonlocal asked
        asked += 1
        return compiler(*arguments)

    graph._asked = counted

    def again(change: Callable[[], Any], expected: int) -> None:
        nonlocal asked
        change()
        asked = 0
        for _ in range(2):
            for trainer in (eager, other):
                trainer.step(pictures()[:K])
        assert asked == expected
        assert_close(eager, other)

    def move() -> None:
        for trainer in (eager, other):
            for parameter in trainer.encoder.parameters():
                parameter.data = parameter.data.clone()

    again(lambda: None, 0)
    again(move, 1)
    again(lambda: setattr(graph, "_settings", types.SimpleNamespace(check=lambda: False)), 1)
    graph._asked = compiler


def check_refusals_from(trainer: Trainer) -> None:
    trainer.optimizer.param_groups[0]["lr"] = 0.02
    check_refusals(trainer)


@pytest.mark.long  # compiles twice
def test_a_compiled_training_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    """Compiled again by the second trainer."""
    one = trainer_of(mow.SlicedWasserstein("normal-sample"), compile=True, optimizer=OPTIMIZERS["sgd"])
    run(one, 6)
    path = one.save(tmp_path / "trainer.pt")
    torch.manual_seed(11)
    list(one.run(pictures(), 20))
    two = trainer_of(mow.SlicedWasserstein("normal-sample"), compile=True, optimizer=OPTIMIZERS["sgd"])
    again = Trainer.load(path, two.encoder, two.decoder, two.distance, optimizer=OPTIMIZERS["sgd"], compile=True)
    torch.manual_seed(11)
    list(again.run(pictures(), 20))
    torch.testing.assert_close(again.state_dict(), one.state_dict(), rtol=0, atol=0)
    assert graphs(again) == 1
