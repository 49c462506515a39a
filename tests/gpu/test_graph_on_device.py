"""The training step in a CUDA graph, on a device. tests/mow/test_graph.py has what a stand-in on the CPU can show."""

from __future__ import annotations

import copy
import functools
from typing import Any

import pytest
import torch
from targets import Target
from torch import Tensor

import mow
import mow_kernels as mk
from mow import MovingWindow, ShuffledStream, Trainer
from mow.app import models
from mow.window.distances import Distance
from mow.window.priors import Normal
from mow_kernels.registry import TABLE

N, DIM, SHAPE = 64, 20, (1, 28, 28)

DISTANCES = {
    "mmd": mow.MMD,
    "mmd, sampled": lambda: mow.MMD("normal-sample"),
    "cramer-wold": lambda: mow.CramerWold(log=True),
    "sliced": mow.SlicedWasserstein,
    "sliced, sampled": lambda: mow.SlicedWasserstein("normal-sample"),
}

FROZEN = functools.partial(torch.optim.SGD, lr=0.0)


def trainer_of(gpu: Target, distance: Distance, **options: Any) -> Trainer:
    torch.manual_seed(0)
    encoder = models.mlp_encoder(SHAPE, DIM).to(gpu.device)
    decoder = models.mlp_decoder(SHAPE, DIM).to(gpu.device)
    window = MovingWindow(N, DIM, device=gpu.device)
    return Trainer(encoder, decoder, distance, window, **options)


def run(trainer: Trainer, steps: int) -> list[dict[str, float]]:
    torch.manual_seed(1)
    data = torch.rand(103, *SHAPE, generator=torch.Generator().manual_seed(2))
    results = trainer.run(ShuffledStream(data, seed=3), steps, measured=lambda step: step % 5 == 0)
    return [{name: float(value) for name, value in result.items()} for result in results]


def weights(trainer: Trainer) -> list[Tensor]:
    return [*trainer.encoder.parameters(), *trainer.decoder.parameters(), trainer.window.history(1)]


@pytest.mark.parametrize("k", [1, 8, N])
@pytest.mark.parametrize("name", DISTANCES)
def test_the_steps_are_the_eager_ones(gpu: Target, name: str, k: int) -> None:
    """Draws and all, with short batches in between."""
    eager, graphed, again = (trainer_of(gpu, DISTANCES[name](), k=k, cuda_graph=x) for x in (False, True, True))
    with mk.use_backend(gpu.backend):
        expected, results, same = (run(trainer, 60) for trainer in (eager, graphed, again))
    assert results == same, "not the same bits from run to run"
    assert all(map(torch.equal, weights(graphed), weights(again)))
    for one, other in zip(expected, results, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-4)
    for one, other in zip(weights(eager), weights(graphed), strict=True):
        torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-3)


def test_a_state_goes_on(gpu: Target) -> None:
    eager, graphed = (trainer_of(gpu, mow.SlicedWasserstein(), cuda_graph=x) for x in (False, True))
    with mk.use_backend(gpu.backend):
        run(graphed, 30)
        state = graphed.state_dict()  # whose tensors are the trainer's own
        eager.load_state_dict(copy.deepcopy(state))
        graphed.load_state_dict(state)
        assert run(graphed, 60)[-1] == pytest.approx(run(eager, 60)[-1], rel=1e-3, abs=1e-4)


def test_draws_are_fresh_at_every_replay(gpu: Target) -> None:
    """From the default generator and from the user's own."""
    for generator in (None, torch.Generator(gpu.device).manual_seed(4)):
        trainer = trainer_of(gpu, mow.MMD(Normal(generator)), k=N, optimizer=FROZEN, cuda_graph=True)
        same = torch.rand(N, *SHAPE)
        with mk.use_backend(gpu.backend):
            assert len({float(trainer.step(same)["distance"]) for _ in range(20)}) == 20


def test_a_graph_keeps_the_tables_that_it_reads(gpu: Target) -> None:
    """The cache that made them has room for 256 of another size."""
    distance = mow.SlicedWasserstein(directions=torch.eye(DIM, device=gpu.device))
    trainer = trainer_of(gpu, distance, k=N, optimizer=FROZEN, cuda_graph=True)
    x = torch.rand(N, *SHAPE)
    with mk.use_backend(gpu.backend):
        before = [float(trainer.step(x)["distance"]) for _ in range(5)]
        for rows in range(100, 400):
            mk.sliced_wasserstein(torch.randn(rows, DIM, device=gpu.device))
        torch.full((2**20,), torch.nan, device=gpu.device)
        assert {*before, float(trainer.step(x)["distance"])} == {before[0]}


def test_nothing_waits_for_the_device(gpu: Target) -> None:
    trainer = trainer_of(gpu, mow.SlicedWasserstein(), cuda_graph=True)
    x = torch.rand(1, *SHAPE, device=gpu.device)
    with mk.use_backend(gpu.backend):
        run(trainer, 10)
        for _ in range(10):
            trainer.step(x)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            trainer.step(x)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_a_step_that_waits_cannot_be_captured(gpu: Target) -> None:
    trainer = trainer_of(gpu, mow.CramerWold(), k=N, cuda_graph=True)
    x = torch.rand(N, *SHAPE, device=gpu.device)
    with mk.use_backend(gpu.backend), mk.check_finite():
        for _ in range(3):
            trainer.step(x)
        before = [weight.clone() for weight in weights(trainer)]
        with pytest.raises(RuntimeError, match="cannot be captured"):
            trainer.step(x)
    assert torch.cuda.current_stream() == torch.cuda.default_stream()
    assert torch.isfinite(torch.randn(3, device=gpu.device)).all(), "the generator is not given back"
    assert all(map(torch.equal, before, weights(trainer)))
    with mk.use_backend(gpu.backend):
        assert torch.isfinite(trainer.step(x)["loss"])


@pytest.mark.parametrize("function", [mk.mmd, mk.cramer_wold, mk.sliced_wasserstein])
@pytest.mark.parametrize("n", [N, 2000])
def test_a_gradient_reads_a_ring_where_it_is(gpu: Target, function: Any, n: int) -> None:
    """To the bits of a copy, as in a captured step."""
    if TABLE[mk.distance_row(function).name][gpu.backend].ring is None:
        pytest.skip("it takes a copy")
    slots, z = torch.randn(n, DIM, device=gpu.device), torch.randn(2, DIM, device=gpu.device)
    options = {"directions": torch.eye(DIM, device=gpu.device)} if function is mk.sliced_wasserstein else {}
    past = mk.Ring(slots, torch.tensor(7, device=gpu.device)).last(n - 2)
    with mk.use_backend(gpu.backend):
        for measure in (True, False):
            seen = mk.gradient(function, z, past, measure=measure, **options)
            copied = mk.gradient(function, z, past.rows(), measure=measure, **options)
            assert torch.equal(seen[0], copied[0]) and (not measure or torch.equal(seen[1], copied[1]))
