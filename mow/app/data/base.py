"""What every source of pictures hands over, and the one error they raise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from torch import Tensor

SHOWN = 20
"""Pictures that a notebook shows of a data set."""

_Answer = TypeVar("_Answer")


class DataError(ValueError):
    """Pictures that cannot be had. The message names the file or the place, what is wrong and what would be right."""


class LazyPictures(Sequence[Tensor]):
    """Pictures in files, each decoded when it is asked for: for sets that do not fit into memory.

    To be used as the tensor uint8 [N, C, H, W] that it stands for: it has its `shape`, `dtype`, `len`, `[i]`, `[a:b]`
    and `split`; and `__getitems__`, by which PyTorch's loaders ask for a batch. What these return is decoded, in a few
    threads, and not kept.

    Args:
        folder: where the files lie.
        names: their paths within it, in order.
        read: decodes one, given its path: uint8 [H, W] or [H, W, C].
        shape: of a picture [C, H, W].

    Raises:
        DataError: by everything that decodes; a file cannot be read or is not a picture of that shape.
    """

    dtype = torch.uint8

    def __init__(
        self, folder: Path, names: Sequence[str], read: Callable[[Path], np.ndarray], shape: Sequence[int]
    ) -> None:
        self.folder, self.names, self._read = folder, list(names), read
        self.shape = torch.Size((len(self.names), *shape))

    def __len__(self) -> int:
        return len(self.names)

    @overload  # type: ignore[override]  # several pictures are a tensor, no sequence
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice) -> Tensor: ...

    def __getitem__(self, index: int | slice) -> Tensor:
        """A picture [C, H, W], or several [n, C, H, W]."""
        if isinstance(index, slice):
            found = self.__getitems__(range(len(self))[index])
            return torch.stack(found) if found else torch.empty(0, *self.shape[1:], dtype=self.dtype)
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Iterable[int]) -> list[Tensor]:
        paths = [self.folder / self.names[index] for index in indices]
        return [self._picture(path, array) for path, array in zip(paths, each(self._read, paths), strict=True)]

    def split(self, size: int) -> Iterator[Tensor]:
        """All pictures in order, `size` at a time: [<= size, C, H, W]."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def digest(self) -> bytes:
        """What tells this set from another without decoding it: a hash of the files' names and sizes in bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.names:
            digest.update(f"{name}\0{(self.folder / name).stat().st_size}\n".encode(errors="surrogateescape"))
        return digest.digest()

    def _picture(self, path: Path, array: np.ndarray) -> Tensor:
        picture = torch.tensor(to_channels_first(array[None])[0])
        if picture.shape != self.shape[1:]:
            raise DataError(f"{path}: a picture of shape {list(picture.shape)}; it must be {list(self.shape[1:])}")
        return picture


@dataclass(frozen=True, eq=False)
class PictureData:
    """Pictures in memory or in files, split into a train and a test part.

    train, test: uint8 [N, C, H, W] with C in {1, 3}, values 0 to 255; the two agree in C, H and W.
    origin: one sentence for a person, which says what was loaded and from where.
    embedded: True for the pictures that the package ships. They are Fashion-MNIST's test pictures, so a model that
        was trained on them must never be scored on the full test set.
    train_labels, test_labels: int64 [N], or None where the source has none.
    """

    name: str
    train: Tensor | LazyPictures
    test: Tensor | LazyPictures
    origin: str
    embedded: bool = False
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None

    def __repr__(self) -> str:
        size = "x".join(map(str, self.train[0].shape))
        return f"{type(self).__name__}({self.name!r}, train={len(self.train)}, test={len(self.test)}, picture={size})"

    def _repr_html_(self) -> str:
        """In a notebook: what was loaded, and the first training pictures."""
        from mow.app.pictures import grid, png_data_uri

        shown = png_data_uri(grid(self.train[:SHOWN], columns=10))
        return f'<p>{escape(self.origin)}</p><img alt="The first training pictures" src="{shown}">'


def to_channels_first(array: np.ndarray) -> np.ndarray:
    """[N, H, W] or [N, H, W, C] -> contiguous [N, C, H, W]"""
    return np.ascontiguousarray(array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2))


def each(
    read: Callable[[Path], _Answer], paths: Sequence[Path], title: str = "", progress: bool = False
) -> list[_Answer]:
    """read(path) for every path, in order, in a few threads; a failure names its file.

    progress: draw a bar with this title on stderr; needs rich.
    """

    def named(path: Path) -> _Answer:
        try:
            return read(path)
        except DataError:
            raise
        except Exception as error:  # Pillow's decoders raise nearly everything: OSError, SyntaxError, struct.error, ...
            raise DataError(f"{path}: not a readable picture: {error}") from error

    if len(paths) == 1:
        return [named(paths[0])]
    with ThreadPoolExecutor() as pool:
        answers: Iterable[_Answer] = pool.map(named, paths)
        if progress:
            from rich.console import Console
            from rich.progress import track

            answers = track(answers, title, total=len(paths), console=Console(stderr=True))
        return list(answers)
