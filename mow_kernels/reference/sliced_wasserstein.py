r"""Sliced-Wasserstein distance (Bonneel et al. 2015; Kolouri et al., "Sliced-Wasserstein Auto-Encoder", 2018).

    SW = 1/L sum_l W_p^p(theta_l . z, theta_l . v),    W_p^p(x, y) = int_0^1 |F_x^-1(t) - F_y^-1(t)|^p dt      (1)

without a root. For samples the quantile functions are steps of width 1/n and 1/m, so the integral is a finite sum over
the steps of both. For v ~ N(0, I_D) every projection is N(0, 1); with a_i = Phi^-1(i/n), phi its density, and
q_i = n (phi(a_(i-1)) - phi(a_i)) the mean of the normal within the i-th of n equal quantile bins,

    W_2^2(x, N(0, 1)) = mean_i (x_(i) - q_i)^2 + 1 - mean_i q_i^2                                  (2)

exactly: the distance to the bins' means plus the variance inside the bins.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from mow_kernels import transforms
from mow_kernels.compiling import constant_in_graphs


def sliced_wasserstein(
    current: Tensor, history: Tensor, prior: Tensor | None, *, directions: Tensor, p: float
) -> Tensor:
    """Equation (1), or (2) for prior None. current [k, D], history [h, D], prior [m, D] -> 0-d.

    directions as for `unit`. Equal projections are ranked by row index, history before current.
    """
    directions = unit(directions)
    x = _ranked(torch.cat([_projections(history, directions), _projections(current, directions)]))
    if prior is None:
        means, variance_inside = _normal_bins(len(x))
        return (x - means.to(x)[:, None]).square().mean() + variance_inside
    y = _ranked(_projections(prior, directions))
    if len(x) == len(y):
        return _cost(x - y, p).mean()
    x_index, y_index, widths = (column.to(x.device) for column in _quantile_coupling(len(x), len(y)))
    return (widths.to(x.dtype) @ _cost(x[x_index] - y[y_index], p)).mean()


def unit(directions: Tensor) -> Tensor:
    """Directions [D, L] as they are; or draws from N(0, I) [1, D, L] over their norms (from 1e-12 on) -> [D, L]."""
    return directions if directions.dim() == 2 else torch.nn.functional.normalize(directions[0], dim=0)


def _projections(rows: Tensor, directions: Tensor) -> Tensor:
    """rows [n, D], directions [D, L] -> [n, L], the same number for equal rows.

    A matrix product may round equal rows differently, by where they lie in its blocks, and break a tie at random.
    """
    return (rows.unsqueeze(2) * directions).sum(1)


def _ranked(projections: Tensor) -> Tensor:
    """Each column [n, L] ascending, equal ones in the order of their rows."""
    return torch.sort(projections, dim=0, stable=True).values


def _cost(difference: Tensor, p: float) -> Tensor:
    if p == 2:
        return difference.square()
    return difference.abs() if p == 1 else difference.abs().pow(p)


@functools.lru_cache(maxsize=32)
@transforms.outside
def normal_bins(n: int) -> tuple[Tensor, float]:
    """q [n] of equation (2), ascending, in float64, and 1 - mean q^2."""
    edges = torch.special.ndtri(torch.arange(1, n, dtype=torch.float64) / n)
    density = torch.exp(-edges.square() / 2) / math.sqrt(2 * math.pi)
    outside = density.new_zeros(1)
    means = n * (torch.cat([outside, density]) - torch.cat([density, outside]))
    return means, 1 - float(means.square().mean())


@functools.lru_cache(maxsize=32)
@transforms.outside
def quantile_coupling(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pieces of [0, 1] on which both quantile functions of n and m rows are constant.

    Returns:
        for each of the P pieces its rank among the n, its rank among the m (int64 [P]) and its width (float64 [P]).
    """
    # Edges i/n and j/m, exact as integers i*m and j*n out of n*m.
    edges = torch.unique(torch.cat([torch.arange(n + 1) * m, torch.arange(m + 1) * n]))
    left = edges[:-1]
    return left // m, left // n, edges.diff().double() / (n * m)


@constant_in_graphs
def _normal_bins(n: int) -> tuple[Tensor, float]:
    return normal_bins(n)


@constant_in_graphs
def _quantile_coupling(n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    return quantile_coupling(n, m)
