"""What a window believes is what its buffers say, whoever wrote them, and a pass that does not train leaves buffers."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import mow
from mow.distributed import ShardedWindow

Window = mow.MovingWindow | ShardedWindow


def window_of(rows: int, n: int = 8, first: int = 0, kind: Callable[..., Any] = mow.MovingWindow) -> Any:
    """Rows [i, -i] for i = first, first + 1, ..., pushed one by one."""
    window = kind(n, 2)
    for i in range(first, first + rows):
        window.push(torch.tensor([[i, -i]], dtype=torch.float32))
    return window


def copy_buffers(source: nn.Module, target: nn.Module) -> None:
    with torch.no_grad():
        for theirs, own in zip(source.buffers(), target.buffers(), strict=True):
            own.copy_(theirs)


def give_buffers(source: nn.Module, target: nn.Module) -> None:
    for name, buffer in source.named_buffers():
        setattr(target, name, buffer.clone())


def load_by_assignment(source: nn.Module, target: nn.Module) -> None:
    target.load_state_dict(copy.deepcopy(source.state_dict()), assign=True)


def average(source: nn.Module, target: nn.Module) -> None:
    """Exponential moving averages of parameters take buffers over as they are."""
    averaged = AveragedModel(source)
    averaged.module = target
    averaged.update_parameters(source)


WAYS = [copy_buffers, give_buffers, load_by_assignment, average]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("before", [0, 3, 8, 11])
@pytest.mark.parametrize("rows", [0, 5, 13])
def test_a_window_follows_its_buffers(way: Callable[..., None], before: int, rows: int) -> None:
    source, target = window_of(rows), window_of(before, first=100)
    way(source, target)
    assert len(target) == min(rows, 8)
    assert torch.equal(target.history(1), source.history(1))
    for window in (source, target):
        window.push(torch.tensor([[50.0, 0.0]]))
    assert len(target) == len(source) and torch.equal(target.newest(len(target)), source.newest(len(source)))


@pytest.mark.parametrize("way", [copy_buffers, give_buffers, average])
def test_a_sharded_window_follows_its_buffers(way: Callable[..., None]) -> None:
    source, target = (window_of(rows, first=rows, kind=ShardedWindow) for rows in (5, 2))
    z = torch.randn(1, 2)
    target.gradient(mow.MMD(), z)  # which sets up sums over the rows that are there
    way(source, target)
    assert len(target) == 5
    for found, expected in zip(target.gradient(mow.MMD(), z), source.gradient(mow.MMD(), z), strict=True):
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(target.state_dict(), source.state_dict())


def test_a_copied_sharded_window() -> None:
    window = window_of(5, kind=ShardedWindow)
    assert len(copy.deepcopy(window)) == 5
    window.fill(torch.ones(2, 2))
    assert (len(window), len(copy.deepcopy(window))) == (2, 2)


class Model(nn.Module):
    def __init__(self, n: int = 8) -> None:
        super().__init__()
        self.encoder, self.window, self.distance = nn.Linear(2, 2), mow.MovingWindow(n, 2), mow.CramerWold()

    def forward(self, x: Tensor) -> Tensor:
        return self.distance(self.encoder(x), self.window)


def test_functional_call_measures_over_the_buffers_that_it_is_given() -> None:
    model, x = Model(), torch.randn(2, 2)
    for rows in (6, 2, 0, 7):  # fresh buffers each time, which may lie where the last ones did
        other = copy.deepcopy(model)
        other.window.push(torch.randn(rows, 2)) if rows else None
        state = {name: value.clone() for name, value in (*other.named_parameters(), *other.named_buffers())}
        assert torch.func.functional_call(model, state, (x,)) == other(x)
    assert len(model.window) == 0


@pytest.mark.parametrize("kind", [mow.MMD, mow.CramerWold])
def test_what_is_kept_does_not_outlive_the_rows(kind: Callable[[], Any]) -> None:
    distance, window, other = kind(), mow.MovingWindow(256, 2), mow.MovingWindow(256, 2)
    for _ in range(3):
        distance(z := torch.randn(1, 2), window if len(window) else window.fill(torch.randn(256, 2)) or window)
        window.push(z)
    assert "\n  from running sums" in distance.explain(z, window)
    window.count.fill_(130)
    other.fill(window.newest(130))
    torch.testing.assert_close(distance(z, window), distance(z, other))


def test_a_window_of_a_prior_follows_too() -> None:
    one, other = (mow.PriorWindow(4, 2) for _ in range(2))
    one.advance(3)
    copy_buffers(one, other)
    assert torch.equal(one.newest(4), other.newest(4))
    other.count.fill_(2)
    assert len(other) == 2


@pytest.mark.parametrize("kind", [mow.MovingWindow, ShardedWindow])
@pytest.mark.parametrize(("name", "value", "most"), [("count", 9, 8), ("count", -1, 8), ("head", 8, 7)])
def test_buffers_that_are_no_window(kind: Callable[..., Any], name: str, value: int, most: int) -> None:
    window = window_of(3, kind=kind)
    state = copy.deepcopy(window.state_dict())
    state[name].fill_(value)
    with pytest.raises(RuntimeError, match=f"{name} is {value}; it must be from 0 to {most}"):
        window.load_state_dict(state)
    assert len(window) == 3
    getattr(window, name).fill_(value)
    with pytest.raises(ValueError, match=f"{name} is {value}; it must be from 0 to {most} .*not averaged"):
        window.push(torch.ones(1, 2))
    window.fill(torch.ones(2, 2))
    assert len(window) == 2


def test_a_window_on_the_meta_device_is_printed_and_filled_elsewhere() -> None:
    with torch.device("meta"):
        window = mow.MovingWindow(4, 2)
    assert "present=0" in repr(window)
    window = window.to_empty(device="cpu")
    window.fill(torch.ones(3, 2))
    assert len(window) == 3


RANK = """
import sys, torch, torch.distributed as dist
from torch import nn
sys.path[:0] = sys.argv[3:]
from test_buffers import Model
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
model = Model()
if rank == 0:
    model.window.push(torch.randn(6, 2))
wrapped = nn.parallel.DistributedDataParallel(model)
wrapped(torch.randn(1, 2)).backward()
print(len(model.window), model.window.history(1).double().sum().item())
"""


@pytest.mark.skipif(not torch.distributed.is_available(), reason="no torch.distributed")
def test_a_broadcast_of_buffers(tmp_path: Path) -> None:
    """Rank 1 does not measure over nothing."""
    paths = [str(Path(__file__).parent), str(Path(mow.__file__).parents[1])]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store"), *paths],
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=120)[0].split() for rank in ranks]
    assert said[0][0] == "6" and said[0] == said[1]
