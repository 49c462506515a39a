r"""Laplace transforms of densities on (0, 1): the special functions behind the closed forms.

Some expectations under the prior N(0, I) have no elementary form. They are Laplace transforms

    f_j(s) = (-1)^j f^(j)(s) = int_0^1 u^j exp(-s u) omega(u) du,    j = 0, 1, 2, ...              (1)

of a positive density omega that behaves like u^(a-1) at u = 0:

* `phi`: Cramer-Wold's phi_D(s) = 1F1(1/2; D/2; -s) = E exp(-s U) with U ~ Beta(1/2, (D-1)/2), for D >= 2;
* `imq_mean`: E_v sum_s C/(C + |z-v|^2) with v ~ N(0, I_D) and C = 2Ds, as a function of s = |z|^2/2. From
  C/(C+r) = int_0^inf C exp(-t(C+r)) dt, with the expectation taken inside and u = 2t/(1+2t), follows
  omega(u) = sum_C (C/2) exp(-C u / (2(1-u))) (1-u)^(D/2-2);
* `power_mean`: E_v (1 + |z-v|^2/(2b))^-a, likewise. From
  (1 + r/(2b))^-a = int_0^inf t^(a-1) exp(-t(1 + r/(2b))) dt / Gamma(a) and u = t/(b+t) follows
  omega(u) = b^a/Gamma(a) u^(a-1) exp(-b u/(1-u)) (1-u)^(D/2-1-a).

A transform (1) decays like s^-(a+j), so with w = c/(c+s) in (0, 1] the quotient

    p_j(w) = f_j(s) / w^(a+j)                                                                      (2)

stays between two positive constants for all s >= 0. It is smooth up to w = 0 and is kept as a Chebyshev series:
nothing overflows, and the relative error at s = 1e30 is that at s = 0. The series is fitted once, in float64, to
values of (1) from the trapezoidal rule in y = log(u/(1-u)), which converges geometrically.

`mean_norm` times 1F1(-1/2; D/2; -s), which is E_v |z-v|, is no such transform, but grows as one with a = -1/2 decays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mow_kernels import transforms
from mow_kernels.compiling import constant_in_graphs

_TOLERANCE = {torch.float32: 2.0**-28, torch.float64: 2.0**-47}


class _Grid(NamedTuple):
    """Nodes y = log(u/(1-u)) of the trapezoidal rule."""

    step: float
    y: Tensor
    log_u: Tensor
    log_1_u: Tensor

    @classmethod
    def of(cls, power: float) -> _Grid:
        """For integrands that begin like u^power, which is below 1e-17 before the first node, and end like exp(-su)."""
        frequency = 10 * math.pi
        while _aliased(power, frequency) > 1e-17:
            frequency *= 1.1
        step = 2 * math.pi / frequency
        y = torch.arange(-round(max(80, 20 + 30 / power) / step), round(80 / step) + 1, dtype=torch.float64) * step
        return cls(step, y, logsigmoid(y), logsigmoid(-y))


def _aliased(power: float, frequency: float) -> float:
    """|Gamma(power + i frequency) / Gamma(power)| by Stirling's formula: what the trapezoidal rule with the step
    2 pi / frequency errs by in the integral of exp(power y - exp(y)), relative to it."""
    size, angle = math.hypot(power, frequency), math.atan(frequency / power)
    return math.exp((power - 0.5) * math.log(size / power) - frequency * angle)


class Series(NamedTuple):
    """f_j as w^exponent times a Chebyshev series in 2w - 1, where w = knee / (knee + s). Plain numbers throughout."""

    coefficients: tuple[float, ...]
    exponent: float
    knee: float


def phi(s: Tensor, dim: int) -> Tensor:
    """1F1(1/2; dim/2; -s) elementwise for s >= 0: to 1e-12 relative in float64, 1e-6 in float32, as are its
    derivatives of every order that autograd asks for."""
    return torch.exp(-s) if dim == 1 else _transform(s, "phi", (dim,))


def imq_mean(squared_norm: Tensor, dim: int, scales: tuple[float, ...]) -> Tensor:
    """E_v sum_s C/(C + |z-v|^2), v ~ N(0, I_dim), C = 2 dim s, elementwise from |z|^2; accurate as `phi` is."""
    return _transform(squared_norm / 2, "imq_mean", (dim, scales))


def _transform(s: Tensor, density: str, parameters: tuple[Any, ...], order: int = 0) -> Tensor:
    if torch.compiler.is_compiling():
        return _Transform.apply(s, density, parameters, order)
    transforms.check_forward_mode(density)
    return _Transformable.apply(s, density, parameters, order)


def power_mean(squared_norm: Tensor, dim: int, alpha: float) -> Tensor:
    """E_v (1 + |z-v|^2/(2 alpha))^-alpha, v ~ N(0, I_dim), elementwise from |z|^2; accurate as `phi` is."""
    return _transform(squared_norm / 2, "power_mean", (dim, alpha, alpha))


def mean_norm(dim: int) -> float:
    """E_v |v|, v ~ N(0, I_dim)."""
    return math.sqrt(2) * math.exp(math.lgamma((dim + 1) / 2) - math.lgamma(dim / 2))


@functools.lru_cache(maxsize=256)
def at_origin(fitted: Callable[..., Series], *parameters: Any) -> float:
    """f_0(0) by the series fitted(*parameters, order, dtype)."""
    return float(evaluate(fitted(*parameters, 0, torch.float64), torch.zeros((), dtype=torch.float64, device="cpu")))


class _Transform(torch.autograd.Function):
    """f_order(s), equation (1); its derivative is -f_(order+1)(s), so it can be differentiated any number of times."""

    @staticmethod
    def forward(s: Tensor, density: str, parameters: tuple[Any, ...], order: int) -> Tensor:
        return evaluate(_series(density, parameters, order, s.dtype), s)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        s, ctx.density, ctx.parameters, ctx.order = inputs
        ctx.save_for_backward(s)
        ctx.save_for_forward(s)

    @staticmethod
    def backward(ctx: Any, g_out: Tensor) -> tuple[Tensor, None, None, None]:
        (s,) = ctx.saved_tensors
        return -g_out * _transform(s, ctx.density, ctx.parameters, ctx.order + 1), None, None, None


class _Transformable(_Transform):
    """The same for torch.func; a graph of torch.compile cannot have it."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        (s,) = ctx.saved_tensors
        return -tangent * _transform(s, ctx.density, ctx.parameters, ctx.order + 1)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], s: Tensor, *which: Any) -> tuple[Tensor, int]:
        return _Transformable.apply(s, *which), in_dims[0]  # it is elementwise


