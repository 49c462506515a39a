"""The Cramer-Wold distance: the public function, its checks, and its row."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from mow_kernels import checks, tables
from mow_kernels.calls import run, samples
from mow_kernels.compiling import constant_in_graphs
from mow_kernels.reference import cramer_wold as reference
from mow_kernels.reference.laplace import phi_series
from mow_kernels.registry import Call, DistanceOp, Keeps, Options
from mow_kernels.running import RunningSums

_PHIS = ("exact", "asymptotic")


def cramer_wold(
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    *,
    gamma: float | None = None,
    phi: str = "exact",
) -> Tensor:
    r"""Squared Cramer-Wold distance between the window [history; current] and the prior.

    The L2 distance between the Gaussian-smoothed (variance gamma) one-dimensional projections of both, averaged over
    all directions; closed forms in `mow_kernels/reference/cramer_wold.py`.

        >>> z = torch.randn(4, 8, requires_grad=True)
        >>> mk.cramer_wold(z, torch.randn(60, 8)).backward()        # z.grad is [4, 8]

    Args:
        current: [k, D], k >= 1, the rows that receive the gradient. float32 or float64; float16 and bfloat16 are
            accumulated in float32. Of a batch of windows [B, k, D].
        history: [h, D] (or [B, h, D]), the rows before them, without gradient; None for none. n = h + k.
        prior: "normal" for N(0, I), or a sample [m, D].
        gamma: the smoothing, > 0; None for Silverman's rule (4/(3n))^0.4.
        phi: "exact", phi_D(s) = 1F1(1/2; D/2; -s) for every D, or "asymptotic", its form for large D that public code
            uses and that keeps the distance above a positive floor. The factor 1/(2 sqrt(pi)) is part of both: the
            public code's figure is this one with "asymptotic" times 2 sqrt(pi).

    Returns:
        0-d, float32 for half inputs, else of current's dtype; >= 0 up to rounding with "exact".

    Raises:
        TypeError, ValueError: a bad argument, by name; "asymptotic" with D = 1, where it has no value.

    Source: Tabor et al., "Cramer-Wold Auto-Encoder", JMLR 2020, theorem 1 and section 4.
    """
    return run(_check(current, history, prior, gamma=gamma, phi=phi))


def _check(current: Tensor, history: Tensor | None, prior: Tensor | str, *, gamma: float | None, phi: str) -> Call:
    sample = samples(current, history, prior)
    if phi not in _PHIS:
        checks.choice("phi", phi, _PHIS)
    if phi == "asymptotic" and sample[0].shape[-1] == 1:
        raise ValueError("phi is 'asymptotic' and current has D = 1; it needs D >= 2 (or 'exact')")
    if gamma is None:
        gamma = (4 / (3 * (sample[0].shape[-2] + sample[1].shape[-2]))) ** 0.4
    else:
        gamma = checks.number("gamma", gamma, above=0)
    return Call(OP, sample, {"gamma": gamma, "phi": phi})


@constant_in_graphs
def table(dim: int, dtype: torch.dtype, phi: str) -> Tensor:
    """phi_D as `tables.series` in s; empty for phi_1(s) = exp(-s)."""
    return _table(dim, dtype, phi)


@functools.lru_cache(maxsize=256)
def _table(dim: int, dtype: torch.dtype, phi: str) -> Tensor:
    if phi == "asymptotic":
        return tables.table([(2 * dim - 3) / 4, False, 1.0, 0.5])  # w^(1/2) itself
    if dim == 1:
        return tables.table([])
    return tables.table(tables.series(functools.partial(phi_series, dim), dtype))


def _fused_arguments(like: Tensor, n: int, normal: bool, options: Options) -> tuple[Any, ...]:
    return table(like.shape[1], like.dtype, options["phi"]), options["gamma"]


def _why_not_kept(sampled: bool, options: Options) -> str | None:
    if options["gamma"] is None:
        return "gamma is None; running sums belong to one gamma, which must be a number"
    return None


def _with_gamma(options: Options, rows: int) -> Options:
    return options | {"gamma": _check(torch.empty(1, 2).expand(rows, 2), None, "normal", **options).options["gamma"]}


OP = DistanceOp(
    "cramer_wold",
    cramer_wold,
    _check,
    reference.cramer_wold,
    fused_arguments=_fused_arguments,
    to_normal=reference.cramer_wold_to_normal,
    keeps=Keeps(RunningSums.begin, "running", _why_not_kept, _with_gamma, follow_rows=("gamma",)),
)
