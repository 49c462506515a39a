"""What the fused kernels need to know of a function that is a series: small float64 tensors on the CPU.

They depend on the width, the type and the options of a call only, never on its data. Each op caches its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mow_kernels.reference.laplace import Series, evaluate

_TOLERANCE = {torch.float32: 2.0**-28, torch.float64: 2.0**-47}
_HORNER_LIMIT = 4.0
"""Powers of x replace Chebyshev polynomials where their terms add up to this many times the sum at most: 2 bits."""


def series(fitted: Callable[[int, torch.dtype], Series], dtype: torch.dtype) -> list[float]:
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


def table(numbers: list[float]) -> Tensor:
    """float64 on the CPU: each further argument of an op costs half a microsecond a call, a list of numbers several."""
    return torch.tensor(numbers, dtype=torch.float64, device="cpu")
