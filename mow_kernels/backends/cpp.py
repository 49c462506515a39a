"""The backend "cpp": C++ for tensors on the CPU (csrc/cpu), in the native library."""

from __future__ import annotations

from typing import Any

from mow_kernels import native
from mow_kernels.registry import Implementation, Op

NAME = "cpp"

_FIELDS: dict[str, dict[str, Any]] = {"mmd": {"newest": True}, "cramer_wold": {"newest": True}}
"""op -> fields of its `Implementation`."""


def implementation(op: Op) -> Implementation | str:
    """What csrc/cpu has for an op."""
    return native.implementation(op, "cpu", **_FIELDS.get(op.name, {}))
