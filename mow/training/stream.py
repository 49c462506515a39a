"""Endless shuffled passes over a data set, whose position is two integers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
    default_convert,
)

from mow.checks import integer
from mow.naming import named

Pictures = Tensor | Sequence[Any] | DataLoader[Any]
"""What pictures come from; `ShuffledStream` says what else has `len` and `[i]`."""


class ShuffledStream:
    """Reads a data set in an order that depends on the seed and the pass alone, so that it resumes from anywhere.

        >>> stream = mow.ShuffledStream(pictures, seed=0)
        >>> x = stream.take(8)        # [8, ...], fewer at the end of a pass

    Args:
        pictures: a tensor or NumPy array [N, ...], or anything with `len` and `[i]` that gives such pictures, or tuples
            that begin with one (a `torch.utils.data.Dataset`, `mow.app.data.LazyPictures`); or a `DataLoader` of one,
            which is read in the stream's order, without its batch size and workers. uint8 is scaled to [0, 1].
        seed: of the order.
        drop_last: leave out what a pass has left where that is less than a batch, and begin the next one.

    Raises:
        ValueError: no pictures.
        TypeError: none of these; a `DataLoader` whose sampler or `collate_fn` says what its batches are, or a stream
            without length: call `Trainer.step` with each of its batches.
    """

    def __init__(self, pictures: Pictures, seed: int = 0, *, drop_last: bool = False) -> None:
        self.pictures, self.seed = _data_set(pictures), integer("seed", seed)
        if len(self.pictures) == 0:
            raise ValueError("pictures is empty; it must hold at least one picture")
        self.drop_last = drop_last
        self.seek(epoch=0, offset=0)

    def __repr__(self) -> str:
        return named(self, **self.position, drop_last=self.drop_last)

    def seek(self, epoch: int, offset: int) -> None:
        """Go to the picture at `offset` of pass `epoch`."""
        self.epoch, self.offset = epoch, offset
        self._order = self._order_of(epoch)

    def take(self, count: int, share: Callable[[int], slice] | None = None) -> Tensor:
        """The next `count` pictures, fewer at the end of a pass (with drop_last where a whole pass has fewer alone).
        -> [<= count, ...], floating-point.

        Where one cannot be read, what the data set raises; the stream then stays where it is.

        Args:
            count: >= 1.
            share: from their number to which of them to read, e.g. `mow.distributed.Ranks.share`; None for all.
        """
        if self._left(count) == 0:
            self.seek(self.epoch + 1, 0)
        end = min(self.offset + count, len(self._order))
        batch = self._read_share(self._order[self.offset : end], share)
        self.offset = end
        return batch

    def following(self, count: int) -> int:
        """How many pictures `take(count)` takes in all."""
        return min(count, self._left(count) or len(self.pictures))

    def in_order(self, count: int) -> Iterator[Tensor]:
        """All pictures in the order of the data set, `count` at a time, wherever the stream stands."""
        for indices in torch.arange(len(self.pictures)).split(count):
            yield self._read(indices)

    @property
    def position(self) -> dict[str, int]:
        """seed, epoch, offset, and how many pictures there are."""
        return {"seed": self.seed, "epoch": self.epoch, "offset": self.offset, "pictures": len(self.pictures)}

    @property
    def taken(self) -> int:
        """How many pictures were taken before this position."""
        return self.epoch * len(self.pictures) + self.offset

    def recent(self, count: int, share: Callable[[int], slice] | None = None) -> Tensor:
        """The pictures taken last, oldest first, read again. -> [<= count, ...], as `take` gives them; with drop_last
        those that were left out are not known, and are taken for read.

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

    def ago(self, ages: Sequence[int], share: Callable[[int], slice] | None = None) -> Tensor:
        """The pictures of these ages, read again: age 1 is the picture taken last. -> [len(ages), ...], as `take` gives
        them; with drop_last those that were left out are taken for read.

        Args:
            ages: >= 1.
            share: as for `take`.

        Raises:
            ValueError: there were not so many.
        """
        if not 1 <= min(ages) <= max(ages) <= self.taken:
            raise ValueError(f"ages is {list(ages)}; they must be from 1 to the {self.taken} pictures taken so far")
        places = [divmod(self.taken - age, len(self.pictures)) for age in ages]
        orders = {epoch: self._order if epoch == self.epoch else self._order_of(epoch) for epoch, _ in places}
        return self._read_share(torch.stack([orders[epoch][offset] for epoch, offset in places]), share)

    def _left(self, count: int) -> int:
        """How many pictures of this pass may still be taken, so many at a time."""
        left = len(self.pictures) - self.offset
        return 0 if self.drop_last and left < count <= len(self.pictures) else left

    def _order_of(self, epoch: int) -> Tensor:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        return torch.randperm(len(self.pictures), generator=generator)

    def _read_share(self, indices: Tensor, share: Callable[[int], slice] | None) -> Tensor:
        if share is not None and (part := share(len(indices))) != slice(len(indices)):
            own = indices[part]
            return self._read(own) if len(own) else self._read(indices[:1])[:0]
        return self._read(indices)

    def _read(self, indices: Tensor) -> Tensor:
        if isinstance(self.pictures, Tensor):
            batch = self.pictures[indices]
        elif _is_array(self.pictures):
            batch = torch.as_tensor(self.pictures[indices.numpy()])  # of a file that is mapped, these rows alone
        else:
            fetch = getattr(self.pictures, "__getitems__", None)  # as PyTorch's loaders do: several at once, if it can
            items = fetch(indices.tolist()) if fetch else [self.pictures[int(i)] for i in indices]
            batch = torch.stack([_picture(item) for item in items])
        return to_unit_range(batch) if batch.dtype in (torch.uint8, torch.bool) else batch


