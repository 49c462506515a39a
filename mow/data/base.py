"""What every source of pictures hands over, and the one error they raise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


class DataError(ValueError):
    """Pictures that cannot be had. The message names the file or the place, what is wrong and what would be right."""


@dataclass(frozen=True, eq=False)
class PictureData:
    """Pictures in memory, split into a train and a test part.

    train, test: uint8 [N, C, H, W] with C in {1, 3}, values 0 to 255; the two agree in C, H and W.
    origin: one sentence for a person, which says what was loaded and from where.
    embedded: True for the pictures that the package ships. They are Fashion-MNIST's test pictures, so a model that
        was trained on them must never be scored on the full test set.
    train_labels, test_labels: int64 [N], or None where the source has none.
    """

    name: str
    train: Tensor
    test: Tensor
    origin: str
    embedded: bool = False
    train_labels: Tensor | None = None
    test_labels: Tensor | None = None
