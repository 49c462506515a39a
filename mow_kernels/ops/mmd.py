"""Maximum mean discrepancy: the public function, its checks, and its row."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor

from mow_kernels import checks, tables, transforms
from mow_kernels.calls import run, samples
from mow_kernels.compiling import constant_in_graphs
from mow_kernels.reference import mmd as reference
from mow_kernels.reference.laplace import imq_mean_series, norm_mean_series, power_mean_series
from mow_kernels.reference.mmd import KERNELS, Numbers, polynomial_mean
from mow_kernels.registry import Call, DistanceOp, Keeps, Options
from mow_kernels.running import RunningSums

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The seven scales of the WAE-MMD kernel (Tolstikhin et al. 2018)."""

ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)
"""The five powers of MMD-GAN's mixture of rational quadratic kernels (Binkowski et al. 2018)."""

_ESTIMATORS = ("unbiased", "biased")
_NO_CLOSED_FORM = "kernel is {!r}, whose mean under N(0, I) has no closed form: pass a sample as prior"
_TOO_FEW = "estimator is 'unbiased' and {} 1 row; it needs at least 2 (or 'biased')"


class KernelOptions(TypedDict, total=False):
    """What some kernels of `mmd` have beside or in place of scales; None for the kernel's own value."""

    alphas: Sequence[float] | None
    linear: float | None
    degree: int | None
    coef0: float | None
    gamma: float | None


def mmd(
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    *,
    kernel: str = "imq",
    scales: Sequence[float] | None = SCALES,
    estimator: str = "unbiased",
    **further: Unpack[KernelOptions],
) -> Tensor:
    r"""Squared maximum mean discrepancy between the window [history; current] and the prior.

    MMD = E k(z,z') + E k(v,v') - 2 E k(z,v), with r = |x-y|^2:

    | kernel | k | options and their defaults |
    |---|---|---|
    | "imq" | the sum of 2Ds/(2Ds + r) | scales s = (.1, .2, .5, 1, 2, 5, 10) |
    | "gaussian" | the sum of exp(-r/(2Ds)); a fixed width sigma is the scale sigma^2/D | the same |
    | "laplacian" | the sum of exp(-sqrt(r)/s); against a sample alone | scales s = (1,) |
    | "energy" | -sqrt(r): the energy distance | none |
    | "rational_quadratic" | the sum of (1 + r/(2a))^-a, plus linear x.y | alphas a = (.2, .5, 1, 2, 5), linear = 0 |
    | "polynomial" | (gamma x.y + coef0)^degree | degree = 3, coef0 = 1, gamma = 1/D: as KID |

        >>> z = torch.randn(4, 8, requires_grad=True)
        >>> mk.mmd(z, torch.randn(60, 8), torch.randn(64, 8)).backward()        # z.grad is [4, 8]

    Args:
        current: [k, D], k >= 1, the rows that receive the gradient. float32 or float64; float16 and bfloat16 are
            accumulated in float32. Of a batch of windows [B, k, D].
        history: [h, D] (or [B, h, D]), the rows before them, without gradient; None for none. n = h + k.
        prior: a sample [m, D] (or [B, m, D]), or "normal" for N(0, I) in closed form: no sampling noise, no work that
            grows with m.
        kernel: one of the above.
        scales: the s above, > 0; for a prior of variance sigma^2, multiply those of "imq" and "gaussian" by sigma^2.
            None, or what stands there by default, for the kernel's own.
        estimator: "unbiased" leaves the pairs i = j out of both means within a sample (and may be negative), "biased"
            keeps them.
        further: the kernel's other options by name. alphas: > 0; linear: >= 0 (0.1 in MMD-GAN); degree: an integer
            >= 1; coef0: any number; gamma: > 0. None for what the table has.

    Returns:
        0-d, float32 for half inputs, else of current's dtype. On the scale of the kernel: between -s and 2s for a sum
        of s bounded ones; "energy" in units of the latents.

    Raises:
        TypeError, ValueError: a bad argument, by name; one that the kernel does not have; "unbiased" with n = 1 or
            m = 1; "laplacian" with the prior "normal".

    Source: Gretton et al., "A Kernel Two-Sample Test", JMLR 2012, lemma 6; Tolstikhin et al., "Wasserstein
    Auto-Encoders", ICLR 2018, for "imq" and the scales; Szekely and Rizzo, "Energy statistics", 2013, for "energy";
    Binkowski et al., "Demystifying MMD GANs", ICLR 2018, for "rational_quadratic" and "polynomial".
    """
    return run(_check(current, history, prior, kernel, scales, estimator, **further))


