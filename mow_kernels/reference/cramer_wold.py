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
from collections.abc import Callable

from torch import Tensor

from mow_kernels.reference import laplace
from mow_kernels.reference.sums import Pairwise, Radial, over_window, sum_between, sum_window, sum_within


def cramer_wold(current: Tensor, history: Tensor, prior: Tensor | None, *, gamma: float, phi: str) -> Tensor:
    """Equation (1) for prior None, else (2). current [k, D], history [h, D], prior [m, D] -> 0-d."""
    n, dim = len(current) + len(history), current.shape[1]
    if prior is None:
        return over_window(cramer_wold_to_normal(n, dim, gamma=gamma, phi=phi), current, history)
    radial, m = _radial(dim, gamma, phi), len(prior)
    zz = (n + sum_window(radial, current, history)) / n**2  # phi(0) = 1 on the diagonal
    vv = (m + sum_within(radial, prior)) / m**2
    zv = (sum_between(radial, current, prior) + sum_between(radial, history, prior)) / (n * m)
    return (zz + vv - 2 * zv) / (2 * math.sqrt(math.pi * gamma))


def cramer_wold_to_normal(n: int, dim: int, *, gamma: float, phi: str) -> Pairwise:
    """Equation (1)."""
    phi_of, factor = _phi(dim, phi), 1 / (2 * math.sqrt(math.pi))

    def own(z: Tensor) -> Tensor:
        return phi_of(z.square().sum(1) / (2 + 4 * gamma))

    pair = factor / (n**2 * math.sqrt(gamma))
    constant = factor / math.sqrt(1 + gamma) + n * pair  # phi(0) = 1 on the diagonal
    single = -2 * factor / (n * math.sqrt(gamma + 0.5))
    return Pairwise((dim, gamma, phi), _radial(dim, gamma, phi), own, pair, single, constant)


def _radial(dim: int, gamma: float, phi: str) -> Radial:
    phi_of = _phi(dim, phi)
    return lambda r: phi_of(r / (4 * gamma))


def _phi(dim: int, phi: str) -> Callable[[Tensor], Tensor]:
    if phi == "exact":
        return lambda s: laplace.phi(s, dim)
    return lambda s: (1 + 4 / (2 * dim - 3) * s).rsqrt()
