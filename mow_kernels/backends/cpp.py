"""The backend "cpp": C++ for tensors on the CPU (csrc/cpu), in the native library."""

from __future__ import annotations

from mow_kernels import native
from mow_kernels.registry import Implementation, Op

NAME = "cpp"


def implementation(op: Op) -> Implementation | str:
    """What csrc/cpu has for an op."""
    return native.implementation(op, "cpu")
