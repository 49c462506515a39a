"""The data sets that have a name, a row each: where they lie, how they are read, and what is trained on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from mow.app.data import cifar, faces, mnist
from mow.app.data.base import LazyPictures, PictureData

Parts = tuple[Tensor, Tensor, Tensor, Tensor] | tuple[LazyPictures, LazyPictures]
"""Pictures to train and to test, then their labels if there are any."""


@dataclass(frozen=True)
class Schedule:
    """How the paper trains on a data set.

    architecture: of `mow.app.architectures.ARCHITECTURES`, whose latent width is the paper's for the data set.
    epochs: passes over it; None where they are not known to us.
    optimizer: by the name that `mow train` gives it, with the learning rates of `mow.app.paper.ROWS`.
    """

    architecture: str
    epochs: int | None
    optimizer: str


@dataclass(frozen=True)
class Collection:
    """A data set that has a name.

    title: how a person writes the name.
    subfolders: where a root may keep it; a download goes to the first.
    files: what is looked for there, in words for a person.
    is_in: whether a folder holds them.
    read: reads a folder that does; takes the side in pixels as well where `size` is one.
    size: the side to which its pictures are resized unless told otherwise; None where they are taken as they are.
    published: the files of a download, by name, with their SHA-256; none where no stable address is known.
    mirrors: addresses that take a file's name, tried in order.
    embedded: reads the pictures that the package ships for where it is found nowhere, and adds a remark to their
        origin; None where there are none.
    architecture: of `mow.app.architectures.ARCHITECTURES`, which it is trained with unless told otherwise.
    dim: latent width, whatever the architecture; None for that of its own architecture.
    schedule: how the paper trains on it; None where its tables do not have it.
    """

    title: str
    subfolders: tuple[str, ...]
    files: str
    is_in: Callable[[Path], bool]
    read: Callable[..., Parts]
    size: int | None = None
    published: Mapping[str, str] = field(default_factory=dict)
    mirrors: tuple[str, ...] = ()
    embedded: Callable[[str], PictureData] | None = None
    architecture: str = "small"
    dim: int | None = None
    schedule: Schedule | None = None


COLLECTIONS = {
    "fashion-mnist": Collection(
        title="Fashion-MNIST",
        subfolders=("fashion-mnist", "FashionMNIST/raw"),
        files=f"{', '.join(mnist.FILES)}, each with or without .gz",
        is_in=mnist.is_in,
        read=partial(mnist.read, title="Fashion-MNIST"),
        published={
            "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        },
        mirrors=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        embedded=mnist.embedded_fashion_mnist,
        architecture="mnist",  # quick; the paper's convolutions have 1,900 times as many multiply-adds
        dim=8,
        schedule=Schedule(architecture="fashion-mnist", epochs=75, optimizer="adam"),
    ),
    "mnist": Collection(
        title="MNIST",
        subfolders=("mnist", "MNIST/raw"),
        files=f"{', '.join(mnist.FILES)}, each with or without .gz",
        is_in=mnist.is_in,
        read=partial(mnist.read, title="MNIST"),
        published={
            "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        },
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        architecture="mnist",
        schedule=Schedule(architecture="mnist", epochs=500, optimizer="sgd"),
    ),
    "cifar-10": Collection(
        title="CIFAR-10",
        subfolders=("cifar-10", "cifar-10-batches-bin", "cifar-10/cifar-10-batches-bin"),
        files=f"{cifar.ARCHIVE}, or {', '.join((*cifar.TRAIN, cifar.TEST))} out of it (the Python version is pickled "
        "and not read)",
        is_in=cifar.is_in,
        read=cifar.read,
        published={cifar.ARCHIVE: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"},
        mirrors=("https://www.cs.toronto.edu/~kriz/",),
        architecture="cifar-10",
        schedule=Schedule(architecture="cifar-10", epochs=500, optimizer="sgd"),
    ),
    "celeba": Collection(
        title="CelebA",
        subfolders=("celeba", "CelebA"),
        files=f"the folder {faces.CELEBA} with the aligned pictures (000001.jpg and on), and beside it "
        f"{faces.CELEBA_PARTS}, both from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        is_in=faces.celeba_is_in,
        read=faces.read_celeba,
        size=64,
        architecture="celeba",
        schedule=Schedule(architecture="celeba", epochs=None, optimizer="sgd"),
    ),
    "ffhq": Collection(
        title="FFHQ",
        subfolders=("ffhq", "ffhq-dataset"),
        files=f"the folder {faces.FFHQ} with the pictures (00000.png and on, also in subfolders) from "
        "https://github.com/NVlabs/ffhq-dataset",
        is_in=faces.ffhq_is_in,
        read=faces.read_ffhq,
        size=1024,
        architecture="ffhq",
    ),
}
"""The data sets by the name that `load` and `mow train --data` take; docs/extending.md says how to add one."""
