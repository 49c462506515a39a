"""CIFAR-10 in its binary version (https://www.cs.toronto.edu/~kriz/cifar.html); the Python version is pickled."""

from __future__ import annotations

import tarfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mow.app.data.base import DataError

ARCHIVE = "cifar-10-binary.tar.gz"
FOLDER = "cifar-10-batches-bin"
"""The folder of the files within the archive."""
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = "test_batch.bin"
SHAPE = (3, 32, 32)
_RECORD = 1 + 3 * 32 * 32  # the label, then the red, the green and the blue plane, row by row


def is_in(folder: Path) -> bool:
    """Whether the folder holds the archive, or the six files out of it."""
    return (folder / ARCHIVE).is_file() or all((folder / name).is_file() for name in (*TRAIN, TEST))


def read(folder: Path) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures uint8 [N, 3, 32, 32] to train and to test, and their labels int64 [N].

    Raises DataError if a file cannot be read, does not consist of whole records, or has a label above 9.
    """
    if (folder / TEST).is_file():
        contents = {folder / name: _bytes(folder / name) for name in (*TRAIN, TEST)}
    else:
        contents = _unpack(folder / ARCHIVE)
    *parts, test = (_pictures(raw, path) for path, raw in contents.items())
    train, train_labels = (torch.cat(part) for part in zip(*parts, strict=True))
    return train, test[0], train_labels, test[1]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: unreadable: {error}") from error


def _unpack(archive: Path) -> dict[Path, bytes]:
    """The six files, read out of the archive; nothing is written."""
    names = [f"{FOLDER}/{name}" for name in (*TRAIN, TEST)]
    try:
        with tarfile.open(archive) as tar:
            found = {name: tar.extractfile(name) for name in names}
            return {archive / name: file.read() if file else b"" for name, file in found.items()}
    except KeyError as error:
        raise DataError(f"{archive}: it lacks a file: {error.args[0]}") from error
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise DataError(f"{archive}: damaged or unreadable: {error}") from error


def _pictures(raw: bytes, path: Path) -> tuple[Tensor, Tensor]:
    if len(raw) == 0 or len(raw) % _RECORD:
        raise DataError(f"{path}: {len(raw):,} bytes; CIFAR-10 has {_RECORD:,} for each picture")
    records = np.frombuffer(raw, np.uint8).reshape(-1, _RECORD)
    labels = torch.tensor(records[:, 0], dtype=torch.int64)
    if int(labels.max()) > 9:
        raise DataError(f"{path}: not CIFAR-10: a label is {int(labels.max())}, above 9")
    return torch.tensor(records[:, 1:]).reshape(-1, *SHAPE), labels
