"""The tests of this folder run on every backend for GPUs that is there, and without a GPU on Triton's interpreter.

`make gpu` runs them on a GPU; tests/kernels/test_triton_interpreted.py runs them in a process with TRITON_INTERPRET=1, on
the CPU and with sizes that the interpreter can bear. Elsewhere they skip.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from mow_kernels import triton
from mow_kernels.registry import TABLE

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


def _targets() -> list[Target]:
    if HAS_GPU:
        return [Target(backend, torch.device("cuda")) for backend in ("triton", "cuda")]
    return [Target("triton", torch.device("cpu"))] if triton.INTERPRETED else []


@pytest.fixture(params=_targets(), ids=lambda target: target.backend)
def target(request: pytest.FixtureRequest) -> Target:
    op = request.node.callspec.params.get("op", "sliced_wasserstein" if "sliced" in request.path.stem else "mmd")
    entry = TABLE[op][request.param.backend]
    if isinstance(entry, str):
        pytest.skip(f"{request.param.backend}: {entry}")
    return request.param


@pytest.fixture
def gpu(target: Target) -> Target:
    """For what only a GPU has: graphs, streams, memory of its own."""
    if target.small:
        pytest.skip("needs a GPU")
    return target