@constant_in_graphs
def _series(
    density: str, parameters: tuple[Any, ...], order: int, dtype: torch.dtype
) -> tuple[tuple[float, ...], float, float]:
    """The fields of the `Series`: torch.compile of PyTorch 2.11 takes no named tuple for a constant."""
    fitted = {"phi": phi_series, "imq_mean": imq_mean_series, "power_mean": power_mean_series}[density]
    coefficients, exponent, knee = fitted(*parameters, order, dtype)
    return coefficients, exponent, knee


def evaluate(series: tuple[tuple[float, ...], float, float], s: Tensor) -> Tensor:
    """The value of a `Series` at s >= 0, elementwise, computed in float64 and rounded to the dtype of s."""
    coefficients, exponent, knee = series
    w = knee / (knee + s.double())
    x = 4 * w - 2
    above, b = torch.zeros_like(w), torch.full_like(w, coefficients[-1])  # Clenshaw's recurrence
    for coefficient in coefficients[-2:0:-1]:
        above, b = b, torch.addcmul(coefficient - above, x, b)
    value = w**exponent * (x / 2 * b - above + coefficients[0])
    # In a compiled graph PyTorch 2.11 loses the gradient of a function that ends in a conversion to the same type.
    return value if s.dtype == torch.float64 else value.to(s.dtype)


@functools.lru_cache(maxsize=256)
def phi_series(dim: int, order: int, dtype: torch.dtype) -> Series:
    """f_order of Cramer-Wold's phi in dimension dim >= 2, fitted to the precision of dtype."""
    log_normaliser = math.lgamma(dim / 2) - math.lgamma(1 / 2) - math.lgamma((dim - 1) / 2)
    return _transform_series(
        lambda grid: log_normaliser + (dim - 3) / 2 * grid.log_1_u, 0.5 + order, knee=dim / 2 + order, dtype=dtype
    )


@functools.lru_cache(maxsize=256)
def imq_mean_series(dim: int, scales: tuple[float, ...], order: int, dtype: torch.dtype) -> Series:
    """f_order of the IMQ kernel's mean under N(0, I_dim), in |z|^2/2, fitted to the precision of dtype."""
    constants = torch.tensor([2 * dim * scale for scale in scales], dtype=torch.float64)
    rates = constants[:, None] / 2

    def log_density(grid: _Grid) -> Tensor:
        return (rates.log() - rates * grid.y.exp()).logsumexp(0) + (dim / 2 - 2) * grid.log_1_u

    # C/(C + D + 2s) bends near s = (C+D)/2; several scales bend around the geometric mean of their knees.
    knee = math.sqrt(float((constants.min() + dim) * (constants.max() + dim))) / 2
    return _transform_series(log_density, 1.0 + order, knee=knee + order, dtype=dtype)


