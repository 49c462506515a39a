"""Maximum mean discrepancy: the public function, its checks, and its row."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mow_kernels import checks, tables
from mow_kernels.calls import run, samples
from mow_kernels.compiling import constant_in_graphs
from mow_kernels.reference import mmd as reference
from mow_kernels.reference.laplace import imq_mean_series
from mow_kernels.reference.mmd import KERNELS
from mow_kernels.registry import Call, DistanceOp, Keeps, Options
from mow_kernels.running import RunningSums

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The seven scales of the WAE-MMD kernel (Tolstikhin et al. 2018)."""

_ESTIMATORS = ("unbiased", "biased")
_TOO_FEW = "estimator is 'unbiased' and {} 1 row; it needs at least 2 (or 'biased')"


def mmd(
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    *,
    kernel: str = "imq",
    scales: Sequence[float] | None = SCALES,
    estimator: str = "unbiased",
) -> Tensor:
    r"""Squared maximum mean discrepancy between the window [history; current] and the prior.

    MMD = E k(z,z') + E k(v,v') - 2 E k(z,v), with r = |x-y|^2:

    | kernel | k, summed over the scales s |
    |---|---|
    | "imq" | 2Ds/(2Ds + r) |
    | "gaussian" | exp(-r/(2Ds)) |
    | "energy" | -sqrt(r), without a scale: the energy distance; on the backend "reference" alone |

        >>> z = torch.randn(4, 8, requires_grad=True)
        >>> mk.mmd(z, torch.randn(60, 8), torch.randn(64, 8)).backward()        # z.grad is [4, 8]

    Args:
        current: [k, D], k >= 1, the rows that receive the gradient. float32 or float64; float16 and bfloat16 are
            accumulated in float32. Of a batch of windows [B, k, D].
        history: [h, D] (or [B, h, D]), the rows before them, without gradient; None for none. n = h + k.
        prior: a sample [m, D] (or [B, m, D]), or "normal" for N(0, I) in closed form: no sampling noise, no work that
            grows with m.
        kernel: one of the above.
        scales: the s above; for a prior of variance sigma^2, multiply them by sigma^2. None, or what stands there by
            default, for the kernel's own; "energy" has none.
        estimator: "unbiased" leaves the pairs i = j out of both means within a sample (and may be negative), "biased"
            keeps them.

    Returns:
        0-d, on the scale of the kernel sum (between -len(scales) and 2 len(scales); "energy" in units of the latents),
        float32 for half inputs, else of current's dtype.

    Raises:
        TypeError, ValueError: a bad argument, by name; "unbiased" with n = 1 or m = 1.

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, lemma 6; Tolstikhin et al., "Wasserstein
    Auto-Encoders", ICLR 2018, for "imq" and the scales; Szekely and Rizzo, "Energy statistics", 2013, for "energy".
    """
    return run(_check(current, history, prior, kernel=kernel, scales=scales, estimator=estimator))


def default_scales(kernel: str, variance: float = 1.0) -> tuple[float, ...]:
    """The scales that a kernel of `mmd` has by default, fitted to a prior of that variance.

        >>> value = mk.mmd(z, None, 2 * torch.randn(64, 8), scales=mk.default_scales("imq", 4.0))

    Raises:
        ValueError: there is no such kernel.
    """
    return tuple(variance * scale for scale in _checked_scales(kernel, None))


def _check(
    current: Tensor,
    history: Tensor | None,
    prior: Tensor | str,
    *,
    kernel: str,
    scales: Sequence[float] | None,
    estimator: str,
) -> Call:
    scales = _checked_scales(kernel, scales)
    sample = samples(current, history, prior)
    if estimator not in _ESTIMATORS:
        checks.choice("estimator", estimator, _ESTIMATORS)
    if estimator == "unbiased":
        current, history, drawn = sample
        if current.shape[-2] + history.shape[-2] == 1:
            raise ValueError(_TOO_FEW.format("current and history have"))
        if drawn is not None and drawn.shape[-2] == 1:
            raise ValueError(_TOO_FEW.format("prior has"))
    return Call(OP, sample, {"kernel": kernel, "scales": scales, "estimator": estimator})


def _checked_scales(kernel: str, scales: Sequence[float] | None) -> tuple[float, ...]:
    if kernel not in KERNELS:
        checks.choice("kernel", kernel, tuple(KERNELS))
    scaled = KERNELS[kernel].scaled
    if scales is None or scales is SCALES:
        return SCALES if scaled else ()
    if scaled:
        return checks.positive_numbers("scales", scales)
    if len(scales):
        raise ValueError(f"scales is {scales!r} and kernel {kernel!r}, which has none; it must be None")
    return ()


@constant_in_graphs
def table(
    dim: int, dtype: torch.dtype, kernel: str, scales: tuple[float, ...], estimator: str, closed_form: bool
) -> Tensor:
    """[whether the kernel is Gaussian, whether the estimator is unbiased, number of scales, C = 2Ds for each...], and
    for the closed form to N(0, I_dim) also [E k(v, v'), parameters of E k(z, v)...].

    Those parameters are, for "imq", a series in |z|^2/2 as `tables.series` lays it out; for "gaussian", an amplitude
    for each scale, then a rate for each.
    """
    return _table(dim, dtype, kernel, scales, estimator, closed_form)


@functools.lru_cache(maxsize=256)
def _table(
    dim: int, dtype: torch.dtype, kernel: str, scales: tuple[float, ...], estimator: str, closed_form: bool
) -> Tensor:
    gaussian = kernel == "gaussian"
    numbers = [gaussian, estimator == "unbiased", len(scales), *(2 * dim * scale for scale in scales)]
    if closed_form:
        numbers.append(KERNELS[kernel].vv(dim, scales))
    if closed_form and gaussian:
        numbers += [math.exp(-dim / 2 * math.log1p(1 / (dim * scale))) for scale in scales]
        numbers += [1 / (2 * (dim * scale + 1)) for scale in scales]
    elif closed_form:
        numbers += tables.series(functools.partial(imq_mean_series, dim, scales), dtype)
    return tables.table(numbers)


def _fused_arguments(like: Tensor, n: int, normal: bool, options: Options) -> tuple[Any, ...]:
    kernel, scales, estimator = options["kernel"], options["scales"], options["estimator"]
    return (table(like.shape[1], like.dtype, kernel, scales, estimator, normal),)


def _alone(options: Options) -> str | None:
    return _TOO_FEW.format("current has") if options["estimator"] == "unbiased" else None


def _of_one(current: Tensor, prior: Tensor | str, options: Options) -> Tensor:
    """The row standing twice has the mean k(z, z) within the window, which is taken off, and all else unchanged."""
    call = _check(current.expand(2, -1), None, prior, **options)
    return run(call) - KERNELS[call.options["kernel"]].at_zero(call.options["scales"])


OP = DistanceOp(
    "mmd",
    mmd,
    _check,
    reference.mmd,
    fused_arguments=_fused_arguments,
    to_normal=reference.mmd_to_normal,
    alone=_alone,
    of_one=_of_one,
    keeps=Keeps(RunningSums.begin, "running"),
)
