"""Where pictures come from: the named collections, found, downloaded or embedded, and a person's own."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import torch
from torch import Tensor

from mow.data.base import DataError, PictureData
from mow.data.idx import read_idx
from mow.data.pictures import read_arrays, read_folder

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
PACKAGED = Path("/usr/share/datasets")  # Debian's dataset-* packages
EMBEDDED = Path(__file__).parent / "embedded"
EMBEDDED_TEST_PER_CLASS = 200


@dataclass(frozen=True)
class Collection:
    """A data set that is published as four gzipped IDX files.

    subfolders: where a root may keep it; a download goes to the first.
    mirrors: addresses that take a file's name and .gz, tried in order.
    sha256: of the four gzipped files as published, in the order of FILES.
    first_labels: how its train labels begin, which tells collections with the same file names apart.
    """

    title: str
    subfolders: tuple[str, ...]
    mirrors: tuple[str, ...]
    sha256: tuple[str, str, str, str]
    first_labels: tuple[int, ...]


COLLECTIONS = {
    "fashion-mnist": Collection(
        title="Fashion-MNIST",
        subfolders=("fashion-mnist", "FashionMNIST/raw"),
        mirrors=(
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        sha256=(
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
        first_labels=(9, 0, 0, 3, 0, 2, 7, 2, 5, 5, 0, 9, 5, 5, 7, 9, 1, 0, 6, 4),
    ),
    "mnist": Collection(
        title="MNIST",
        subfolders=("mnist", "MNIST/raw"),
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        sha256=(
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
        first_labels=(5, 0, 4, 1, 9, 2, 1, 3, 1, 4, 3, 5, 3, 6, 1, 7, 2, 8, 6, 9),
    ),
}


def load(
    data: str | Path,
    *,
    data_dir: str | Path | None = None,
    download: bool = False,
    size: int | None = None,
    progress: bool = False,
) -> PictureData:
    """The pictures that `data` names: "fashion-mnist", "mnist", a folder of pictures, or an .npy or .npz file.

    A name goes before a path: for a folder that is called mnist write "./mnist".

    A named collection is four IDX files, gzipped or not, under the names they were published with. They may lie in a
    subfolder (fashion-mnist or FashionMNIST/raw; mnist or MNIST/raw) or directly in
    1. `data_dir`,
    2. the folder that the environment variable MOW_DATA names (both must exist, but may lack this collection),
    3. /usr/share/datasets, where Debian's dataset-fashion-mnist puts it,
    4. the cache, pooch.os_cache("mow").
    With `download`, what is found nowhere is fetched into `data_dir`, else MOW_DATA, else the cache; a file gets its
    name only after its SHA-256 was right. Without, fashion-mnist becomes the embedded pictures, and `origin` says so
    and where it looked; mnist is an error.

    data_dir, download: go with the named collections only.
    size: side in pixels, goes with a folder of pictures only (default: see mow.data.pictures.read_folder).
    progress: draw bars on stderr while downloading and while reading a folder; needs rich.

    Raises DataError (a ValueError) if the pictures cannot be had: what was looked for, what is wrong, what to do.
    Raises ValueError for options that do not go with `data`, TypeError for a size that is not an int.
    """
    name = os.fspath(data)
    path = Path(name).expanduser()
    is_folder = name not in COLLECTIONS and name.strip() != "" and path.is_dir()
    if size is not None:
        _check_size(size, name, is_folder)
    if name in COLLECTIONS:
        return _load_collection(name, data_dir, download, progress)
    if data_dir is not None or download:
        option = "download" if data_dir is None else f"data_dir={str(data_dir)!r}"
        raise ValueError(f"{option} goes with {' and '.join(COLLECTIONS)} only, but data is {name!r}")
    if is_folder:
        return read_folder(path, size=size, progress=progress)
    if path.suffix.lower() in (".npy", ".npz") and path.is_file():
        return read_arrays(path)
    raise DataError(_not_understood(name, path))


def embedded_fashion_mnist(*, remark: str = "") -> PictureData:
    """The 10,000 Fashion-MNIST test pictures that the package ships, split in two with the classes balanced.

    In the order of the published file the last 200 pictures of each of the ten classes are for testing, the other
    8,000 for training; nothing is drawn or shuffled. `remark` is added to `origin`.
    """
    pictures, labels = _read_pair(EMBEDDED, *FILES[2:])
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


def _check_size(size: int, name: str, is_folder: bool) -> None:
    if not isinstance(size, int) or isinstance(size, bool):
        raise TypeError(f"size is {size!r}, a {type(size).__name__}; it must be an int, the side in pixels")
    if size < 1:
        raise ValueError(f"size is {size}; it must be at least 1 pixel")
    if not is_folder:
        raise ValueError(f"size is {size}, but data is {name!r}; only a folder of pictures is resized")


def _not_understood(name: str, path: Path) -> str:
    known = f"known names are {' and '.join(COLLECTIONS)}; else data is a folder of pictures or an .npy or .npz file"
    if name.strip() and path.exists():
        return f"data is {name!r}, a file of another kind; {known}"
    close = difflib.get_close_matches(name.lower(), COLLECTIONS, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return f"data is {name!r}, which is no known name{guess} and no path that exists; {known}"


def _load_collection(name: str, data_dir: str | Path | None, download: bool, progress: bool) -> PictureData:
    collection = COLLECTIONS[name]
    named = {"data_dir": data_dir, "MOW_DATA": os.environ.get("MOW_DATA") or None}
    own = [_existing(option, folder, may_be_new=download) for option, folder in named.items() if folder is not None]
    roots = [*own, PACKAGED, Path(pooch.os_cache("mow"))]
    if folder := _find(collection, roots):
        return _read_collection(name, folder, "found in")
    if download:
        return _read_collection(name, _download(collection, [*own, roots[-1]][0], progress), "downloaded to")
    places = ", ".join(str(root) for root in roots)
    if name == "fashion-mnist":
        return embedded_fashion_mnist(remark=f"; the full set was not found in {places}")
    raise DataError(
        f"{collection.title} was not found. Looked in {places}, directly and in the subfolders "
        f"{' and '.join(collection.subfolders)}, for {', '.join(FILES)}, each with or without .gz. To have it, "
        "download it (download=True, --download), or put the four files into one of these places, or name their "
        "folder (data_dir, --data-dir, or the environment variable MOW_DATA)."
    )


def _existing(option: str, named: str | Path, *, may_be_new: bool) -> Path:
    """The folder that an option names; it must exist unless a download may create it."""
    folder = Path(named).expanduser()
    if not folder.is_dir() and not may_be_new:
        raise DataError(f"{option} is {str(named)!r}, which is not a folder that exists")
    return folder


def _find(collection: Collection, roots: Iterable[Path]) -> Path | None:
    """The first folder with all four files. A subfolder goes before its root, whose files may be another collection."""
    folders = (root / subfolder for root in roots for subfolder in (*collection.subfolders, ""))
    return next((folder for folder in folders if all(_file(folder, name) for name in FILES)), None)


def _file(folder: Path, name: str) -> Path | None:
    """The unpacked file of that name, else the gzipped one, else None."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if os.path.isfile(path)), None)


