r"""Cramer-Wold distance (Tabor et al., "Cramer-Wold Auto-Encoder", JMLR 2020), equations (1) and (2).

To N(0, I_D), z over the n rows of the window:

    1/(2 sqrt(pi)) [ 1/sqrt(1+gamma) + 1/(n^2 sqrt(gamma)) sum_ij phi_D(|z_i-z_j|^2 / (4 gamma))
                     - 2/(n sqrt(gamma+1/2)) sum_i phi_D(|z_i|^2 / (2 + 4 gamma)) ]                (1)

and between two samples z (n rows) and v (m rows):

    1/(2 sqrt(pi gamma)) [ mean phi_D(zz/4gamma) + mean phi_D(vv/4gamma) - 2 mean phi_D(zv/4gamma) ]      (2)

The diagonals are included (a V-statistic) and phi_D(s) = 1F1(1/2; D/2; -s), or for large D its asymptotic form
(1 + 4s/(2D-3))^(-1/2), which leaves a positive floor at a perfect prior: .019 to .03 before the factor 1/(2 sqrt(pi))
at D = 20.
"""

from __future__ import annotations

import math

from torch import Tensor

from mow_kernels.reference import laplace
from mow_kernels.reference.pairs import sum_between, sum_window, sum_within


def cramer_wold(current: Tensor, history: Tensor, prior: Tensor | None, *, gamma: float, phi: str) -> Tensor:
    """Equation (1) for prior None, else (2). current [k, D], history [h, D], prior [m, D] -> 0-d."""
    n, dim = len(current) + len(history), current.shape[1]

    def phi_of(s: Tensor) -> Tensor:
        return laplace.phi(s, dim) if phi == "exact" else (1 + 4 / (2 * dim - 3) * s).rsqrt()

    def radial(r: Tensor) -> Tensor:
        return phi_of(r / (4 * gamma))

    zz = (n + sum_window(radial, current, history)) / n**2  # phi(0) = 1 on the diagonal
    if prior is None:
        zv = sum(phi_of(z.square().sum(1) / (2 + 4 * gamma)).sum() for z in (current, history)) / n
        bracket = 1 / math.sqrt(1 + gamma) + zz / math.sqrt(gamma) - 2 / math.sqrt(gamma + 0.5) * zv
        return bracket / (2 * math.sqrt(math.pi))
    m = len(prior)
    vv = (m + sum_within(radial, prior)) / m**2
    zv = (sum_between(radial, current, prior) + sum_between(radial, history, prior)) / (n * m)
    return (zz + vv - 2 * zv) / (2 * math.sqrt(math.pi * gamma))
