"""Fixtures that every test may use."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import mow_kernels as mk


@pytest.fixture
def reference() -> Iterator[None]:
    """Runs the test on the backend that defines right."""
    with mk.use_backend("reference"):
        yield


@pytest.fixture
def randn() -> Callable[..., Tensor]:
    """randn(*shape, dtype=torch.float64): standard normal, the same numbers in every run."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return draw