def default_scales(kernel: str, variance: float = 1.0) -> tuple[float, ...]:
    """The scales that a kernel of `mmd` has by default, fitted to a prior of that variance; none where it has none.

        >>> value = mk.mmd(z, None, 2 * torch.randn(64, 8), scales=mk.default_scales("imq", 4.0))

    Raises:
        ValueError: there is no such kernel.
    """
    if kernel not in KERNELS:
        checks.choice("kernel", kernel, tuple(KERNELS))
    if kernel == "laplacian":  # whose scales are lengths
        variance = math.sqrt(variance)
    return tuple(variance * scale for scale in _OWN_SCALES.get(kernel, ()))


def _check(
    current: Tensor,
    history: Tensor | None,
    prior: Tensor | str,
    kernel: str,
    scales: Sequence[float] | None,
    estimator: str,
    alphas: Sequence[float] | None = None,
    linear: float | None = None,
    degree: int | None = None,
    coef0: float | None = None,
    gamma: float | None = None,
    **unknown: object,
) -> Call:
    if unknown:
        names = ", ".join(["kernel", "scales", "estimator", *KernelOptions.__annotations__])
        raise TypeError(f"{next(iter(unknown))} is no option of mmd; they are {names}")
    if kernel not in KERNELS:
        checks.choice("kernel", kernel, tuple(KERNELS))
    if kernel in _SCALED and alphas is None is linear is degree is coef0 is gamma:
        if scales is None or scales is SCALES:
            numbers = _OWN_SCALES[kernel]
        else:
            numbers = checks.positive_numbers("scales", scales)
    else:
        numbers = _others(kernel, scales, alphas, linear, degree, coef0, gamma)
    sample = samples(current, history, prior)
    if estimator not in _ESTIMATORS:
        checks.choice("estimator", estimator, _ESTIMATORS)
    if estimator == "unbiased":
        current, history, drawn = sample
        if current.shape[-2] + history.shape[-2] == 1:
            raise ValueError(_TOO_FEW.format("current and history have"))
        if drawn is not None and drawn.shape[-2] == 1:
            raise ValueError(_TOO_FEW.format("prior has"))
    if kernel not in _SIMPLE:
        if kernel == "polynomial" and len(numbers) == 2:
            numbers = (*numbers, 1 / sample[0].shape[-1])
        elif kernel == "laplacian" and sample[2] is None:
            raise ValueError(_NO_CLOSED_FORM.format(kernel))
    return Call(OP, sample, {"kernel": kernel, "scales": numbers, "estimator": estimator})


_OWN_SCALES = {"imq": SCALES, "gaussian": SCALES, "laplacian": (1.0,)}
_SCALED = frozenset(_OWN_SCALES)
_SIMPLE = frozenset({"imq", "gaussian"})
_OPTIONS = {"rational_quadratic": ("alphas", "linear"), "polynomial": ("degree", "coef0", "gamma")}
"""kernel -> what it has beside scales, or in their place."""


def _others(
    kernel: str,
    scales: Sequence[float] | None,
    alphas: Sequence[float] | None,
    linear: float | None,
    degree: int | None,
    coef0: float | None,
    gamma: float | None,
) -> Numbers:
    """The numbers of a kernel without scales, as the reference takes them; a gamma that is left to D is left out."""
    if scales is SCALES or (isinstance(scales, (tuple, list)) and not scales):
        scales = None
    given = {"scales": scales, "alphas": alphas, "linear": linear, "degree": degree, "coef0": coef0, "gamma": gamma}
    for name, value in given.items():
        if value is not None and name not in _OPTIONS.get(kernel, ()):
            raise ValueError(f"{name} is {value!r} and kernel {kernel!r}, which has none; it must be None")
    if kernel == "rational_quadratic":
        b = 0.0 if linear is None else checks.number("linear", linear, at_least=0)
        return b, *(ALPHAS if alphas is None else checks.positive_numbers("alphas", alphas))
    if kernel == "polynomial":
        d = 3 if degree is None else checks.integer("degree", degree, " >= 1")
        if d < 1:
            raise ValueError(f"degree is {degree!r}; it must be an integer >= 1")
        c = 1.0 if coef0 is None else checks.number("coef0", coef0)
        return (float(d), c) if gamma is None else (float(d), c, checks.number("gamma", gamma, above=0))
    return ()


