"""A person's own pictures: a folder of them, or arrays in an .npy or .npz file."""

from __future__ import annotations

import hashlib
import math
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mow.app.data.base import (
    DataError,
    LazyPictures,
    NoPictureError,
    PictureData,
    each,
    printable,
    reason,
    to_channels_first,
    tried,
    warn,
)
from mow.app.data.files import SUFFIXES, find

_Answer = TypeVar("_Answer")

FEWEST = 10  # one picture in ten goes to the test part
LARGEST_DEFAULT_SIDE = 64
IN_MEMORY = 2**30
"""A folder whose decoded pictures take up to so many bytes is read at once, a larger one when its pictures are used."""

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "F")
_KEYS = (("train", "test", "train_labels", "test_labels"), ("x_train", "x_test", "y_train", "y_test"))


def read_folder(folder: Path, *, size: int | None = None, progress: bool = False) -> PictureData:
    """Every picture under `folder`, in order of path; see `mow.app.data.files.find` for what counts as one.

    Each is turned upright (EXIF), cropped to its central square and resized to `size` x `size`. Without `size` the side
    is the pictures' shorter side where they all share one of at most 64, else 64. Of an animated one it is the first
    frame. The result is grey if every file stores grey (a palette counts as colour). What is transparent becomes white.
    One picture in ten, by a hash of its path within the folder, is a test picture.

    Up to 1 GiB of decoded pictures is read at once. Of more only the headers, and each picture when it is used.

    A file that holds no picture that can be read is left out: a `PictureWarning` names it once, `left_out` has it, and
    `origin` counts. Where that shows only when a picture is used, the next one stands in for it.

    Raises DataError for fewer than ten pictures.
    """
    found = find(folder)
    heads, left_out = _good(_head, found.paths, "looking at pictures", progress)
    left_out = {**found.left_out, **left_out}
    while True:
        if len(heads) < FEWEST:
            raise DataError(_too_few(folder, len(heads), left_out))
        grey = all(mode in _GREY_MODES for mode, _ in heads.values())
        side = size or _side({side for _, side in heads.values()})
        shape = (1 if grey else 3, side, side)
        read = partial(read_square, size=side, grey=grey)
        if len(heads) * math.prod(shape) > IN_MEMORY:
            squares = None
            break
        squares, broken = _good(read, {name: found.paths[name] for name in heads}, "reading pictures", progress)
        if not broken:
            break
        left_out |= broken
        heads = {name: heads[name] for name in squares}  # and again, since those may have been the only coloured ones
    for name, why in left_out.items():
        warn(f"{printable(name)} is left out: {why}")
    names, train, test = list(heads), *split(list(heads))
    parts = [
        LazyPictures(folder, [names[row] for row in rows], read, shape, lenient=True)
        if squares is None
        else torch.from_numpy(to_channels_first(np.stack([squares[names[row]] for row in rows])))
        for rows in (train, test)
    ]
    return PictureData(
        name=folder.resolve().name,
        train=parts[0],
        test=parts[1],
        origin=f"{len(names):,} {'grey' if grey else 'colour'} pictures from {printable(folder)}, cropped and resized "
        f"to {side} x {side} ({len(train):,} to train, {len(test):,} to test){found.counted(len(left_out))}",
        left_out=left_out,
    )


def read_arrays(path: Path) -> PictureData:
    """The pictures in an .npy file, or in an .npz file with a train and a test array or with one array.

    Keys of an .npz: train and test, with train_labels and test_labels if there are labels; or x_train and x_test, with
    y_train and y_test; or one array of any name. One array is split as a folder is: one picture in ten, by a hash of
    its index, is a test picture.
    Shapes: [N, H, W] is grey; [N, H, W, C] and [N, C, H, W] have C = 1 or 3, and where both fit the channels are last.
    Values: uint8; or floating point in [0, 1], which is scaled by 255 and rounded.

    Raises DataError for anything else. Pickled objects are never loaded.
    """
    arrays = _load(path)
    keys = next((keys for keys in _KEYS if keys[0] in arrays and keys[1] in arrays), None)
    labels: list[Tensor | None] = [None, None]
    if keys:
        parts = [_pictures(arrays[key], f"{path}: {key}") for key in keys[:2]]
        labels = [
            _labels(arrays[key], len(part), f"{path}: {key}") if key in arrays else None
            for key, part in zip(keys[2:], parts, strict=True)
        ]
    elif len(arrays) == 1:
        pictures = _pictures(next(iter(arrays.values())), str(path))
        if len(pictures) < FEWEST:
            raise DataError(f"{path}: it holds {len(pictures)} pictures, but at least {FEWEST} are needed")
        parts = [pictures[rows] for rows in split([str(row) for row in range(len(pictures))])]
    else:
        raise DataError(
            f"{path}: it holds {', '.join(arrays) or 'no array'}; allowed are train and test, x_train and x_test, "
            "or a single array"
        )
    train, test = parts
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{path}: train and test pictures differ: {tuple(train.shape)} and {tuple(test.shape)} as [N, C, H, W]"
        )
    _, channels, height, width = train.shape
    return PictureData(
        name=path.stem,
        train=train,
        test=test,
        origin=f"{height} x {width} {'grey' if channels == 1 else 'colour'} pictures from {path} "
        f"({len(train):,} to train, {len(test):,} to test)",
        train_labels=labels[0],
        test_labels=labels[1],
    )


