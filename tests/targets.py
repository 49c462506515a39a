"""Which backends for GPUs can be tested here, and on which device."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mow_kernels.backends import triton

HAS_GPU = torch.cuda.is_available() and not triton.INTERPRETED


@dataclass(frozen=True)
class Target:
    """What is tested, and where."""

    backend: str
    device: torch.device

    @property
    def small(self) -> bool:
        """Whether large sizes take too long."""
        return self.device.type == "cpu"


def targets() -> list[Target]:
    if HAS_GPU:
        return [Target(backend, torch.device("cuda")) for backend in ("triton", "cuda")]
    return [Target("triton", torch.device("cpu"))] if triton.INTERPRETED else []
