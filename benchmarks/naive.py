r"""The distances as people write them today, frozen before the first kernel: what every speed-up is measured against.

Plain PyTorch, matrix products for the squared distances, torch.sort, autograd for the gradient. `mmd`, `cramer_wold`
and `sliced_wasserstein` compare the whole window. The functions ending in `_rows` leave out every block that does not
depend on the k current rows: the strongest thing one writes in six lines. Their gradient is the same; their value is
the same up to a constant for MMD and Cramer-Wold, and for sliced-Wasserstein it is the current rows' share of the sum.

current [k, D] carries the gradient, history [n-k, D], prior [m, D], directions [D, L]; all return a 0-d tensor.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def mmd(current: Tensor, history: Tensor, prior: Tensor) -> Tensor:
    """Unbiased MMD with the seven inverse multiquadric kernels of the WAE."""
    z = torch.cat([history, current])
    n, m = len(z), len(prior)
    zz, vv, zv = imq(z, z), imq(prior, prior), imq(z, prior)
    within = (zz.sum() - zz.trace()) / (n * (n - 1)) + (vv.sum() - vv.trace()) / (m * (m - 1))
    return within - 2 * zv.mean()


def mmd_rows(current: Tensor, history: Tensor, prior: Tensor) -> Tensor:
    """The pairs of `mmd` that a current row belongs to."""
    h, k, m = len(history), len(current), len(prior)
    n = h + k
    within, between = 1 / (n * (n - 1)), -2 / (n * m)
    weights = torch.cat([history.new_full((size,), w) for size, w in ((h, 2 * within), (k, within), (m, between))])
    return imq(current, torch.cat([history, current, prior])).sum(0) @ weights


def cramer_wold(current: Tensor, history: Tensor) -> Tensor:
    """Cramer-Wold to N(0, I) with the asymptotic phi."""
    z = torch.cat([history, current])
    gamma = (4 / (3 * len(z))) ** 0.4
    pairs = phi(squared_distances(z, z), z.shape[1], gamma).mean()
    norms = phi(z.square().sum(1), z.shape[1], gamma + 0.5).mean()
    return (1 / math.sqrt(1 + gamma) + pairs - 2 * norms) / (2 * math.sqrt(math.pi))


def cramer_wold_rows(current: Tensor, history: Tensor) -> Tensor:
    """The terms of `cramer_wold` that a current row belongs to."""
    (k, dim), h = current.shape, len(history)
    n = h + k
    gamma = (4 / (3 * n)) ** 0.4
    weights = torch.cat([history.new_full((h,), 2 / n**2), history.new_full((k,), 1 / n**2)])
    pairs = phi(squared_distances(current, torch.cat([history, current])), dim, gamma).sum(0) @ weights
    norms = phi(current.square().sum(1), dim, gamma + 0.5).sum() / n
    return (pairs - 2 * norms) / (2 * math.sqrt(math.pi))


def sliced_wasserstein(current: Tensor, history: Tensor, prior: Tensor, directions: Tensor) -> Tensor:
    """Squared sliced 2-Wasserstein distance between samples of equal size."""
    z = torch.cat([history, current])
    x, y = torch.sort(directions.T @ z.T).values, torch.sort(directions.T @ prior.T).values
    return (x - y).square().mean()


def sliced_wasserstein_rows(current: Tensor, history: Tensor, prior: Tensor, directions: Tensor) -> Tensor:
    """The terms of `sliced_wasserstein` in which a current row is coupled."""
    h = len(history)
    with torch.no_grad():
        z = directions.T @ torch.cat([history, current]).T
        ranks = torch.searchsorted(torch.sort(z).values, z[:, h:].contiguous())
        partners = torch.sort(directions.T @ prior.T).values.gather(1, ranks)
    return (directions.T @ current.T - partners).square().sum() / z.numel()


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """[a, D], [b, D] -> [a, b] by a matrix product."""
    return x.square().sum(1, keepdim=True) + y.square().sum(1) - 2 * x @ y.T


def imq(x: Tensor, y: Tensor) -> Tensor:
    """Sum of inverse multiquadric kernels. [a, D], [b, D] -> [a, b]."""
    r = squared_distances(x, y)
    constants = [2 * x.shape[1] * scale for scale in SCALES]
    return sum(c / (c + r) for c in constants)  # type: ignore[return-value]


def phi(r: Tensor, dim: int, gamma: float) -> Tensor:
    """The asymptotic phi_D(r / 4 gamma) / sqrt(gamma), elementwise."""
    return (gamma + r / (2 * dim - 3)).rsqrt()
