"""CelebA and FFHQ: folders of faces with a published split, decoded one by one."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mow.app.data.base import DataError, LazyPictures
from mow.app.data.pictures import read_square, split

CELEBA = "img_align_celeba"
CELEBA_PARTS = "list_eval_partition.txt"
CELEBA_CROP = 140  # of 178 x 218: the face, as the paper and its neighbours cut it out
FFHQ = "images1024x1024"
FFHQ_TRAIN = 60_000
"""The first so many are for training, by the data set's own description."""


def celeba_is_in(folder: Path) -> bool:
    return (folder / CELEBA).is_dir()


def read_celeba(folder: Path, size: int) -> tuple[LazyPictures, LazyPictures]:
    """The aligned pictures to train and to test, their central 140 x 140 resized to size x size.

    The parts 0 and 2 of list_eval_partition.txt, which lies beside the folder of the pictures. Without that file one
    picture in ten, by a hash of its name, is a test picture.

    Raises DataError for a part without pictures, for a picture that the list has and the folder has not, and for a
    list of another form.
    """
    pictures, parts = folder / CELEBA, folder / CELEBA_PARTS
    names = sorted(path.name for path in pictures.glob("*.jpg"))
    chosen = _listed(parts, set(names)) if parts.is_file() else _by_hash(names)
    return _lazy(pictures, chosen, size, CELEBA_CROP)


def ffhq_is_in(folder: Path) -> bool:
    return (folder / FFHQ).is_dir()


def read_ffhq(folder: Path, size: int) -> tuple[LazyPictures, LazyPictures]:
    """The pictures to train (the first 60,000, by their number) and to test, resized to size x size.

    Where only pictures of the one part are there, one in ten, by a hash of its name, is a test picture.

    Raises DataError for a part without pictures and for a file whose name is no number.
    """
    pictures = folder / FFHQ
    names = sorted(path.relative_to(pictures).as_posix() for path in pictures.rglob("*.png"))
    if strange := [name for name in names if not Path(name).stem.isdigit()]:
        raise DataError(f"{pictures / strange[0]}: not FFHQ, whose files are called by their number, such as 00000.png")
    train = [name for name in names if int(Path(name).stem) < FFHQ_TRAIN]
    test = names[len(train) :]
    return _lazy(pictures, (train, test) if train and test else _by_hash(names), size)


def _listed(path: Path, present: set[str]) -> tuple[list[str], list[str]]:
    """The names of the parts 0 and 2 in a list of names and parts."""
    chosen: dict[str, list[str]] = {"0": [], "1": [], "2": []}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        match line.split():
            case [name, ("0" | "1" | "2") as part]:
                chosen[part].append(name)
            case [_, *_]:
                raise DataError(f"{path}, line {number}, is {line!r}; it must be a file's name and 0, 1 or 2")
    train, test = chosen["0"], chosen["2"]
    if lacking := [name for name in (*train, *test) if name not in present]:
        raise DataError(
            f"{path} lists {lacking[0]}, which is not in {path.parent / CELEBA}; {len(lacking):,} pictures are lacking"
        )
    return train, test


def _by_hash(names: list[str]) -> tuple[list[str], list[str]]:
    train, test = split(names)
    return [names[index] for index in train], [names[index] for index in test]


def _lazy(
    folder: Path, parts: tuple[list[str], list[str]], size: int, crop: int | None = None
) -> tuple[LazyPictures, LazyPictures]:
    for title, names in zip(("train", "test"), parts, strict=True):
        if not names:
            raise DataError(f"{folder}: no pictures to {title}")
    read = partial(read_square, size=size, grey=False, crop=crop)
    train, test = (LazyPictures(folder, names, read, (3, size, size)) for names in parts)
    return train, test
