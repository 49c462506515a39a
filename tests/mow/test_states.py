"""What a state_dict holds: tensors alone, which is all that files of weights and other libraries take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import mow

MODULES: dict[str, Callable[[], nn.Module]] = {
    "a draw at each measurement": mow.SlicedWasserstein,
    "kept directions": lambda: mow.SlicedWasserstein(directions=4, keep=3),
    "given directions": lambda: mow.SlicedWasserstein(directions=torch.eye(3)),
    "MMD": mow.MMD,
    "Cramer-Wold to a moving prior": lambda: mow.CramerWold(mow.PriorWindow(8, 3)),
    "a window": lambda: mow.MovingWindow(8, 3),
}


@pytest.mark.parametrize("measured", [False, True])
@pytest.mark.parametrize("name", MODULES)
def test_tensors_alone(name: str, measured: bool) -> None:
    """Each has memory of its own, as safetensors wants it."""
    module = MODULES[name]()
    if measured and isinstance(module, mow.MovingWindow):
        module.push(torch.randn(2, 3))
    elif measured:
        module(torch.randn(2, 3))
    state = nn.ModuleDict({"model": nn.Linear(3, 3), "it": module}).state_dict()
    assert all(isinstance(value, Tensor) and value.is_contiguous() for value in state.values())
    filled = [value.data_ptr() for value in state.values() if value.numel()]
    assert len(set(filled)) == len(filled)
    MODULES[name]().load_state_dict(module.state_dict())


def test_kept_directions_come_back() -> None:
    distance, z = mow.SlicedWasserstein(directions=4, keep=5), torch.randn(3, 3)
    first = distance(z)
    for state in (
        distance.state_dict(),
        {"_extra_state": {"directions": distance.options(z)["directions"], "uses": 1}},
    ):
        loaded = mow.SlicedWasserstein(directions=4, keep=5)
        loaded.load_state_dict(state)  # the second as it was before there were tensors alone
        assert torch.equal(loaded(z), first) and loaded.state_dict()["uses"] == 2


def test_an_older_state_without_directions() -> None:
    older: dict[str, Any] = {"_extra_state": {"directions": None, "uses": 0}}
    mow.SlicedWasserstein().load_state_dict(older)
    mow.SlicedWasserstein(keep=2).load_state_dict(older)


def test_the_state_of_another_kind_is_refused() -> None:
    kept, not_kept = mow.SlicedWasserstein(keep=2), mow.SlicedWasserstein()
    with pytest.raises(RuntimeError, match='Unexpected key.*"drawn", "uses"'):
        not_kept.load_state_dict(kept.state_dict())
    with pytest.raises(RuntimeError, match='Missing key.*"drawn", "uses"'):
        kept.load_state_dict(not_kept.state_dict())
