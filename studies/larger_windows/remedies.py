"""What others do about old rows, and `mow train` has no option for: a momentum encoder, and weights by age."""

from __future__ import annotations

import copy
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import mow
import mow_kernels as mk
from mow.app import grid, reproduce
from mow.app.options import Options
from mow.training.trainer import Trainer
from studies.larger_windows import adaptive

N = 256
MOMENTUM = 0.99
"""Of the encoder that makes the rows: a mean of the weights over some 100 steps."""

MEAN_AGE = 64
"""Of a row, by weight; that of the newest is 1 / (MEAN_AGE + 1)."""


class MomentumTrainer(Trainer):
    """Pushes what a slow encoder makes of the new elements, whose weights are a running mean of those that are trained.

    Source: "Momentum Contrast for Unsupervised Visual Representation Learning", He et al. (2020), section 3.2.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "reencode": False})
        self.slow = copy.deepcopy(self.encoder).requires_grad_(False)

    def step(self, x: Tensor, **how: Any) -> dict[str, Tensor]:
        results = super().step(x, **how)
        k, dim = len(x), self.window.dim
        with torch.no_grad():
            for slow, own in zip(self.slow.parameters(), self.encoder.parameters(), strict=True):
                slow.lerp_(own, 1 - MOMENTUM)
            rows = self.slow(x)
        self.window.carry(rows.new_zeros(dim, dim), rows.new_zeros(dim), range(k, 0, -1), rows)
        return results


class ByAge(mow.CramerWold):
    """The Cramer-Wold distance of rows that weigh exp(-age / MEAN_AGE): as many as 1 / sum of squared weights."""

    def value(self, z: Tensor, history: Tensor | None, prior: Tensor | str) -> Tensor:
        rows = z if history is None else torch.cat([history, z])
        weights = by_age(len(rows)).to(rows)
        n = max(2, round(1 / float(weights.square().sum())))
        terms = mk.to_normal(self.function, z, n, **self.options(z))
        assert isinstance(terms, mk.Pairwise)
        shares = weights[:, None] * weights
        shares.fill_diagonal_(0)  # that of the pairs of a row with itself is in the constant
        pairs = (shares * terms.matrix(rows, rows)).sum()
        return terms.pair * n**2 * pairs + terms.single * n * (weights * terms.own(rows)).sum() + terms.constant


def by_age(count: int) -> Tensor:
    """The weights of so many rows, oldest first; their sum is 1."""
    weights = torch.exp(-torch.arange(count - 1, -1, -1, dtype=torch.float64) / MEAN_AGE)
    return weights / weights.sum()


def _weighted(options: Options, dim: int) -> ByAge:
    return ByAge(log=bool(options.log))


REMEDIES: dict[str, tuple[str, Any]] = {
    "momentum": ("mow.app.run.Trainer", MomentumTrainer),
    "weights": ("mow.app.run._distance", _weighted),
}
"""Name -> what takes which place in the command line's training."""


def cells(pictures: int) -> Iterator[tuple[str, grid.Cell]]:
    """CWAE on both data sets, with a learning rate that falls; by remedy."""
    own = math.fsum(by_age(N)[-1:].tolist())  # the factor n/k takes each row for 1/n
    for data in ("fashion-mnist", "mnist"):
        for name in REMEDIES:
            for seed in adaptive.SEEDS:
                weight = 1 / (N * own) if name == "weights" else 1.0
                options = adaptive.options(data, "cwae", "cosine", {"n": N, "weight": weight}, seed, pictures)
                yield name, grid.Cell(f"{data}-cwae-cosine-{name}-seed={seed}", options)


def run(name: str, cell: grid.Cell, folder: Path) -> dict[str, Any]:
    """What to keep of a cell with its remedy; one that was interrupted has lost its slow encoder, and begins anew."""
    if grid.result_of(folder) is None and folder.exists():
        shutil.rmtree(folder)
    place, instead = REMEDIES[name]
    with mock.patch(place, instead):
        return {**reproduce.public(grid.run_cell(cell, folder)), "remedy": name}