def _read_collection(name: str, folder: Path, how: str) -> PictureData:
    train, train_labels = _read_pair(folder, *FILES[:2])
    test, test_labels = _read_pair(folder, *FILES[2:])
    if train.shape[1:] != test.shape[1:]:
        raise DataError(
            f"{folder}: train and test pictures differ: {tuple(train.shape)} and {tuple(test.shape)} as [N, C, H, W]"
        )
    title = COLLECTIONS[name].title
    for other, collection in COLLECTIONS.items():
        first = collection.first_labels
        if other != name and train_labels[: len(first)].tolist() == list(first):
            raise DataError(f"{folder}: these files are {collection.title}, not {title}")
    return PictureData(
        name=name,
        train=train,
        test=test,
        origin=f"{title} ({len(train):,} pictures to train, {len(test):,} to test), {how} {folder}",
        train_labels=train_labels,
        test_labels=test_labels,
    )


def _read_pair(folder: Path, pictures_name: str, labels_name: str) -> tuple[Tensor, Tensor]:
    """Pictures uint8 [N, 1, H, W] and their labels int64 [N]."""
    pictures_path, labels_path = (_file(folder, name) or folder / name for name in (pictures_name, labels_name))
    pictures, labels = read_idx(pictures_path), read_idx(labels_path)
    if pictures.ndim != 3 or pictures.size == 0:
        raise DataError(f"{pictures_path}: pictures of shape {pictures.shape}; they must be [N, H, W], not empty")
    if labels.shape != pictures.shape[:1]:
        raise DataError(f"{labels_path}: labels of shape {labels.shape} for {len(pictures):,} pictures")
    return torch.tensor(pictures).unsqueeze(1), torch.tensor(labels, dtype=torch.int64)


def _download(collection: Collection, root: Path, progress: bool) -> Path:
    """Fetch the four files into the collection's subfolder of `root`. Files that are there already and right stay."""
    folder = root / collection.subfolders[0]
    with _bars(progress) as new_bar:
        for name, sha256 in zip(FILES, collection.sha256, strict=True):
            get = pooch.HTTPDownloader(progressbar=new_bar(name))
            failures = []
            for mirror in collection.mirrors:
                try:
                    pooch.retrieve(f"{mirror}{name}.gz", f"sha256:{sha256}", f"{name}.gz", folder, downloader=get)
                    break
                except (OSError, ValueError) as error:  # no connection, no such file, no room, or the wrong bytes
                    failures.append(f"{mirror}: {error}")
            else:
                raise DataError(f"{name}.gz could not be downloaded to {folder}: {'; '.join(failures)}")
    return folder


@contextmanager
def _bars(show: bool) -> Iterator[Callable[[str], Any]]:
    """Gives a function from a title to what pooch takes as a progress bar: one that rich draws on stderr, or False."""
    if not show:
        yield lambda title: False
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn()
    log = pooch.get_logger()
    level = log.level
    log.setLevel("WARNING")  # its line for every file would tear the bars
    try:
        with Progress(*columns, console=Console(stderr=True)) as display:
            yield lambda title: _Bar(display, title)
    finally:
        log.setLevel(level)


class _Bar:
    """What pooch asks of a progress bar, passed on to rich."""

    total: int | None = None  # pooch sets it once the size is known

    def __init__(self, display: Any, title: str) -> None:
        self._display = display
        self._task = display.add_task(title, total=None)

    def update(self, size: int) -> None:
        self._display.update(self._task, total=self.total, advance=size)

    def reset(self) -> None:
        self._display.update(self._task, completed=0)

    def close(self) -> None:
        """The display belongs to all the bars and ends after the last."""
