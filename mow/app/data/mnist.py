"""MNIST and Fashion-MNIST: four IDX files under the same names."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from mow.app.data.base import DataError, PictureData
from mow.app.data.idx import read_idx

EMBEDDED = Path(__file__).parent / "embedded"
"""Fashion-MNIST's test pictures and their labels, which the package ships."""

EMBEDDED_TEST_PER_CLASS = 200

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

FIRST_LABELS = {
    "Fashion-MNIST": [9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9, 5, 5, 7, 9, 1, 0, 6, 4],
    "MNIST": [5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7, 2, 8, 6, 9],
}
"""How the train labels begin, which tells the two apart."""


def is_in(folder: Path) -> bool:
    return all(_file(folder, name) for name in FILES)


def read(folder: Path, title: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pictures uint8 [N, 1, H, W] to train and to test, and their labels int64 [N]. Files may be gzipped or not.

    Raises DataError for damaged files, for what does not fit together, and for the other collection's files.
    """
    train, train_labels = read_pair(folder, *FILES[:2])
    test, test_labels = read_pair(folder, *FILES[2:])
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{folder}: train and test pictures differ: {tuple(train.shape)} and {tuple(test.shape)} as [N, C, H, W]"
        )
    for other, first in FIRST_LABELS.items():
        if other != title and train_labels[: len(first)].tolist() == first:
            raise DataError(f"{folder}: these files are {other}, not {title}")
    return train, test, train_labels, test_labels


def read_pair(folder: Path, pictures_name: str, labels_name: str) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 1, H, W] and their labels int64 [N]."""
    pictures_path, labels_path = (_file(folder, name) or folder / name for name in (pictures_name, labels_name))
    pictures, labels = read_idx(pictures_path), read_idx(labels_path)
    if pictures.ndim != 3 or pictures.size == 0:
        raise DataError(f"{pictures_path}: pictures of shape {pictures.shape}; they must be [N, H, W], not empty")
    if labels.shape != pictures.shape[:1]:
        raise DataError(f"{labels_path}: labels of shape {labels.shape} for {len(pictures):,} pictures")
    return torch.tensor(pictures).unsqueeze(1), torch.tensor(labels, dtype=torch.int64)


def embedded_fashion_mnist(remark: str = "") -> PictureData:
    """The 10,000 Fashion-MNIST test pictures that the package ships, split in two with the classes balanced.

    In the order of the published file the last 200 pictures of each of the ten classes are for testing, the other
    8,000 for training; nothing is drawn or shuffled. `remark` is added to `origin`.
    """
    pictures, labels = read_pair(EMBEDDED, *FILES[2:])
    for_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        for_test[torch.nonzero(labels == label)[-EMBEDDED_TEST_PER_CLASS:]] = True
    train, test = pictures[~for_test], pictures[for_test]
    return PictureData(
        name="fashion-mnist",
        train=train,
        test=test,
        origin=f"the {len(pictures):,} embedded Fashion-MNIST test pictures ({len(train):,} to train, "
        f"{len(test):,} to test){remark}",
        embedded=True,
        train_labels=labels[~for_test],
        test_labels=labels[for_test],
    )


def _file(folder: Path, name: str) -> Path | None:
    """The unpacked file of that name, else the gzipped one, else None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if os.path.isfile(path)), None)