@functools.lru_cache(maxsize=256)
def power_mean_series(dim: int, alpha: float, b: float, order: int, dtype: torch.dtype) -> Series:
    """f_order of E_v (1 + |z-v|^2/(2b))^-alpha under N(0, I_dim), in |z|^2/2, fitted to the precision of dtype."""
    log_normaliser = alpha * math.log(b) - math.lgamma(alpha)

    def log_density(grid: _Grid) -> Tensor:
        return log_normaliser + (dim / 2 - 1 - alpha) * grid.log_1_u - b * grid.y.exp()

    # A knee by which the quotient is the same at both ends: large powers would carry it over many orders between them.
    exponent, one = alpha + order, torch.ones(1, dtype=torch.float64)
    at_zero = float(_quotient(log_density, exponent)(0 * one, one))
    log_end = math.lgamma(exponent) - math.lgamma(alpha) + alpha * math.log(b) - math.log(at_zero)
    return _transform_series(log_density, exponent, knee=math.exp(log_end / exponent), dtype=dtype)


@functools.lru_cache(maxsize=256)
def norm_mean_series(dim: int, order: int, dtype: torch.dtype) -> Series:
    """E_v |z-v| under N(0, I_dim) in s = |z|^2/2 for order 0, and its derivative for order 1."""
    exponent = order - 0.5

    def quotient(s: Tensor, w: Tensor) -> Tensor:
        slope = phi(s, dim + 2) / dim
        return mean_norm(dim) * (slope if order else phi(s, dim) + 2 * s * slope) * w**-exponent

    return _fit(quotient, exponent=exponent, knee=dim / 2, dtype=dtype)


def _transform_series(
    log_density: Callable[[_Grid], Tensor], exponent: float, *, knee: float, dtype: torch.dtype
) -> Series:
    """f_j for exponent = a + j; log_density gives log(omega(u) / u^(a-1)) at the nodes."""
    rounding = 2.0**-52 * exponent**2 if exponent > 3 else 0.0  # of a large power
    return _fit(_quotient(log_density, exponent), exponent=exponent, knee=knee, dtype=dtype, rounding=rounding)


def _quotient(log_density: Callable[[_Grid], Tensor], exponent: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Equation (2) as a function of s and w."""
    grid = _Grid.of(exponent)
    log_rest, u = log_density(grid) + grid.log_1_u + math.log(grid.step), grid.y.sigmoid()

    def quotient(s: Tensor, w: Tensor) -> Tensor:
        # The logarithm of the quotient, not a difference of two, whose rounding a large exponent would multiply.
        log_ratio = torch.where(u > 1e-300, (u / w[:, None]).log(), grid.log_u - w.log()[:, None])
        return (log_rest + exponent * log_ratio - s[:, None] * u).logsumexp(1).exp()

    return quotient


def _fit(
    quotient: Callable[[Tensor, Tensor], Tensor],
    *,
    exponent: float,
    knee: float,
    dtype: torch.dtype,
    rounding: float = 0.0,
) -> Series:
    """The shortest Chebyshev series of quotient(s, w), equation (2), that is exact to the precision of dtype.

    `rounding` is the relative error of the quotient's largest values, below which no coefficient means anything.
    """
    for size in (64, 128, 256, 512, 1024):
        degrees = torch.arange(size, dtype=torch.float64)
        odd = 2 * degrees + 1
        w = (torch.cos(odd * (math.pi / (2 * size))) + 1) / 2
        values = quotient(knee / w - knee, w)
        # Reduced as integers, exactly: the cosine of a large rounded angle would cost three digits.
        cosines = torch.cos(torch.outer(degrees, odd) % (4 * size) * (math.pi / (2 * size)))
        coefficients = 2 / size * (cosines @ values)
        coefficients[0] /= 2
        least = torch.maximum(_TOLERANCE[dtype] * values.min(), rounding * values.max())
        needed = int((coefficients.abs() > least).nonzero().max()) + 1
        if needed <= 3 * size // 4:
            break
    return Series(tuple(coefficients[: max(needed, 2)].tolist()), exponent, knee)