@constant_in_graphs
def table(dim: int, dtype: torch.dtype, kernel: str, scales: Numbers, estimator: str, closed_form: bool) -> Tensor:
    """[number of the kernel in `KERNELS`, whether the estimator is unbiased, how many numbers, these: C = 2Ds for each
    scale of "imq" and "gaussian", else as the reference takes them...], and for the closed form to N(0, I_dim) also
    [E k(v, v'), parameters of E k(z, v)...].

    Those parameters are, for "imq" and "energy", a series in |z|^2/2 as `tables.series` lays it out; for "gaussian", an
    amplitude for each scale, then a rate for each; for "rational_quadratic", a constant, then such a series of each
    power, after the number of its numbers; for "polynomial", coefficients of the powers of |z|^2.
    """
    return _table(dim, dtype, kernel, scales, estimator, closed_form)


@functools.lru_cache(maxsize=256)
@transforms.outside
def _table(dim: int, dtype: torch.dtype, kernel: str, scales: Numbers, estimator: str, closed_form: bool) -> Tensor:
    constants = [2 * dim * scale for scale in scales] if kernel in _SIMPLE else scales
    numbers = [list(KERNELS).index(kernel), estimator == "unbiased", len(scales), *constants]
    if closed_form:
        numbers += [KERNELS[kernel].vv(dim, scales), *_MEANS[kernel](dim, scales, dtype)]
    return tables.table(numbers)


def _gaussian_mean(dim: int, scales: Numbers, dtype: torch.dtype) -> list[float]:
    amplitudes = [math.exp(-dim / 2 * math.log1p(1 / (dim * scale))) for scale in scales]
    return amplitudes + [1 / (2 * (dim * scale + 1)) for scale in scales]


def _energy_mean(dim: int, numbers: Numbers, dtype: torch.dtype) -> list[float]:
    knee, chebyshev, *coefficients = tables.series(functools.partial(norm_mean_series, dim), dtype)
    terms = len(coefficients) // 2  # the mean of a norm grows, as what `tables.series` takes falls: both change sign
    return [knee, chebyshev, *(-p for p in coefficients[:terms]), *coefficients[terms:]]


def _power_means(dim: int, numbers: Numbers, dtype: torch.dtype) -> list[float]:
    linear, *alphas = numbers
    parts = [tables.series(functools.partial(power_mean_series, dim, a, a), dtype) for a in alphas]
    return [-linear * dim / 2, *(number for part in parts for number in (len(part), *part))]


_MEANS: dict[str, Callable[[int, Numbers, torch.dtype], list[float]]] = {
    "imq": lambda dim, scales, dtype: tables.series(functools.partial(imq_mean_series, dim, scales), dtype),
    "gaussian": _gaussian_mean,
    "energy": _energy_mean,
    "rational_quadratic": _power_means,
    "polynomial": lambda dim, numbers, dtype: polynomial_mean(numbers),
}
"""kernel -> the parameters of E k(z, v)."""


def _fused_arguments(like: Tensor, n: int, normal: bool, options: Options) -> tuple[Any, ...]:
    kernel, scales, estimator = options["kernel"], options["scales"], options["estimator"]
    return (table(like.shape[1], like.dtype, kernel, scales, estimator, normal),)


def _alone(options: Options) -> str | None:
    return _TOO_FEW.format("current has") if options["estimator"] == "unbiased" else None


def _of_one(current: Tensor, prior: Tensor | str, options: Options) -> Tensor:
    """The row standing twice has the mean k(z, z) within the window, which is taken off, and all else unchanged."""
    call = _check(current.expand(2, -1), None, prior, **options)
    (row, *_), checked = call.arguments, call.options
    return run(call) - KERNELS[checked["kernel"]].diagonal(row[:1], checked["scales"]).sum()


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
