"""Pictures to train on: `load("fashion-mnist")` or another of `NAMES`, `load("a/folder")`, `load("pictures.npz")`."""

from __future__ import annotations

from mow.app.data.base import DataError, LazyPictures, PictureData, PictureWarning
from mow.app.data.collections import COLLECTIONS, Collection, Schedule
from mow.app.data.mnist import embedded_fashion_mnist
from mow.app.data.sources import NAMES, embedded, load

__all__ = [
    "COLLECTIONS",
    "NAMES",
    "Collection",
    "DataError",
    "LazyPictures",
    "PictureData",
    "PictureWarning",
    "Schedule",
    "embedded",
    "embedded_fashion_mnist",
    "load",
]
