"""The backend "cuda": the ops of `operators` on CUDA devices, or the reason why there are none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mow_kernels import operators, tables
from mow_kernels.operators import Call, Implementation

_MOST_SCALES, _MOST_TERMS = 24, 112
"""kMostScales and kMostTerms of csrc/common/radial_values.h: the kernels take their coefficients as parameters."""


def _mmd_unsupported(
    current: Tensor, history: Tensor, prior: Tensor | None, *, kernel: str, scales: tuple[float, ...], estimator: str
) -> str | None:
    if len(scales) > _MOST_SCALES:
        return f"scales has {len(scales)} numbers; it takes {_MOST_SCALES} at most"
    if prior is None and kernel == "imq":
        table = tables.mmd(current.shape[1], current.dtype, kernel, scales, estimator, True)
        terms = (table.numel() - len(scales) - 6) // 2
        if terms > _MOST_TERMS:
            return f"for these scales the closed form takes {terms} terms; it has {_MOST_TERMS} at most (pass a sample)"
    return None


def _k_center_unsupported(x: Tensor, **options: Any) -> str | None:
    return None if len(x) < 2**31 else f"x has {len(x)} rows; it takes fewer than 2^31"


def _fused(call_of: Callable[..., Call], unsupported: Callable[..., str | None] | None = None) -> Implementation:
    """The gradient by itself has no kernels here: it comes with the value."""
    return operators.fused(lambda *call: call_of(*call)._replace(gradient=None), "cuda", unsupported)


CUDA: operators.Backend

if operators.unavailable is not None:
    CUDA = operators.unavailable
elif not torch._C._dispatch_has_kernel_for_dispatch_key("mow_kernels::mmd_fwd", "CUDA"):
    CUDA = "the native library was built without CUDA kernels (docs/cuda.md says how to build them)"
else:
    CUDA = {
        "mmd": _fused(operators.mmd, _mmd_unsupported),
        "cramer_wold": _fused(operators.cramer_wold),
        "sliced_wasserstein": _fused(operators.sliced_wasserstein),
        "k_center": Implementation(operators.k_center, "cuda", _k_center_unsupported),
    }
