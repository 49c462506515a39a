"""Functions f(r) of a squared distance, or of a product: their numbers, and value and derivative in Triton.

As in csrc/common/radial.h, one of some families, in t = rate r:

    rational      sum_s 1/(1 + c_s t) = P(t)/Q(t)             inverse multiquadric kernels
    exponentials  sum_s a_s exp(-b_s t)                       Gaussian kernels, and phi_1
    series        w^a p(2w-1), w = 1/(1+t)                    phi_D, and the means of inverse multiquadric and energy
                                                              kernels, and, a sum of them, of rational quadratic ones
    root          -sqrt(t)                                    the energy kernel
    laplacian     sum_s exp(-b_s sqrt(t))                     Laplacian kernels
    powers        sum_s (1 + b_s t)^-a_s - linear t           rational quadratic kernels
    polynomial    sum_j p_j t^j                               the mean of polynomial kernels
    products      (t + offset)^terms, r a product of rows     polynomial kernels

The numbers stand in the machine code as constants: a kernel is compiled for one width and one set of options anyway,
and a multiply-add takes a constant for free.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl


@dataclass(frozen=True, eq=False)  # compared by identity, which costs a launch nothing; they are made once
class Radial:
    """The constants of one function; a field is empty where its family has no use for it."""

    family: str
    """One of those above, or "sum", of series."""
    terms: int
    """Scales, steps, coefficients of p, parts, or the degree."""
    p: tuple[float, ...] = ()
    """Rational: P. Exponentials and powers: a_s. Series and polynomial: the coefficients of p."""
    q: tuple[float, ...] = ()
    """Rational: Q. Exponentials, laplacian and powers: b_s. Series: those of q = a p(x) + (x+1) p'(x), for the
    derivative; polynomial: of p'."""
    slope: tuple[float, ...] = ()
    """Rational: P Q' - P' Q. All its coefficients are positive, as those of P and Q, so that nothing cancels."""
    reciprocals: tuple[float, ...] = ()
    """Rational: c_s."""
    bound: float = 0.0
    """Rational: beyond this t a polynomial could overflow, and the sum is taken as it stands."""
    squares: tuple[bool, ...] = ()
    """Exponentials: whether the term is the square of the one before, which costs one product."""
    chebyshev: bool = False
    """Series: whether the coefficients are those of Chebyshev polynomials, not of powers."""
    whole: int = 1
    fraction: float = 0.0
    """Series: a, in two parts of which the second is not below 0."""
    tails: tuple[float, ...] = ()
    """Laplacian: what rounding to float32 takes from b_s."""
    linear: float = 0.0
    """Powers and sum: of r."""
    offset: float = 0.0
    """Products and sum."""
    wholes: tuple[int, ...] = ()
    fractions: tuple[float, ...] = ()
    """Powers and sum: a_s, likewise."""
    rates: tuple[float, ...] = ()
    """Sum: of each series its rate, whether its coefficients are Chebyshev's, how many, p and q."""
    bases: tuple[bool, ...] = ()
    lengths: tuple[int, ...] = ()
    ps: tuple[tuple[float, ...], ...] = ()
    qs: tuple[tuple[float, ...], ...] = ()


def inverse_multiquadric(constants: Sequence[float], dtype: torch.dtype) -> tuple[Radial, float]:
    """sum_s C_s/(C_s + r), and the rate."""
    unit = math.sqrt(min(constants)) * math.sqrt(max(constants))  # keeps the coefficients in range
    reciprocals = [unit / constant for constant in constants]
    count = len(constants)
    q = [1.0]
    for c in reciprocals:  # Q = prod (1 + c_s t)
        q = [a + c * b for a, b in zip([*q, 0.0], [0.0, *q], strict=True)]
    p = [(count - j) * q[j] for j in range(count)]  # sum_s Q/(1 + c_s t) has each product of j factors count - j times
    slope = [0.0] * (2 * count - 1)
    for i in range(count):
        for j in range(count + 1):
            if i + j > 0 and i + j < 2 * count:
                slope[i + j - 1] += (j - i) * p[i] * q[j]
    largest = torch.finfo(dtype).max / 16
    bound = min(_largest_argument(q, largest), _largest_argument(slope, largest))
    if bound < 0:
        p, q, slope = [], [], []
    return Radial("rational", count, tuple(p), tuple(q), tuple(slope), tuple(reciprocals), bound), 1 / unit