def split(names: Sequence[str]) -> tuple[list[int], list[int]]:
    """The indices of the train and of the test part: every tenth in the order of the names' hashes is for testing."""
    digests = [hashlib.sha256(name.encode(errors="surrogateescape")).digest() for name in names]
    test = set(sorted(range(len(names)), key=digests.__getitem__)[::10])
    return [index for index in range(len(names)) if index not in test], sorted(test)


# Folders


def _good(
    read: Callable[[Path], _Answer], paths: Mapping[str, Path], title: str, progress: bool
) -> tuple[dict[str, _Answer], dict[str, str]]:
    """What could be read, and why the rest could not, by name."""
    answers = dict(zip(paths, each(tried(read), list(paths.values()), title, progress), strict=True))
    good = {name: answer for name, answer in answers.items() if not isinstance(answer, DataError)}
    broken = {name: answer for name, answer in answers.items() if isinstance(answer, DataError)}
    return good, {name: reason(error, paths[name]) for name, error in broken.items()}


def _side(sides: set[int]) -> int:
    return min(sides) if len(sides) == 1 and min(sides) <= LARGEST_DEFAULT_SIDE else LARGEST_DEFAULT_SIDE


def _too_few(folder: Path, count: int, left_out: Mapping[str, str]) -> str:
    broken = [f"{printable(name)} ({why})" for name, why in left_out.items()]
    others = f" and left out {', '.join(broken[:3])}{' ...' if len(broken) > 3 else ''}" if broken else ""
    return (
        f"{printable(folder)}: found {count} pictures ({', '.join(SUFFIXES)}){others}, but at least {FEWEST} are "
        "needed. For the files of MNIST or Fashion-MNIST give the name as data and this folder as data_dir."
    )


def _head(path: Path) -> tuple[str, int]:
    """Mode and shorter side, from the file's header alone."""
    if path.stat().st_size == 0:
        raise NoPictureError(f"{printable(path)}: not a readable picture: the file is empty")
    with Image.open(path) as image:
        return image.mode, min(image.size)


def read_square(path: Path, size: int, grey: bool, crop: int | None = None) -> np.ndarray:
    """A picture as uint8 [size, size] or [size, size, 3]: its central square, or one of `crop` pixels, resized.

    It is turned upright (EXIF), and what is transparent becomes white. 16 bits a pixel become 8, floating-point ones
    are taken from [0, 1]. Raises what Pillow's decoders raise, and NoPictureError for other floating-point values.
    """
    with Image.open(path) as stored:
        image = ImageOps.exif_transpose(stored)
    if image.mode[0] in "IF":  # Pillow's own conversion clips at 255
        image = _eight_bits(image, path)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if crop is not None:
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        if left < 0 or top < 0:
            raise DataError(f"{path}: {image.width} x {image.height}, but {crop} x {crop} are to be cut out of it")
        image = image.crop((left, top, left + crop, top + crop))
    return np.asarray(ImageOps.fit(image.convert("L" if grey else "RGB"), (size, size)))


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """A grey picture of 16-bit integers, also in 32 bits, or of floating-point values in [0, 1]."""
    values = np.asarray(image)
    if image.mode == "F":
        low, high = values.min(), values.max()
        if not (low >= 0 and high <= 1):  # also true of NaN
            raise NoPictureError(f"{printable(path)}: values from {low:g} to {high:g}; floats must lie in [0, 1]")
        return Image.fromarray(np.rint(values * 255).astype(np.uint8))
    if isinstance(clear := image.info.get("transparency"), int):
        values = np.where(values == clear, 0xFFFF, values)
    return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))


# Arrays


def _load(path: Path) -> dict[str, np.ndarray]:
    """The arrays in the file by name; the one of an .npy has the name ''."""
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return {"": loaded} if isinstance(loaded, np.ndarray) else dict(loaded)
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: not a readable .npy or .npz file of plain arrays: {error}") from error


def _pictures(array: np.ndarray, where: str) -> Tensor:
    """uint8 [N, C, H, W] from any of the layouts and types that read_arrays allows."""
    channels_last = array.ndim == 4 and array.shape[3] in (1, 3)
    channels_first = array.ndim == 4 and not channels_last and array.shape[1] in (1, 3)
    if array.size == 0 or not (array.ndim == 3 or channels_last or channels_first):
        raise DataError(
            f"{where}: shape {array.shape}; allowed are [N, H, W], [N, H, W, C] and [N, C, H, W], C = 1 or 3, not empty"
        )
    if np.issubdtype(array.dtype, np.floating):
        low, high = array.min(), array.max()
        if not (low >= 0 and high <= 1):  # also true of NaN
            raise DataError(f"{where}: shape {array.shape}, values from {low:g} to {high:g}; floats must lie in [0, 1]")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise DataError(f"{where}: shape {array.shape}, dtype {array.dtype}; allowed are uint8 and floats in [0, 1]")
    return torch.from_numpy(np.ascontiguousarray(array) if channels_first else to_channels_first(array))


def _labels(array: np.ndarray, count: int, where: str) -> Tensor:
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise DataError(f"{where}: labels of shape {array.shape}, dtype {array.dtype}; allowed are {count} integers")
    return torch.from_numpy(array.astype(np.int64))
