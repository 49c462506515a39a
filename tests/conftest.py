"""Fixtures that every test may use."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import mow_kernels as mk
from mow_kernels.registry import TABLE

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # a shell's job in the background hears no Ctrl-C, nor would the commands that are tested with one
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """The tests are small: a second thread only waits for the first, for long on a machine that is shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def denormals() -> Iterator[None]:
    """As PyTorch has them: whatever trains flushes them to zero."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def reference() -> Iterator[None]:
    """Runs the test on the backend that defines right."""
    with mk.use_backend("reference"):
        yield


@pytest.fixture(params=["reference", "cpp"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test on every backend that a CPU has; skips with the reason where one cannot run."""
    reason = TABLE["mmd"][request.param]
    if isinstance(reason, str):
        pytest.skip(f"{request.param}: {reason}")
    with mk.use_backend(request.param):
        yield request.param


@pytest.fixture
def randn() -> Callable[..., Tensor]:
    """randn(*shape, dtype=torch.float64): standard normal, the same numbers in every run."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return draw
