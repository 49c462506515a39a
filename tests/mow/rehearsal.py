"""What CUDA graphs do, done on the CPU: a step is recorded as its single operations and repeated on the same memory.

As on a device, whatever Python decided while recording stays as it was then, results are written where they were
written first, random numbers are drawn anew, and what a capture cannot hold is refused: reading a value on the host, a
shape that depends on values, a tensor made from the host's numbers.
"""

from __future__ import annotations

from collections.abc import Callable
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


class Rehearsal:
    """Stands in for `mow.training.cuda_graph.CudaGraphs`."""

    def __init__(self, device: torch.device, generators: list[torch.Generator]) -> None:
        self.generators = [torch.default_generator, *generators]
        self.warmed = self.recorded = self.replayed = 0

    def warm_up(self, step: Callable[[], T]) -> T:
        self.warmed += 1
        return step()

    def record(self, step: Callable[[], T]) -> tuple[Callable[[], None], T]:
        random = [generator.get_state() for generator in self.generators]
        recorder = Recorder()
        try:
            with recorder:
                result = step()
        finally:
            recorder.undo()
            for generator, state in zip(self.generators, random, strict=True):
                generator.set_state(state)
        self.recorded += 1

        def replay() -> None:
            self.replayed += 1
            recorder.replay()

        return replay, result


def as_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows and captures behave so."""
    monkeypatch.setattr(cuda_graph, "CudaGraphs", Rehearsal)
    monkeypatch.setattr(MovingWindow, "is_on_host", property(lambda window: False))
