"""The backend "cpp": C++ for tensors on the CPU (csrc/cpu), in the native library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mow_kernels import native
from mow_kernels.registry import Implementation, Op

NAME = "cpp"


def implementation(op: Op) -> Implementation | str:
    """What csrc/cpu has for an op."""
    return native.implementation(op, "cpu", _UNSUPPORTED.get(op.name))


def _mmd_unsupported(*samples: Any, kernel: str, **options: Any) -> str | None:
    return None if kernel in ("imq", "gaussian") else f"it has no kernel {kernel!r}"


_UNSUPPORTED: dict[str, Callable[..., str | None]] = {"mmd": _mmd_unsupported}