def gaussian(constants: Sequence[float]) -> tuple[Radial, float]:
    """sum_s exp(-r/C_s), and the rate. A constant that is half or a quarter of another costs a square."""
    left, unit = sorted(constants, reverse=True), max(constants)
    rates: list[float] = []
    squares: list[bool] = []
    while left:
        constant = left.pop(0)
        rates.append(unit / constant)
        squares.append(False)
        for _ in range(2):  # each square doubles the relative error
            constant /= 2
            if constant not in left:
                break
            left.remove(constant)
            rates.append(unit / constant)
            squares.append(True)
    return _exponentials((1.0,) * len(rates), tuple(rates), tuple(squares)), 1 / unit


def exponentials(amplitudes: Sequence[float], rates: Sequence[float]) -> Radial:
    """sum_s amplitude_s exp(-rate_s r), for a rate of 1."""
    return _exponentials(tuple(amplitudes), tuple(rates), (False,) * len(rates))


def series(table: Sequence[float], *, power: float) -> tuple[Radial, float]:
    """The function of a table [knee, chebyshev, p_0.., q_0..] of mow_kernels/tables.py, and the knee: t = s / knee."""
    terms = (len(table) - 2) // 2
    p, q = tuple(table[2 : 2 + terms]), tuple(table[2 + terms :])
    whole, fraction = _split(power)
    return Radial("series", terms, p, q, chebyshev=bool(table[1]), whole=whole, fraction=fraction), table[0]


def laplacian(lengths: Sequence[float], dtype: torch.dtype) -> Radial:
    """sum_s exp(-sqrt(r)/length_s), for a rate of 1."""
    rates = [1 / length for length in lengths]
    tails = tuple(rate - ctypes.c_float(rate).value if dtype == torch.float32 else 0.0 for rate in rates)
    return Radial("laplacian", len(rates), q=tuple(rates), tails=tails)


def rational_quadratic(linear: float, powers: Sequence[float]) -> Radial:
    """sum_a (1 + r/(2a))^-a - linear r, for a rate of 1."""
    wholes, fractions = zip(*map(_split, powers), strict=True)
    rates = tuple(1 / (2 * a) for a in powers)
    return Radial("powers", len(powers), tuple(powers), rates, linear=linear, wholes=wholes, fractions=fractions)


def _split(power: float) -> tuple[int, float]:
    whole = math.floor(power)
    return whole, power - whole


def sum_of_series(offset: float, linear: float, powers: Sequence[float], tables: Sequence[float]) -> Radial:
    """offset - linear r + the functions of |z|^2/2 of such tables, each after its length; for a rate of 1."""
    parts, rates, at = [], [], 0
    for power in powers:
        count = int(tables[at])
        part, knee = series(tables[at + 1 : at + 1 + count], power=power)
        parts.append(part)
        rates.append(1 / (2 * knee))
        at += 1 + count
    return Radial(
        "sum",
        len(parts),
        offset=offset,
        linear=linear,
        rates=tuple(rates),
        wholes=tuple(part.whole for part in parts),
        fractions=tuple(part.fraction for part in parts),
        lengths=tuple(part.terms for part in parts),
        bases=tuple(part.chebyshev for part in parts),
        ps=tuple(part.p for part in parts),
        qs=tuple(part.q for part in parts),
    )


def polynomial(coefficients: Sequence[float]) -> Radial:
    """sum_j c_j r^j, for a rate of 1."""
    slopes = (*(j * c for j, c in enumerate(coefficients) if j), 0.0)
    return Radial("polynomial", len(coefficients), tuple(coefficients), slopes)


def _exponentials(amplitudes: tuple[float, ...], rates: tuple[float, ...], squares: tuple[bool, ...]) -> Radial:
    return Radial("exponentials", len(rates), amplitudes, rates, squares=squares)


def _largest_argument(coefficients: Sequence[float], largest: float) -> float:
    """A t up to which a polynomial with positive coefficients stays below; -1 if there is none.

    sum c_j t^j <= (sum c_j) t^degree for t >= 1.
    """
    room = largest / sum(coefficients)
    degree = len(coefficients) - 1
    if not room >= 1:
        return -1.0
    return min(largest, room ** (1 / degree)) if degree else largest


