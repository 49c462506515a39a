"""What CUDA graphs do, done on the CPU: a step is recorded as its single operations and repeated on the same memory.

As on a device, whatever Python decided while recording stays as it was then, results are written where they were
written first, random numbers are drawn anew, and what a capture cannot hold is refused: reading a value on the host, a
shape that depends on values, a tensor made from the host's numbers.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mow import MovingWindow
from mow.training import cuda_graph

T = TypeVar("T")

REFUSED = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def storage(x: Tensor) -> int:
    return x.untyped_storage()._cdata


class Recorder(TorchDispatchMode):
    """Runs the operations, keeps them, and can undo what they did to tensors that were there before."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], tuple, dict, Any]] = []
        self.before: dict[int, tuple[Tensor, Tensor]] = {}
        self.made: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        given = tensors((args, kwargs))
        if function is torch.ops.aten.index.Tensor:
            refused = any(x.dtype == torch.bool for x in given[1:])  # a mask; other indices have their shape
        else:
            refused = REFUSED.intersection(function.tags) or function is torch.ops.aten.lift_fresh.default
        if refused:
            raise RuntimeError(f"operation not permitted when stream is capturing: {function}")
        if function._schema.is_mutable:
            for x in given:
                if storage(x) not in self.made:
                    flat = torch.empty(0, dtype=x.dtype).set_(x.untyped_storage())
                    self.before.setdefault(storage(x), (flat, flat.clone()))
        result = function(*args, **kwargs)
        there = {storage(x) for x in given}
        self.made |= {storage(x) for x in tensors(result)} - there
        self.operations.append((function, args, kwargs, result))
        return result

    def undo(self) -> None:
        with torch.no_grad():
            for x, content in self.before.values():
                x.copy_(content)

    @torch.no_grad()
    def replay(self) -> None:
        for function, args, kwargs, result in self.operations:
            there = {storage(x) for x in tensors((args, kwargs))}
            for target, source in zip(tensors(result), tensors(function(*args, **kwargs)), strict=True):
                if storage(target) not in there:  # no view, and not in place
                    target.copy_(source)


def launches(operations: list[tuple[Callable[..., Any], tuple, dict, Any]]) -> list[str]:
    """The names of those of a recording that a device would have work for, each taken for one launch.

    Not views and empty memory. Nor the copies of the gradients of parameters: autograd hands on what nobody else holds,
    and only the recording does.
    """
    made: dict[int, str] = {}
    found = []
    for function, args, kwargs, result in operations:
        name, given = str(function), {storage(x) for x in tensors((args, kwargs))}
        is_view = not function._schema.is_mutable and all(storage(x) in given for x in tensors(result))
        if name == "aten.copy_.default" and made.get(storage(args[0])) == "aten.new_empty_strided.default":
            continue
        made |= {storage(x): name for x in tensors(result) if storage(x) not in made}
        if not is_view and "empty" not in name and not name.startswith("profiler."):
            found.append(name)
    return found


class Rehearsal:
    """Stands in for `mow.training.cuda_graph.CudaGraphs`."""

    def __init__(self, device: torch.device, generators: list[torch.Generator]) -> None:
        self.generators = [torch.default_generator, *generators]
        self.warmed = self.recorded = self.replayed = self.failed = 0

    def warm_up(self, step: Callable[[], T]) -> T:
        self.warmed += 1
        return step()

    def record(self, step: Callable[[], T]) -> tuple[Callable[[], None], T]:
        random = [generator.get_state() for generator in self.generators]
        recorder = Recorder()
        try:
            with recorder:
                result = step()
        except BaseException:
            self.failed += 1
            raise
        finally:
            recorder.undo()
            for generator, state in zip(self.generators, random, strict=True):
                generator.set_state(state)
        self.recorded += 1
        self.launches = launches(recorder.operations)
        failed = self.failed

        def replay() -> None:
            assert self.failed == failed, "what was recorded before a failure draws from a state that is no generator's"
            self.replayed += 1
            recorder.replay()

        return replay, result


class DeviceGenerator:
    """A generator as CUDA has them: with a state that graphs share, and that refuses draws while it is captured."""

    device = torch.device("cuda:0")

    def __init__(self, offset: int = 0) -> None:
        self.state = SimpleNamespace(offset=offset, captured=False)

    def clone_state(self) -> DeviceGenerator:
        return DeviceGenerator(self.state.offset)

    def graphsafe_set_state(self, other: DeviceGenerator) -> None:
        self.state = other.state

    def draw(self) -> int:
        if self.state.captured:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        self.state.offset += 4
        return self.state.offset


class DeviceGraph:
    """A graph as torch.cuda has them, without work in it: what a capture does to generators and to its memory."""

    def __init__(self) -> None:
        self.states: list[Any] = []

    def register_generator_state(self, generator: DeviceGenerator) -> None:
        self.states.append(generator.state)

    def replay(self) -> None:
        pass


def torch_cuda(monkeypatch: pytest.MonkeyPatch) -> DeviceGenerator:
    """Replaces what `CudaGraphs` calls in torch.cuda. -> the default generator."""
    default, pools, spoilt = DeviceGenerator(), itertools.count(), set()

    @contextlib.contextmanager
    def capture(graph: DeviceGraph, pool: int, stream: Any) -> Iterator[None]:
        """It ends with an error after one within, and then leaves everything as it stands: PyTorch 2.11 to 2.13 do."""
        if pool in spoilt:
            raise RuntimeError("beginAllocateToPool: already recording to mempool_id")
        states = [default.state, *graph.states]
        for state in states:
            state.captured = True
        try:
            yield
        except BaseException as error:
            spoilt.add(pool)
            raise RuntimeError("operation failed due to a previous error during capture") from error
        for state in states:
            state.captured = False

    stand_ins = {
        "default_generators": (default,),
        "CUDAGraph": DeviceGraph,
        "graph": capture,
        "graph_pool_handle": lambda: next(pools),
        "Stream": lambda device: SimpleNamespace(device_index=0),
        "current_stream": lambda device: None,
        "stream": contextlib.nullcontext,
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    return default


def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and captures behave so."""
    monkeypatch.setattr(cuda_graph, "CudaGraphs", Rehearsal)
    monkeypatch.setattr(MovingWindow, "is_on_host", property(lambda window: False))
