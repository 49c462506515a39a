"""Pictures to train on: `load("fashion-mnist")`, `load("mnist")`, `load("a/folder")`, `load("pictures.npz")`."""

from __future__ import annotations

from mow.data.base import DataError, PictureData
from mow.data.sources import embedded_fashion_mnist, load

__all__ = ["DataError", "PictureData", "embedded_fashion_mnist", "load"]
