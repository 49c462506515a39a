r"""Greedy k-centre (Gonzalez 1985): k rows of a sample that cover it.

    i_1 = start,    i_(r+1) = argmax_i min_(s <= r) |x_i - x_(i_s)|^2 over the rows not yet taken                  (1)

with ties to the lowest index. Where there are centres already, G, the first is no given row but

    i_1 = argmax_i min_(g in G) |x_i - x_g|^2,                                                                     (2)

and every later minimum is over G as well. The covering radius max_i min_s |x_i - x_(i_s)| is at most twice the smallest
that any k rows have. A row belongs to the centre nearest to it, to the earliest of equally near ones.

Which row is the farthest may hang on the last bit, so the arithmetic is part of the definition: the squares of the
differences are added up one by one, in the order of the columns, each operation rounded to x's dtype. Every backend
then takes the same rows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def k_center(x: Tensor, *, k: int, start: int, given: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Equation (1), or (2) where `given` are rows that are centres already, int64 [s]; `start` then says nothing.

    x [N, D] -> indices int64 [k], square of the covering radius 0-d, Voronoi counts int64 [k]. A row whose distance is
    no number counts as infinitely far. Rows of the given centres, which come before the k, are not counted.
    """
    columns = x.T.contiguous()
    nearest = x.new_full((len(x),), math.inf)  # squared distance to the nearest centre; -1 for the centres themselves
    owner = torch.full((len(x),), 0 if given is None else k, device=x.device)  # k stands for those that are given
    before = () if given is None else given[:, None].to(x.device)
    indices = [torch.full((1,), start, device=x.device)] if given is None else []
    for step in range(-len(before), k):
        if step >= len(indices):
            indices.append(nearest.argmax(keepdim=True))
        index, taken = (before[step], k) if step < 0 else (indices[step], step)
        owner[index] = torch.where(nearest[index] > 0, taken, owner[index])
        nearest[index] = -1
        distance = torch.zeros_like(nearest)
        for column, center in zip(columns, columns[:, index], strict=True):
            difference = column - center
            distance += difference * difference
        closer = distance < nearest
        nearest = torch.where(closer, distance, nearest)
        owner[closer] = taken
    return torch.cat(indices), nearest.max().clamp(min=0), torch.bincount(owner, minlength=k)[:k]
