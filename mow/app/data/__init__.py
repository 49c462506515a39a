"""Pictures to train on: `load("fashion-mnist")` or another of `NAMES`, `load("a/folder")`, `load("pictures.npz")`."""

from __future__ import annotations

from mow.app.data.base import DataError, LazyPictures, PictureData
from mow.app.data.sources import NAMES, embedded_fashion_mnist, load

__all__ = ["NAMES", "DataError", "LazyPictures", "PictureData", "embedded_fashion_mnist", "load"]