@triton.jit
def evaluate(r, rate, F: tl.constexpr):
    """f(r) and f'(r) for a tensor r and a scalar rate."""
    rate = rate.to(r.dtype)
    if F.family == "rational":
        if F.bound < 0:
            return _sum_of_quotients(r * rate, rate, tl.constexpr(F.reciprocals), F.terms)
        else:
            return _rational(r * rate, rate, F)
    elif F.family == "exponentials":
        return _sum_of_exponentials(
            r * rate, rate, tl.constexpr(F.p), tl.constexpr(F.q), tl.constexpr(F.squares), F.terms
        )
    elif F.family == "root":
        root, inverse, rest = _roots(r)
        return -root - rest, -0.5 * inverse
    elif F.family == "laplacian":
        return _laplacian(r, tl.constexpr(F.q), tl.constexpr(F.tails), F.terms)
    elif F.family == "powers":
        value, slope = _powers(
            r, tl.constexpr(F.p), tl.constexpr(F.q), tl.constexpr(F.wholes), tl.constexpr(F.fractions), F.terms
        )
        return _with_linear(r, value, slope, F.linear)
    elif F.family == "polynomial":
        return _horner(r, tl.constexpr(F.p), F.terms), _horner(r, tl.constexpr(F.q), F.terms)
    elif F.family == "products":
        x = r * rate + F.offset
        lower = _whole_power(x, F.terms - 1)
        return lower * x, lower * (rate * F.terms)
    elif F.family == "sum":
        value, slope = _sum_of_series(
            r, tl.constexpr(F.rates), tl.constexpr(F.wholes), tl.constexpr(F.fractions), tl.constexpr(F.bases),
            tl.constexpr(F.lengths), tl.constexpr(F.ps), tl.constexpr(F.qs), F.terms,
        )  # fmt: skip
        return _with_linear(r, value + F.offset, slope, F.linear)
    else:
        return _series(r * rate, rate, F.whole, F.fraction, F.chebyshev, tl.constexpr(F.p), tl.constexpr(F.q), F.terms)


