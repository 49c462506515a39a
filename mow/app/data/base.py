"""What every source of pictures hands over, and the one error they raise."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from html import escape
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch import Tensor

from mow.app.display import tracked
from mow.naming import Word, named

SHOWN = 20
"""Pictures that a notebook shows of a data set."""

_Answer = TypeVar("_Answer")


class DataError(ValueError):
    """Pictures that cannot be had. The message names the file or the place, what is wrong and what would be right."""


class NoPictureError(DataError):
    """A file that is there, but holds no picture that can be read."""


class PictureWarning(UserWarning):
    """A file that is left out; the message names it and says why. Each is told of once."""


class LazyPictures(Sequence[Tensor]):
    """Pictures in files, each decoded when it is asked for: for sets that do not fit into memory.

        >>> import numpy as np
        >>> from mow.app import data
        >>> for name in ("a.npy", "b.npy"):
        ...     np.save(folder / name, np.zeros((8, 8), np.uint8))
        >>> lazy = data.LazyPictures(folder, ["a.npy", "b.npy"], np.load, (1, 8, 8))
        >>> lazy[1].shape, lazy[:].shape
        (torch.Size([1, 8, 8]), torch.Size([2, 1, 8, 8]))

    To be used as the tensor uint8 [N, C, H, W] that it stands for: it has its `shape`, `dtype`, `len`, `[i]`, `[a:b]`
    and `split`; and `__getitems__`, by which PyTorch's loaders ask for a batch. What these return is decoded, in a few
    threads, and not kept.

    Args:
        folder: where the files lie.
        names: their paths within it, in order.
        read: decodes one, given its path: uint8 [H, W] or [H, W, C].
        shape: of a picture [C, H, W].
        lenient: let the next picture that can be read stand in for one that cannot, with a `PictureWarning` that names
            it once. A file that is gone is an error all the same.

    Raises:
        DataError: by everything that decodes; a file cannot be read or is not a picture of that shape.
    """

    dtype = torch.uint8

    def __init__(
        self,
        folder: Path,
        names: Sequence[str],
        read: Callable[[Path], np.ndarray],
        shape: Sequence[int],
        *,
        lenient: bool = False,
    ) -> None:
        self.folder, self.names, self._read, self._lenient = folder, list(names), read, lenient
        self.shape = torch.Size((len(self.names), *shape))
        self.left_out: dict[str, str] = {}
        """Files for which others stand in, and why."""

    def __repr__(self) -> str:
        return named(self, folder=str(self.folder), shape=Word(list(self.shape)), left_out=len(self.left_out))

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
        indices = list(indices)
        paths = [self.folder / self.names[index] for index in indices]
        if not self._lenient:
            return each(self._picture, paths)
        found = each(tried(self._picture), paths)
        return [self._or_next(index, picture) for index, picture in zip(indices, found, strict=True)]

    def _or_next(self, index: int, picture: Tensor | DataError) -> Tensor:
        """What was read at an index, or the next picture that can be."""
        for following in range(1, len(self) + 1):
            if isinstance(picture, Tensor):
                return picture
            if not isinstance(picture, NoPictureError):
                raise picture
            name = self.names[(index + following - 1) % len(self)]
            if name not in self.left_out:
                self.left_out[name] = why = reason(picture, self.folder / name)
                warn(f"{printable(name)} is left out, and the next picture stands in for it: {why}")
            picture = tried(self._picture)(self.folder / self.names[(index + following) % len(self)])
        raise DataError(f"{printable(self.folder)}: none of its {len(self):,} pictures can be read")

    def split(self, size: int) -> Iterator[Tensor]:
        """All pictures in order, `size` at a time: [<= size, C, H, W]."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def digest(self) -> bytes:
        """What tells this set from another without decoding it: a hash of the files' names and sizes in bytes."""
        digest = hashlib.blake2b(digest_size=16)
        for name in self.names:
            digest.update(f"{name}\0{(self.folder / name).stat().st_size}\n".encode(errors="surrogateescape"))
        return digest.digest()

    def _picture(self, path: Path) -> Tensor:
        picture = torch.tensor(to_channels_first(self._read(path)[None])[0])
        if picture.shape != self.shape[1:]:
            raise DataError(f"{path}: a picture of shape {list(picture.shape)}; it must be {list(self.shape[1:])}")
        return picture


@dataclass(frozen=True, eq=False)
class PictureData:
    """Pictures in memory or in files, split into a train and a test part.

        >>> from mow.app import data
        >>> grey = torch.zeros(5, 1, 8, 8, dtype=torch.uint8)
        >>> data.PictureData("mine", train=grey[:4], test=grey[4:], origin="made up")
        PictureData('mine', train=4, test=1, picture=1x8x8)

    train, test: uint8 [N, C, H, W] with C in {1, 3}, values 0 to 255; the two agree in C, H and W.
    origin: one sentence for a person, which says what was loaded and from where.
    embedded: True for the pictures that the package ships. They are Fashion-MNIST's test pictures, so a model that
        was trained on them must never be scored on the full test set.
    train_labels, test_labels: int64 [N], or None where the source has none.
    left_out: files that hold no picture that can be read, by their path within the folder, and why.
    """

    name: str
    train: Tensor | LazyPictures
    test: Tensor | LazyPictures
    origin: str
    embedded: bool = False
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.train.shape[1:]))
        left_out = f", left_out={len(self.left_out)}" if self.left_out else ""
        counts = f"train={len(self.train)}, test={len(self.test)}, picture={size}{left_out}"
        return f"{type(self).__name__}({self.name!r}, {counts})"

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

    progress: show on stderr how far it is, under this title.
    """

    if len(paths) == 1:
        return [_named(read, paths[0])]
    with ThreadPoolExecutor() as pool:
        answers: Iterable[_Answer] = pool.map(partial(_named, read), paths)
        try:
            return list(tracked(answers, title, len(paths)) if progress else answers)
        except BaseException:  # Ctrl-C, for one, which is not to wait for all the others
            pool.shutdown(cancel_futures=True)
            raise


def tried(read: Callable[[Path], _Answer]) -> Callable[[Path], _Answer | DataError]:
    """`read`, but for an error about a file it returns it instead of raising it."""

    def attempt(path: Path) -> _Answer | DataError:
        try:
            return _named(read, path)
        except DataError as error:
            return error

    return attempt


def reason(error: DataError, path: Path) -> str:
    """Why a file was refused, without its path."""
    return str(error).removeprefix(f"{printable(path)}: ")


def printable(path: Path | str) -> str:
    """A path that can be shown: what no terminal and no UTF-8 takes, as Python escapes it."""
    text = str(path)
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def warn(message: str) -> None:
    """Tell of a file that is left out."""
    warnings.warn(message, PictureWarning, stacklevel=2)


def _named(read: Callable[[Path], _Answer], path: Path) -> _Answer:
    """read(path), of which every failure names the file."""
    try:
        return read(path)
    except (DataError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise NoPictureError(f"{printable(path)}: not a readable picture, of no known format") from error
    except Exception as error:  # Pillow's decoders raise nearly everything: OSError, SyntaxError, struct.error, ...
        if isinstance(error, OSError) and error.strerror is not None:  # of the system, not of the file's content
            raise DataError(f"{printable(path)}: not a readable picture: {error.strerror}") from error
        raise NoPictureError(f"{printable(path)}: not a readable picture: {error}") from error
