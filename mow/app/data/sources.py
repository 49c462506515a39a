"""Where pictures come from: the named collections, found, downloaded or embedded, and a person's own."""

from __future__ import annotations

import difflib
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mow.app.data.base import DataError, PictureData
from mow.app.data.collections import COLLECTIONS, Collection
from mow.app.data.pictures import read_arrays, read_folder
from mow.checks import integer

with warnings.catch_warnings(action="ignore"):  # tqdm's, in a notebook without ipywidgets
    import pooch

PACKAGED = Path("/usr/share/datasets")  # Debian's dataset-* packages

NAMES = tuple(COLLECTIONS)
"""The names of the collections that `load` knows."""


def load(
    data: str | Path,
    *,
    data_dir: str | Path | None = None,
    download: bool = False,
    size: int | None = None,
    progress: bool = False,
) -> PictureData:
    """The pictures that `data` names: a collection of `NAMES`, a folder of pictures, or an .npy or .npz file.

        >>> import numpy as np
        >>> from mow.app import data
        >>> np.savez(folder / "mine.npz", np.zeros((40, 8, 8), np.uint8))
        >>> data.load(folder / "mine.npz")
        PictureData('mine', train=36, test=4, picture=1x8x8)

    A name goes before a path: for a folder that is called mnist write "./mnist".

    The files of a named collection keep the names that they were published with (`COLLECTIONS` lists them; CelebA and
    FFHQ are folders of pictures, decoded when they are used). They may lie in a subfolder of the collection's name
    (mnist or MNIST/raw; cifar-10; celeba; ffhq) or directly in
    1. `data_dir`,
    2. the folder that the environment variable MOW_DATA names (both must exist, but may lack this collection),
    3. /usr/share/datasets, where Debian's dataset-fashion-mnist puts it,
    4. the cache, pooch.os_cache("mow").
    With `download`, what is found nowhere is fetched into `data_dir`, else MOW_DATA, else the cache; a file gets its
    name only after its SHA-256 was right. CelebA and FFHQ have no stable address and are never downloaded. Without,
    fashion-mnist becomes the embedded pictures, and `origin` says so and where it looked; another one is an error.

    data_dir, download: go with the named collections only.
    size: side in pixels to which pictures are resized, goes with a folder of pictures (default: see
        mow.app.data.pictures.read_folder) and with the collections that have a `size`, celeba (64) and ffhq (1024).
    progress: draw bars on stderr while downloading and while reading a folder; needs rich.

    Raises DataError (a ValueError) if the pictures cannot be had: what was looked for, what is wrong, what to do.
    Raises ValueError for options that do not go with `data`, TypeError for a size that is not an int.
    """
    name = os.fspath(data)
    path = Path(name).expanduser()
    is_folder = name not in COLLECTIONS and name.strip() != "" and path.is_dir()
    is_file = path.suffix.lower() in (".npy", ".npz") and path.is_file()
    if not (name in COLLECTIONS or is_folder or is_file):
        raise DataError(_not_understood(name, path))
    if size is not None:
        _check_size(size, name, is_folder or name in COLLECTIONS and COLLECTIONS[name].size is not None)
    if name in COLLECTIONS:
        return _load_collection(name, data_dir, download, size, progress)
    if data_dir is not None or download:
        option = "download" if data_dir is None else f"data_dir={str(data_dir)!r}"
        raise ValueError(f"{option} goes with {_list(NAMES)} only, but data is {name!r}")
    if is_folder:
        return read_folder(path, size=size, progress=progress)
    return read_arrays(path)


def embedded(name: str) -> PictureData:
    """The pictures that the package ships in the place of a collection.

    Raises:
        DataError: it ships none of that name.
    """
    shipped = {other: collection.embedded for other, collection in COLLECTIONS.items() if collection.embedded}
    if name not in shipped:
        raise DataError(f"data is {name!r}, of which no pictures are embedded; it must be one of {', '.join(shipped)}")
    return shipped[name]("")


def _check_size(size: int, name: str, is_resized: bool) -> None:
    size = integer("size", size, ", the side in pixels")
    if size < 1:
        raise ValueError(f"size is {size}; it must be at least 1 pixel")
    if not is_resized:
        resized = _list([other for other, collection in COLLECTIONS.items() if collection.size is not None])
        raise ValueError(f"size is {size}, but data is {name!r}; only a folder of pictures, {resized} are resized")