@triton.jit
def _sum_of_series(
    r, RATES: tl.constexpr, WHOLES: tl.constexpr, FRACTIONS: tl.constexpr, BASES: tl.constexpr, LENGTHS: tl.constexpr,
    P: tl.constexpr, Q: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    value, slope = tl.zeros_like(r), tl.zeros_like(r)
    for s in tl.static_range(TERMS):
        term, term_slope = _series(
            r * RATES[s],
            RATES[s],
            WHOLES[s],
            FRACTIONS[s],
            BASES[s],
            tl.constexpr(P[s]),
            tl.constexpr(Q[s]),
            LENGTHS[s],
        )
        value += term
        slope += term_slope
    return value, slope


@triton.jit
def _with_linear(r, value, slope, LINEAR: tl.constexpr):
    if LINEAR != 0:  # nothing times an infinite r is not nothing
        value, slope = value - LINEAR * r, slope - LINEAR
    return value, slope


@triton.jit
def _roots(r):
    """sqrt(r), 1/sqrt(r) and what rounding took from the first; all are zero where r is or would be denormal."""
    if r.dtype == tl.float64:
        SMALLEST: tl.constexpr = 2.2250738585072014e-308
    else:
        SMALLEST: tl.constexpr = 1.1754943508222875e-38
    same = r < SMALLEST  # NaN is not
    x = tl.where(same, 1, _finite(r))
    root = tl.sqrt(x)
    inverse = 1 / root
    rest = (x - root * root) * (0.5 * inverse)
    return tl.where(same, 0, root), tl.where(same, 0, inverse), tl.where(same, 0, rest)


@triton.jit
def _laplacian(r, RATES: tl.constexpr, TAILS: tl.constexpr, TERMS: tl.constexpr):
    root, inverse, rest = _roots(r)
    value, slope = tl.zeros_like(r), tl.zeros_like(r)
    for s in tl.static_range(TERMS):
        x = root * -RATES[s]
        term = _exp(x)
        tail = tl.fma(root, -RATES[s] + tl.zeros_like(root), -x) - root * TAILS[s] - rest * RATES[s]
        term += tl.where(term > 0, term * tail, 0)
        value += term
        slope += term * RATES[s]
    return value, slope * inverse * -0.5


@triton.jit
def _powers(
    r, A: tl.constexpr, B: tl.constexpr, WHOLES: tl.constexpr, FRACTIONS: tl.constexpr, TERMS: tl.constexpr
):  # fmt: skip
    value, slope = tl.zeros_like(r), tl.zeros_like(r)
    for s in tl.static_range(TERMS):
        x = _finite(1 + r * B[s])
        inverse = _reciprocal(x)
        term = _power(x, inverse, WHOLES[s], FRACTIONS[s])
        value += term
        slope -= term * inverse * (A[s] * B[s])
    return value, slope


@triton.jit
def _power(x, inverse, WHOLE: tl.constexpr, FRACTION: tl.constexpr):
    """x^-(whole + fraction) for x >= 1."""
    y = _whole_power(inverse, WHOLE)
    if FRACTION == 0.5:
        y *= _reciprocal_root(x)
    elif FRACTION > 0:
        y *= _exp(-FRACTION * tl.log(x))
    return y


@triton.jit
def _whole_power(x, N: tl.constexpr):
    y = tl.full(x.shape, 1, x.dtype)
    for i in tl.static_range(0, 31):
        if (N >> i) & 1:
            y *= x
        if (N >> (i + 1)) > 0:
            x = x * x
    return y


@triton.jit
def _rational(t, rate, F: tl.constexpr):
    inverse = _reciprocal(_horner(t, tl.constexpr(F.q), F.terms + 1))
    value = _horner(t, tl.constexpr(F.p), F.terms) * inverse
    slope = -rate * _horner(t, tl.constexpr(F.slope), 2 * F.terms - 1) * inverse * inverse
    if tl.max((t > F.bound).to(tl.int32)) > 0:
        value, slope = _sum_of_quotients(t, rate, tl.constexpr(F.reciprocals), F.terms)
    return value, slope


@triton.jit
def _sum_of_quotients(t, rate, RECIPROCALS: tl.constexpr, TERMS: tl.constexpr):
    value, slope = tl.zeros_like(t), tl.zeros_like(t)
    for s in tl.static_range(TERMS):
        term = _reciprocal(_finite(1 + t * RECIPROCALS[s]))
        value += term
        slope -= term * term * (rate * RECIPROCALS[s])
    return value, slope


@triton.jit
def _sum_of_exponentials(
    t, rate, AMPLITUDES: tl.constexpr, RATES: tl.constexpr, SQUARES: tl.constexpr, TERMS: tl.constexpr
):
    value, slope, term = tl.zeros_like(t), tl.zeros_like(t), tl.zeros_like(t)
    for s in tl.static_range(TERMS):
        if SQUARES[s]:
            term = term * term
        else:
            term = _exp(-RATES[s] * t) * AMPLITUDES[s]
        value += term
        slope -= term * (rate * RATES[s])
    return value, slope


@triton.jit
def _exp(x):
    """exp(x) for x <= 0. tl.exp in float32 multiplies by log2(e) first, and that product's rounding grows with -x."""
    if x.dtype == tl.float64:
        return tl.exp(x)
    else:
        x = tl.where(x < -104.0, -104.0, x)  # zero from there on; NaN stays
        n = tl.floor(x * 1.4426950408889634 + 0.5)
        rest = (x - n * 0.693359375) - n * -2.12194440054690583e-4  # log(2) in two parts; the first product is exact
        return tl.exp2(n) * tl.exp(rest)


@triton.jit
def _series(
    t, rate, WHOLE: tl.constexpr, FRACTION: tl.constexpr, CHEBYSHEV: tl.constexpr, P: tl.constexpr, Q: tl.constexpr,
    TERMS: tl.constexpr,
):  # fmt: skip
    t = _finite(1 + t)
    if WHOLE == 0 and FRACTION == 0.5:
        power = _reciprocal_root(t)
        w = power * power
    elif WHOLE == -1 and FRACTION == 0.5:
        root = _reciprocal_root(t)
        power = t * root
        w = root * root
    else:
        w = _reciprocal(t)
        power = _power(t, w, WHOLE, FRACTION)
    x = w + w - 1
    if CHEBYSHEV:
        p = _clenshaw(x, P, TERMS)
        q = _clenshaw(x, Q, TERMS)
    else:
        p = _horner(x, P, TERMS)
        q = _horner(x, Q, TERMS)
    return power * p, -rate * power * w * q


@triton.jit
def _reciprocal_root(x):
    """1/sqrt(x) for finite x >= 1."""
    power = tl.rsqrt(x)
    return power * (1.5 - 0.5 * x * power * power)  # the instruction alone errs by some units in the last place


@triton.jit
def _finite(x):
    """x, but the largest number for infinity; NaN stays."""
    if x.dtype == tl.float64:
        LARGEST: tl.constexpr = 1.7976931348623157e308
    else:
        LARGEST: tl.constexpr = 3.4028234663852886e38
    return tl.where(x > LARGEST, LARGEST, x)


@triton.jit
def _reciprocal(x):
    """1/x for finite x >= 1, in half of the instructions that a division takes."""
    if x.dtype == tl.float64:
        return 1 / x
    else:
        root = tl.rsqrt(x)
        return root * root * (2 - x * root * root)  # one step of Newton's


@triton.jit
def _horner(x, C: tl.constexpr, TERMS: tl.constexpr):
    """sum_j C_j x^j."""
    y = tl.full(x.shape, C[TERMS - 1], x.dtype)
    for j in tl.static_range(TERMS - 2, -1, -1):
        y = y * x + C[j]
    return y


@triton.jit
def _clenshaw(x, C: tl.constexpr, TERMS: tl.constexpr):
    """sum_j C_j T_j(x), TERMS >= 2."""
    y, above = tl.full(x.shape, C[TERMS - 1], x.dtype), tl.zeros_like(x)
    for j in tl.static_range(TERMS - 2, 0, -1):
        y, above = 2 * x * y + (C[j] - above), y
    return x * y + (C[0] - above)
