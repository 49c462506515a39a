"""The backend "cuda": CUDA C++ for tensors on NVIDIA GPUs (csrc/cuda), in the native library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mow_kernels import architectures, native
from mow_kernels.ops import mmd
from mow_kernels.registry import Implementation, Op

NAME = "cuda"

_MOST_SCALES, _MOST_TERMS, _MOST_NUMBERS, _MOST_DEGREE = 24, 112, 352, 64
"""kMostScales and so on of csrc/common/radial_values.h: the kernels take their coefficients as parameters."""


def implementation(op: Op) -> Implementation | str:
    """What csrc/cuda has for an op."""
    fields = FIELDS.get(op.name, {})
    entry = native.implementation(op, "cuda", **fields | {"unsupported": _on_the_gpu(fields.get("unsupported"))})
    if isinstance(entry, str) and native.unavailable is None:
        how = f"docs/cuda.md says how to build them{native.build_failed()}"
        return f"the native library was built without CUDA kernels for it ({how})"
    return entry


def _on_the_gpu(unsupported: Callable[..., str | None] | None) -> Callable[..., str | None]:
    """`Implementation.unsupported` by that function, for GPUs that the library has code for."""

    def reason(*arguments: Any, **options: Any) -> str | None:
        why = architectures.uncovered(arguments[0].device)
        return why if why is not None or unsupported is None else unsupported(*arguments, **options)

    return reason


def _mmd_unsupported(
    current: Tensor, history: Tensor, prior: Tensor | None, *, kernel: str, scales: tuple[float, ...], estimator: str
) -> str | None:
    name, count = ("alphas", len(scales) - 1) if kernel == "rational_quadratic" else ("scales", len(scales))
    if count > _MOST_SCALES:
        return f"{name} has {count} numbers; it takes {_MOST_SCALES} at most"
    if prior is not None or kernel == "gaussian":
        return None
    table = mmd.table(current.shape[1], current.dtype, kernel, scales, estimator, True)
    parameters = table.numel() - len(scales) - 4
    if kernel in ("imq", "energy"):
        terms, most = (parameters - 2) // 2, _MOST_TERMS
    else:
        terms, most = parameters, _MOST_NUMBERS if kernel == "rational_quadratic" else _MOST_DEGREE
    if terms <= most:
        return None
    return f"the closed form takes {terms} terms for this kernel; it has {most} at most (pass a sample)"


def _k_center_unsupported(x: Tensor, *, k: int, start: object, given: Tensor | None) -> str | None:
    return None if len(x) < 2**31 else f"x has {len(x)} rows; it takes fewer than 2^31"


FIELDS: dict[str, dict[str, Any]] = {
    "mmd": {"unsupported": _mmd_unsupported, "keeps_none": ("kernel", ("polynomial",))},
    "k_center": {"unsupported": _k_center_unsupported},
}
"""op -> fields of its `Implementation`."""
