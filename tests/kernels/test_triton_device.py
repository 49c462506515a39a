"""Every Triton kernel is launched on the device of its tensors: without a GPU, with tensors that have no memory."""

from __future__ import annotations

import ast
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bounds import CRAMER_WOLD, SCALES
from torch._subclasses.fake_tensor import FakeTensorMode

import mow_kernels as mk
from mow_kernels.backends import triton

pytestmark = pytest.mark.skipif(bool(triton.unavailable) or triton.INTERPRETED, reason="Triton has to compile here")

PACKAGE = Path(mk.__file__).parent
HERE, THERE = 0, 1


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The name of each kernel that is launched, with the device that is the current one at that moment."""
    from triton.runtime.jit import JITFunction

    from mow_kernels.triton import pairs, sliced_wasserstein

    current, seen = [HERE], []

    def exchange(device: int) -> int:
        before = current[0]
        if device >= 0:
            current[0] = device
        return before

    def run(kernel: Any, *arguments: Any, **options: Any) -> None:
        seen.append((kernel.__name__, current[0]))

    monkeypatch.setattr(torch.cuda, "_exchange_device", exchange)
    monkeypatch.setattr(torch.cuda, "_maybe_exchange_device", exchange)
    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(multi_processor_count=132))
    pairs._processors.cache_clear()
    monkeypatch.setattr(sliced_wasserstein, "_bins", lambda n, device: torch.empty(2, n, device=device).unbind())
    yield seen
    assert current == [HERE], "the device is not given back"
    pairs._processors.cache_clear()


OPTIONS: dict[str, Any] = {
    "mmd": ("imq", list(SCALES), "unbiased"),
    "cramer_wold": tuple(CRAMER_WOLD[0].values()),
    "sliced_wasserstein": (torch.Size((20, 5)), 2.0),
}


def launch(n: int) -> None:
    """Every distance once, to a sample and to N(0, I)."""
    for op, options in OPTIONS.items():
        current, history = torch.empty(1, 20), torch.empty(n - 1, 20)
        given = [torch.empty(x) if isinstance(x, torch.Size) else x for x in options]
        for prior in (history, None):
            for needs_value in (True, False):
                triton._kernels(op)(current, history, prior, *given, True, needs_value)


def test_every_launch_is_on_the_device_of_the_tensors(launches: list[tuple[str, int]]) -> None:
    launch(64)  # on the CPU, as on the interpreter: sets up the tables, which stand there
    assert {device for _, device in launches} == {HERE}
    launches.clear()
    with FakeTensorMode(), torch.device(f"cuda:{THERE}"):
        launch(64)  # in a few launches
        launch(3000)
    assert {device for _, device in launches} == {THERE}
    assert {name for name, _ in launches} == {name for path in PACKAGE.glob("triton/*.py") for name in launched(path)}


def launched(path: Path) -> set[str]:
    """The kernels that a file launches: name[grid](...)."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    names = {call.value.id for call in calls if isinstance(call, ast.Subscript) and isinstance(call.value, ast.Name)}
    return {name for name in names if not name.isupper()}  # a table of functions is none


def test_the_kernels_are_reached_through_the_backend_alone() -> None:
    """It is what sets the device."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent != PACKAGE / "triton" and path != PACKAGE / "backends/triton.py":
            assert "mow_kernels.triton" not in path.read_text(), path
