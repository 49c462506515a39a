"""What the fused kernels need to know of a radial function: small float64 tensors on the CPU, made once and cached.

They depend on the width, the type and the options of a call only, never on its data.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import ParamSpec, cast

import torch
from torch import Tensor

from mow_kernels.compiling import constant_in_graphs
from mow_kernels.reference.laplace import Series, evaluate, imq_mean_series, phi_series
from mow_kernels.reference.mmd import _gaussian_vv, _imq_vv
from mow_kernels.reference.sliced_wasserstein import normal_bins as reference_bins

P = ParamSpec("P")

_TOLERANCE = {torch.float32: 2.0**-28, torch.float64: 2.0**-47}
_HORNER_LIMIT = 4.0
"""Powers of x replace Chebyshev polynomials where their terms add up to this many times the sum at most: 2 bits."""

_CAPTURED: dict[int, Tensor] = {}
"""Tables that a CUDA graph reads at every replay: no cache may give back their memory."""


def _constant(make: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Caches the tables; torch.compile takes them as they are, where it would trace into a bare lru_cache."""
    cached = cast(Callable[P, Tensor], functools.lru_cache(maxsize=256)(make))

    @functools.wraps(make)
    def look_up(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        table = cached(*args, **kwargs)
        if table.is_cuda and torch.cuda.is_current_stream_capturing():
            _CAPTURED[table.data_ptr()] = table
        return table

    return constant_in_graphs(look_up)


@_constant
def mmd(
    dim: int, dtype: torch.dtype, kernel: str, scales: tuple[float, ...], estimator: str, closed_form: bool
) -> Tensor:
    """[whether the kernel is Gaussian, whether the estimator is unbiased, number of scales, C = 2Ds for each...], and
    for the closed form to N(0, I_dim) also [E k(v, v'), parameters of E k(z, v)...].

    Those parameters are, for "imq", a series in |z|^2/2 as `_series` lays it out; for "gaussian", an amplitude for each
    scale, then a rate for each.
    """
    gaussian = kernel == "gaussian"
    numbers = [gaussian, estimator == "unbiased", len(scales), *(2 * dim * scale for scale in scales)]
    if closed_form and gaussian:
        numbers.append(_gaussian_vv(dim, scales))
        numbers += [math.exp(-dim / 2 * math.log1p(1 / (dim * scale))) for scale in scales]
        numbers += [1 / (2 * (dim * scale + 1)) for scale in scales]
    elif closed_form:
        numbers.append(_imq_vv(dim, scales))
        numbers += _series(functools.partial(imq_mean_series, dim, scales), dtype)
    return _table(numbers)


@_constant
def cramer_wold(dim: int, dtype: torch.dtype, phi: str) -> Tensor:
    """phi_D as a series in s; empty for phi_1(s) = exp(-s)."""
    if phi == "asymptotic":
        return _table([(2 * dim - 3) / 4, False, 1.0, 0.5])  # w^(1/2) itself
    if dim == 1:
        return _table([])
    return _table(_series(functools.partial(phi_series, dim), dtype))


@_constant
def normal_bins(n: int, device: torch.device | None = None) -> Tensor:
    """[the mean variance of N(0, 1) inside n equal quantile bins, the bins' means, ascending...], on the device."""
    means, variance_inside = reference_bins(n)
    return torch.cat([means.new_tensor([variance_inside]), means]).to(device)


def _series(fitted: Callable[[int, torch.dtype], Series], dtype: torch.dtype) -> list[float]:
    """[knee, whether the coefficients are Chebyshev's, p_0.., q_0..], with x = 2w - 1, w = knee/(knee + s), for

        f(s) = w^a p(x),    -f'(s) = w^(a+1) q(x) / knee,

    both of the fewest terms that are exact to the precision of dtype. fitted(order, dtype) is the series of f_order.
    """
    f, slope = (fitted(order, torch.float64) for order in (0, 1))
    size = 2 * max(len(f.coefficients), len(slope.coefficients))
    odd = 2 * torch.arange(size, dtype=torch.float64, device="cpu") + 1
    w = (torch.cos(odd * (math.pi / (2 * size))) + 1) / 2
    s = f.knee / w - f.knee
    quotients = torch.stack([evaluate(f, s) / w**f.exponent, f.knee * evaluate(slope, s) / w ** (f.exponent + 1)])
    degrees = torch.arange(size, dtype=torch.float64, device="cpu")
    cosines = torch.cos(torch.outer(odd, degrees) % (4 * size) * (math.pi / (2 * size)))
    chebyshev = quotients @ cosines * (2 / size)
    chebyshev[:, 0] /= 2
    smallest = quotients.amin(1, keepdim=True)
    needed = int((chebyshev.abs() > _TOLERANCE[dtype] * smallest).any(0).nonzero().max()) + 1
    chebyshev = chebyshev[:, : max(needed, 2)]
    powers = chebyshev @ _powers_of_chebyshev(chebyshev.shape[1])
    if bool((powers.abs().sum(1, keepdim=True) <= _HORNER_LIMIT * smallest).all()):
        return [f.knee, False, *powers.flatten().tolist()]
    return [f.knee, True, *chebyshev.flatten().tolist()]


def _powers_of_chebyshev(terms: int) -> Tensor:
    """The coefficients of T_0, T_1, ..., one a row, in powers of x [terms, terms]; terms >= 2."""
    rows = torch.eye(terms, dtype=torch.float64, device="cpu")
    for j in range(2, terms):
        rows[j] = 2 * rows[j - 1].roll(1) - rows[j - 2]  # T_j = 2x T_(j-1) - T_(j-2)
    return rows


def _table(numbers: list[float]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")
