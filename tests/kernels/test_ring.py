"""The kernels for a window's ring, compiled for the CPU (tests/cuda_shim), against what the window does on the host."""

from __future__ import annotations

from collections.abc import Callable, Iterator

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


@pytest.mark.parametrize("function", [mk.mmd, mk.cramer_wold, mk.sliced_wasserstein])
def test_a_gradient_over_the_newest_rows(function: Callable[..., torch.Tensor]) -> None:
    """What cannot read a ring where it is takes a copy: another backend, half types, a batch, a look at the numbers."""
    slots = torch.randn(9, 3, dtype=torch.float64)
    past = mk.Ring(slots, torch.tensor(4)).last(7)
    z = torch.randn(2, 3, dtype=torch.float64)
    options = {"directions": torch.eye(3, dtype=torch.float64)} if function is mk.sliced_wasserstein else {}

    def close(current: torch.Tensor, past: mk.Newest, prior: object = "normal") -> None:
        given = {name: x.to(past.slots.dtype) for name, x in options.items()}
        for measure in (True, False):
            expected = mk.gradient(function, current, past.rows(), prior, measure=measure, **given)
            torch.testing.assert_close(mk.gradient(function, current, past, prior, measure=measure, **given), expected)

    close(z, past)
    close(z, past, torch.randn(5, 3, dtype=torch.float64))
    with mk.use_backend("reference"):
        close(z, past)
    with mk.check_finite():
        close(z, past)
    half = mk.Ring(slots.float(), torch.tensor(4)).last(7)
    close(z.bfloat16(), half)
    close(z.expand(2, 2, 3), past)
    vmapped = torch.func.vmap(lambda x: mk.gradient(function, x, past, **options)[0])(torch.stack([z, -z]))
    torch.testing.assert_close(vmapped[0], mk.gradient(function, z, past.rows(), **options)[0])
    for wrong in (torch.randn(2, 4, dtype=torch.float64), torch.randn(0, 3, dtype=torch.float64)):
        with pytest.raises(ValueError, match=r"current has shape|history has shape"):
            mk.gradient(function, wrong, past, **options)
