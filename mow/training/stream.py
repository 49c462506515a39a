"""Endless shuffled passes over a data set, whose position is two integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


class ShuffledStream:
    """Reads a data set in an order that depends on the seed and the pass alone, so that it resumes from anywhere.

        >>> stream = mow.ShuffledStream(pictures, seed=0)
        >>> x = stream.take(8)        # [8, ...], fewer at the end of a pass

    Args:
        pictures: a tensor [N, ...], or anything with `len` and `[i]` that gives tensors, or tuples that begin with one
            (a `torch.utils.data.Dataset`, `mow.app.data.LazyPictures`). uint8 is scaled to [0, 1].
        seed: of the order.

    Raises:
        ValueError: no pictures.
    """

    def __init__(self, pictures: Tensor | Sequence[Any], seed: int = 0) -> None:
        if len(pictures) == 0:
            raise ValueError("pictures is empty; it must hold at least one picture")
        self.pictures, self.seed = pictures, seed
        self.seek(epoch=0, offset=0)

    def seek(self, epoch: int, offset: int) -> None:
        """Go to the picture at `offset` of pass `epoch`."""
        self.epoch, self.offset = epoch, offset
        self._order = self._order_of(epoch)

    def take(self, count: int, share: Callable[[int], slice] | None = None) -> Tensor:
        """The next `count` pictures, fewer at the end of a pass. -> [<= count, ...], floating-point.

        Where one cannot be read, what the data set raises; the stream then stays where it is.

        Args:
            count: >= 1.
            share: from their number to which of them to read, e.g. `mow.distributed.Ranks.share`; None for all.
        """
        if self.offset == len(self.pictures):
            self.seek(self.epoch + 1, 0)
        indices = self._order[self.offset : self.offset + count]
        batch = self._read_share(indices, share)
        self.offset += len(indices)
        return batch

    def following(self, count: int) -> int:
        """How many pictures `take(count)` takes in all."""
        return min(count, len(self.pictures) - self.offset % len(self.pictures))

    @property
    def taken(self) -> int:
        """How many pictures were taken before this position."""
        return self.epoch * len(self.pictures) + self.offset

    def recent(self, count: int, share: Callable[[int], slice] | None = None) -> Tensor:
        """The pictures taken last, oldest first, read again. -> [<= count, ...], as `take` gives them.

        Args:
            count: >= 1.
            share: as for `take`.

        Raises:
            ValueError: there were not so many.
        """
        if not 1 <= count <= self.taken:
            raise ValueError(f"count is {count}; it must be from 1 to the {self.taken} pictures taken so far")
        epoch, indices = self.epoch, self._order[: self.offset]
        while len(indices) < count:
            epoch -= 1
            indices = torch.cat([self._order_of(epoch), indices])
        return self._read_share(indices[-count:], share)

    def _order_of(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(len(self.pictures), generator=generator)

    def _read_share(self, indices: Tensor, share: Callable[[int], slice] | None) -> Tensor:
        own = indices if share is None else indices[share(len(indices))]
        return self._read(own) if len(own) else self._read(indices[:1])[:0]

    def _read(self, indices: Tensor) -> Tensor:
        if isinstance(self.pictures, Tensor):
            batch = self.pictures[indices]
        else:
            fetch = getattr(self.pictures, "__getitems__", None)  # as PyTorch's loaders do: several at once, if it can
            items = fetch(indices.tolist()) if fetch else [self.pictures[int(i)] for i in indices]
            batch = torch.stack([item[0] if isinstance(item, tuple | list) else item for item in items])
        return to_unit_range(batch)


def to_unit_range(pictures: Tensor) -> Tensor:
    """uint8 pictures as float32 in [0, 1]; others as they are."""
    return pictures.float() / 255 if pictures.dtype == torch.uint8 else pictures
