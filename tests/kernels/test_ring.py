"""The kernels for a window's ring, compiled for the CPU (tests/cuda_shim), against what the window does on the host."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from cuda_shim import library
from marks import needs_compiler

import mow
import mow_kernels as mk
from mow_kernels import ring

pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def device() -> Iterator[None]:  # set up before what a test patches, and so torn down after it
    with library.ring_on_the_cpu():
        yield
    library.turn()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n, dim", [(1, 1), (7, 3), (1500, 4)])
def test_a_window_that_only_the_device_knows(
    n: int, dim: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1,025 rows and more the head is moved by a launch of its own."""
    windows = [mow.MovingWindow(n, dim, dtype=dtype) for _ in range(2)]
    for number, k in enumerate((1, 2, 1, n, 1200, 1, 3)):
        library.turn(order=number % 3)
        rows = torch.randn(dim, 2 * k, dtype=dtype).T[::2]  # strided
        for window, on_host in zip(windows, (True, False), strict=True):
            monkeypatch.setattr(mow.MovingWindow, "is_on_host", property(lambda _, here=on_host: here))
            before = window.state()
            window.push(rows)
            assert window.state() != before
        host, seen = windows
        assert torch.equal(seen.latents, host.latents) and torch.equal(seen.head, host.head)
        assert torch.equal(seen.history(1), host.history(1)) and torch.equal(seen.newest(0), host.newest(0))


def test_without_kernels_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    slots = torch.randn(5, 2)
    results = []
    for there in (True, False):
        monkeypatch.setattr(ring, "fused", lambda _, there=there: there)
        window = mk.Ring(slots.clone(), torch.tensor(3))
        window.push(torch.arange(6.0).view(3, 2))
        results.append((window._slots, window._head, window.newest(5)))
    assert all(map(torch.equal, *results))
