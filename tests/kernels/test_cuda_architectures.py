"""Which GPUs the CUDA kernels take, without a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mow_kernels import architectures
from mow_kernels.backends import cuda

DEFAULT = ("sm_80", "sm_90a", "sm_100", "sm_120", "compute_120")


@pytest.mark.parametrize(
    "codes, covered, not_covered",
    [
        (DEFAULT, [(8, 0), (8, 6), (8, 9), (9, 0), (10, 0), (10, 3), (12, 0), (12, 1), (13, 0)], [(7, 5), (11, 0)]),
        (("sm_90a",), [(9, 0)], [(8, 9), (9, 1), (10, 0)]),
        (("sm_90a", "compute_90"), [(9, 0), (10, 0), (12, 0)], [(8, 9)]),
        (("sm_89",), [(8, 9)], [(8, 0), (8, 6), (9, 0)]),
        ((), [], [(8, 0)]),
    ],
)
def test_what_a_code_covers(
    codes: tuple[str, ...], covered: list[tuple[int, int]], not_covered: list[tuple[int, int]]
) -> None:
    assert all(architectures.covers(codes, capability) for capability in covered)
    assert not any(architectures.covers(codes, capability) for capability in not_covered)


def test_a_code_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="code is 'gfx942'; it must be named as"):
        architectures.covers(["gfx942"], (9, 0))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, int], Any]]:
    """A stand-in for a tensor on a GPU of a compute capability, where the library has the default code."""
    monkeypatch.setattr(torch.ops.mow_kernels, "cuda_architectures", lambda: " ".join(DEFAULT), raising=False)

    def make(major: int, minor: int) -> Any:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, minor))
        architectures._uncovered.cache_clear()
        return SimpleNamespace(device=torch.device("cuda", 0))

    yield make
    architectures._uncovered.cache_clear()


def test_a_gpu_without_code_gets_the_reason(gpu: Callable[[int, int], Any]) -> None:
    unsupported = cuda._on_the_gpu(None)
    assert unsupported(gpu(9, 0)) is None
    assert "cuda:0 has compute capability 7.5; the native library was built for sm_80" in str(unsupported(gpu(7, 5)))


def test_a_gpu_with_code_is_asked_for_the_rest(gpu: Callable[[int, int], Any]) -> None:
    unsupported = cuda._on_the_gpu(lambda x, scales: f"{scales} is too much")
    assert unsupported(gpu(9, 0), scales=25) == "25 is too much"
    assert "7.5" in str(unsupported(gpu(7, 5), scales=25))