def _list(names: Sequence[str]) -> str:
    """a, b and c"""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _not_understood(name: str, path: Path) -> str:
    known = f"known names are {_list(NAMES)}; else data is a folder of pictures or an .npy or .npz file"
    if name.strip() and path.exists():
        return f"data is {name!r}, a file of another kind; {known}"
    close = difflib.get_close_matches(name.lower(), COLLECTIONS, n=1)
    guess = f" (did you mean {close[0]!r}?)" if close else ""
    return f"data is {name!r}, which is no known name{guess} and no path that exists; {known}"


def _load_collection(
    name: str, data_dir: str | Path | None, download: bool, size: int | None, progress: bool
) -> PictureData:
    collection = COLLECTIONS[name]
    named = {"data_dir": data_dir, "MOW_DATA": os.environ.get("MOW_DATA") or None}
    may_be_new = download and bool(collection.published)
    own = [_existing(option, folder, may_be_new) for option, folder in named.items() if folder is not None]
    roots = [*own, PACKAGED, Path(pooch.os_cache("mow"))]
    if folder := _find(collection, roots):
        return _read(name, folder, "found in", size)
    if may_be_new:
        return _read(name, _download(collection, [*own, roots[-1]][0], progress), "downloaded to", size)
    places = ", ".join(str(root) for root in roots)
    if collection.embedded is not None:
        return collection.embedded(f"; the full set was not found in {places}")
    ways = "download it (download=True, --download), or " if collection.published else ""
    only = "" if collection.published else " It cannot be downloaded here: no stable address is known."
    raise DataError(
        f"{collection.title} was not found. Looked in {places}, directly and in the subfolders "
        f"{_list(collection.subfolders)}, for {collection.files}.{only} To have it, {ways}put the files into one of "
        "these places, or name their folder (data_dir, --data-dir, or the environment variable MOW_DATA)."
    )


def _read(name: str, folder: Path, how: str, size: int | None) -> PictureData:
    collection = COLLECTIONS[name]
    size = size or collection.size
    train, test, *labels = collection.read(folder) if size is None else collection.read(folder, size)
    resized = "" if size is None else f", resized to {size} x {size}"
    return PictureData(
        name=name,
        train=train,
        test=test,
        origin=f"{collection.title} ({len(train):,} pictures to train, {len(test):,} to test){resized}, {how} {folder}",
        train_labels=labels[0] if labels else None,
        test_labels=labels[1] if labels else None,
    )


def _existing(option: str, named: str | Path, may_be_new: bool) -> Path:
    """The folder that an option names; it must exist unless a download may create it."""
    folder = Path(named).expanduser()
    if not folder.is_dir() and not may_be_new:
        raise DataError(f"{option} is {str(named)!r}, which is not a folder that exists")
    return folder


def _find(collection: Collection, roots: Iterable[Path]) -> Path | None:
    """The first folder with all files. A subfolder goes before its root, whose files may be another collection."""
    folders = (root / subfolder for root in roots for subfolder in (*collection.subfolders, ""))
    return next((folder for folder in folders if collection.is_in(folder)), None)


def _download(collection: Collection, root: Path, progress: bool) -> Path:
    """Fetch the published files into the collection's subfolder of `root`. What is there already and right stays."""
    folder = root / collection.subfolders[0]
    with _bars(progress) as new_bar:
        for name, sha256 in collection.published.items():
            get = pooch.HTTPDownloader(progressbar=new_bar(name))
            failures = []
            for mirror in collection.mirrors:
                try:
                    pooch.retrieve(f"{mirror}{name}", f"sha256:{sha256}", name, folder, downloader=get)
                    break
                except (OSError, ValueError) as error:  # no connection, no such file, no room, or the wrong bytes
                    failures.append(f"{mirror}: {error}")
            else:
                raise DataError(f"{name} could not be downloaded to {folder}: {'; '.join(failures)}")
    return folder


@contextmanager
def _bars(show: bool) -> Iterator[Callable[[str], Any]]:
    """Gives a function from a title to what pooch takes as a progress bar: one that rich draws on stderr, or False.

    Where that is no terminal, pooch's log has a line for each file.
    """
    if not (show and sys.stderr.isatty()):
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