def to_unit_range(pictures: Tensor) -> Tensor:
    """uint8 pictures as float32 in [0, 1], bool ones as 0 and 1; floating-point ones as they are.

    Raises:
        TypeError: other integers, of which it is not known how large they may be.
    """
    if pictures.is_floating_point():
        return pictures
    if pictures.dtype == torch.uint8:
        return pictures.float() / 255
    if pictures.dtype == torch.bool:
        return pictures.float()
    raise TypeError(f"pictures is {pictures.dtype}; it must be floating-point, uint8 (0 to 255) or bool")


def as_input(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Elements in the dtype of a network that takes them: see `to_unit_range`, and what it raises."""
    return to_unit_range(x).to(dtype)


def as_tensor(name: str, value: object) -> Tensor:
    """A tensor, also from a NumPy array.

    Raises:
        TypeError: neither.
    """
    if isinstance(value, Tensor):
        return value
    if _is_array(value):
        return torch.as_tensor(value)
    first = f"; of a batch that is a {type(value).__name__}, pass the part with the elements, e.g. batch[0]"
    hint = first if isinstance(value, tuple | list | dict) else ""
    raise TypeError(f"{name} is {type(value).__name__}; it must be a tensor or a NumPy array{hint}")


def _is_array(value: object) -> bool:
    """Whether it is a NumPy array, without NumPy, which need not be there."""
    return hasattr(value, "__array_interface__") and hasattr(value, "dtype")


def _data_set(pictures: Any) -> Any:
    """What has `len` and `[i]`."""
    if isinstance(pictures, DataLoader):
        plain = SequentialSampler, RandomSampler
        if isinstance(pictures.dataset, IterableDataset) or (
            type(pictures.sampler) in plain
            and type(pictures.batch_sampler) in (BatchSampler, type(None))
            and pictures.collate_fn in (default_collate, default_convert)
        ):
            return _data_set(pictures.dataset)
        raise TypeError(
            "pictures is a DataLoader with a sampler or a collate_fn of its own; it must be a data set, e.g. "
            "loader.dataset, of which k are drawn at a time (or call trainer.step(x) for each batch of the loader)"
        )
    sized = hasattr(pictures, "__len__") and hasattr(pictures, "__getitem__")
    if isinstance(pictures, IterableDataset | str | bytes | dict) or not sized:
        raise TypeError(
            f"pictures is {type(pictures).__name__}; it must be a tensor, an array, or have len() and [i] (or call "
            "trainer.step(x) for each batch of what has not)"
        )
    return pictures


def _picture(item: Any) -> Tensor:
    """The picture of an item of a data set: itself, or the first of a tuple."""
    if isinstance(item, tuple | list) and item:
        item = item[0]
    if isinstance(item, Tensor):
        return item
    if _is_array(item):
        return torch.as_tensor(item)
    which = f" of {', '.join(map(repr, item))}" if isinstance(item, dict) else ""
    line = f"[item[{next(iter(item), 'image')!r}] for item in pictures]" if isinstance(item, dict) else ""
    raise TypeError(
        f"pictures holds a {type(item).__name__}{which}; an item must be a tensor or an array, or a tuple that begins "
        + (f"with one, e.g. {line}" if line else "with one (torchvision's ToTensor makes one of a picture)")
    )
