"""Which GPUs the native library's CUDA kernels run on. The op `cuda_architectures` says what they were built for."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

import torch

from mow_kernels.compiling import constant_in_graphs


def covers(codes: Iterable[str], capability: tuple[int, int]) -> bool:
    """Whether a GPU of this compute capability, (major, minor), can run one of these codes.

    A code is named as nvcc and `torch.cuda.get_arch_list` name it: "sm_80" is machine code for 8.0 and later minor
    versions of 8, "sm_90a" for 9.0 alone, and "compute_90" is PTX, which the driver compiles for 9.0 and all after it.

    Raises:
        ValueError: a code has no such name.
    """
    return any(_runs(code, capability) for code in codes)


def _runs(code: str, capability: tuple[int, int]) -> bool:
    name = re.fullmatch(r"(sm|compute)_(\d+)(\d)(a?)", code)
    if name is None:
        raise ValueError(f"code is {code!r}; it must be named as 'sm_80', 'sm_90a' or 'compute_90'")
    kind, built, exact = name[1], (int(name[2]), int(name[3])), bool(name[4])
    if exact:
        return capability == built
    return capability >= built and (kind == "compute" or capability[0] == built[0])


@constant_in_graphs
def uncovered(device: torch.device) -> str | None:
    """Why the library's CUDA kernels cannot run on a CUDA device, or None."""
    return _uncovered(device)


@functools.cache
def _uncovered(device: torch.device) -> str | None:
    codes, capability = torch.ops.mow_kernels.cuda_architectures(), torch.cuda.get_device_capability(device)
    if covers(codes.split(), capability):
        return None
    return "{} has compute capability {}.{}; the native library was built for {} (MOW_CUDA_ARCH: docs/cuda.md)".format(
        device, *capability, codes
    )
