"""The one collective of a step: the latents of all ranks, on their way while the decoder works."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mow.checks import positive
from mow.distributed.ranks import Ranks
from mow.naming import named

_all_gather: Any = getattr(dist, "all_gather_single", None) or getattr(dist, "all_gather_into_tensor", None)
"""PyTorch renamed it in 2.13, and may have been built without either."""


class Gathering:
    """Rows of all ranks, under way; made by `gather`.

    >>> (rows,) = gather(z).wait()
    >>> rows.shape        # of one process
    torch.Size([4, 8])
    """

    def __init__(
        self, parts: Sequence[Tensor], capacity: int, counts: Sequence[Sequence[int] | None], ranks: Ranks
    ) -> None:
        self._parts, self._known, self._ranks, self._work = parts, counts, ranks, None
        self.counts: list[Sequence[int]] = []
        """For each part how many rows each rank has, once `wait` has returned."""
        if ranks.size > 1:
            block = parts[0].new_zeros(len(parts), capacity, parts[0].shape[1] + 1)  # the last column tells rows apart
            for padded, part in zip(block, parts, strict=True):
                padded[: len(part), :-1], padded[: len(part), -1] = part.detach(), 1
            self._gathered = block.new_empty(ranks.size, *block.shape)
            self._work = _all_gather(self._gathered, block[None], group=ranks.group, async_op=True)

    def __repr__(self) -> str:
        return named(self, parts=tuple(self._parts), ranks=self._ranks.size)

    def wait(self) -> tuple[Tensor, ...]:
        """The rows of all ranks in rank order, [K, D] for each part; K is the sum of the ranks' k.

        Those of this rank are the tensor that was given, graph and all; the others are constants. Every rank gets the
        same numbers in the same order.
        """
        if self._work is None:
            self.counts = [[len(part)] for part in self._parts]
            return tuple(self._parts)
        self._work.wait()
        present = self._gathered[..., -1] > 0
        self.counts = [present[:, i].sum(1).tolist() if known is None else known for i, known in enumerate(self._known)]
        return tuple(self._rows(i, part) for i, part in enumerate(self._parts))

    def _rows(self, i: int, part: Tensor) -> Tensor:
        of_ranks, counts = self._gathered[:, i], self.counts[i]
        rows = [rows[:count, :-1] for rows, count in zip(of_ranks, counts, strict=True)]
        rows[self._ranks.rank] = part
        return torch.cat(rows)


def gather(
    *parts: Tensor,
    capacity: int | None = None,
    counts: Sequence[Sequence[int] | None] | None = None,
    group: dist.ProcessGroup | None = None,
) -> Gathering:
    """Send this rank's rows to all ranks, without waiting for theirs: one all_gather, of latents alone.

        >>> z = encoder(x)
        >>> gathering = gather(z)
        >>> error = (decoder(z) - x).square().mean()        # while the latents are on their way
        >>> (rows,) = gathering.wait()        # [K, D] in rank order, with a gradient for z

    No gradient is sent: each rank back-propagates through its own rows. Without torch.distributed, or with one rank,
    the parts come back as they are.

    Args:
        parts: [k, D] each, of one width, dtype and device; a rank may have k = 0.
        capacity: the most rows that any rank has in any part, the same number in every rank. None says that every rank
            has as many rows as this one; where that is not so, the collective fails or gloo ends the process.
        counts: for each part how many rows each rank has, where all ranks know; None, also for a part, reads it from
            what was gathered, for which a GPU has to be waited for.
        group: the process group, None for all processes.

    Raises:
        ValueError, TypeError: a part that is no such tensor, capacity too small, counts that are not this rank's.
    """
    if not parts:
        raise TypeError("parts is empty; there must be at least one tensor [k, D]")
    for i, part in enumerate(parts):
        if not isinstance(part, Tensor) or not part.is_floating_point():
            was = getattr(part, "dtype", type(part).__name__)
            raise TypeError(f"parts[{i}] is {was}; it must be a floating-point tensor [k, D]")
        if part.dim() != 2 or part.shape[1:] != parts[0].shape[1:]:
            raise ValueError(f"parts[{i}] has shape {list(part.shape)}; all must be [k, D] with the same D")
        if (part.dtype, part.device) != (parts[0].dtype, parts[0].device):
            raise ValueError(f"parts[{i}] is {part.dtype} on {part.device}; all must be alike")
    most, ranks = max(map(len, parts)), Ranks.of(group)
    capacity = max(1, most) if capacity is None else positive("capacity", capacity)
    if capacity < most:
        raise ValueError(f"capacity is {capacity}; it must be at least the {most} rows of a part")
    counts = [None] * len(parts) if counts is None else counts
    for i, (part, known) in enumerate(zip(parts, counts, strict=True)):
        if known is not None and known[ranks.rank] != len(part):
            raise ValueError(f"counts[{i}] is {list(known)}, but rank {ranks.rank} has {len(part)} rows in parts[{i}]")
    return Gathering(parts, capacity, counts, ranks)
