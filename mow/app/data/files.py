"""The files of pictures in a folder of a person's own."""

from __future__ import annotations

import os
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
"""Of a picture's name, in capitals or not."""


@dataclass
class Found:
    """What lies in a folder.

    paths: the pictures, by their path within it, in order.
    left_out: what has a picture's name and cannot be opened, and why.
    others: how many files there are of each other suffix, and
    hidden: hidden files and folders, into which nobody looked.
    """

    paths: dict[str, Path] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def counted(self, unreadable: int) -> str:
        """What was left out, in words; nothing if nothing was."""
        kinds = ", ".join(suffix or "no suffix" for suffix, _ in self.others.most_common(3))
        counts = {
            f"{unreadable:,} unreadable": unreadable,
            f"{self.others.total():,} of another kind ({kinds})": self.others.total(),
            f"{self.hidden:,} hidden": self.hidden,
        }
        parts = [words for words, count in counts.items() if count]
        return f"; left out: {', '.join(parts)}" if parts else ""


def find(folder: Path) -> Found:
    """The files under a folder that are pictures by their suffix, hidden files and folders left out.

    Links to folders are followed, and each folder is read once, so that links may go in circles; one to a folder
    around this one is left out, since everything else lies there, too.
    """
    found = Found()
    around = {_identity(parent) for parent in folder.resolve().parents}
    seen: set[tuple[int, int]] = set()
    waiting, links = deque([(folder, "")]), deque[tuple[Path, str]]()
    while waiting or links:  # links last, so that a picture has the path on which it really lies
        place, within = waiting.popleft() if waiting else links.popleft()
        if _identity(place) in seen:
            continue
        if _identity(place) in around:
            found.left_out[within] = "a link to a folder around this one"
            continue
        seen.add(_identity(place))
        try:
            names = sorted(os.listdir(place))
        except OSError as error:
            if not within:
                raise
            found.left_out[within] = f"a folder that cannot be read: {error.strerror}"
            continue
        for name in names:
            path, inner = place / name, f"{within}/{name}" if within else name
            suffix = path.suffix.lower()
            if name.startswith("."):
                found.hidden += 1
            elif os.path.isdir(path):  # unlike those of pathlib, no error where it may not be asked
                (links if path.is_symlink() else waiting).append((path, inner))
            elif suffix not in SUFFIXES:
                found.others[suffix] += 1
            elif os.path.isfile(path):
                found.paths[inner] = path
            else:
                found.left_out[inner] = "a link that leads nowhere" if path.is_symlink() else "no file"
    found.paths = dict(sorted(found.paths.items()))
    return found


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino
