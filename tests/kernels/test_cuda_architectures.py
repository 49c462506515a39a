"""Which GPUs the CUDA kernels take, without a GPU."""

from __future__ import annotations

import pytest
import torch

from mow_kernels import architectures

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


@pytest.mark.parametrize(
    "capability, reason", [((9, 0), None), ((7, 5), "7.5; the native library was built for sm_80")]
)
def test_a_gpu_that_is_not_covered_gets_the_reason(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], reason: str | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.ops.mow_kernels, "cuda_architectures", lambda: " ".join(DEFAULT), raising=False)
    architectures._uncovered.cache_clear()
    said = architectures.uncovered(torch.device("cuda", 0))
    architectures._uncovered.cache_clear()
    assert said is None if reason is None else f"cuda:0 has compute capability {reason}" in str(said)
