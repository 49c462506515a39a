"""What a command shows while it works: bars on a terminal, elsewhere lines without control characters now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from typing import IO, TypeVar

from mow.training.progress import SECONDS_BETWEEN_LINES

_Item = TypeVar("_Item")


class NowAndThen:
    """Says of each moment whether another line is due.

    Args:
        seconds: between two lines; the first is due so long after this was made.
    """

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = SECONDS_BETWEEN_LINES if seconds is None else seconds
        self._last = time.monotonic()

    def due(self) -> bool:
        now = time.monotonic()
        if now - self._last < self._seconds:
            return False
        self._last = now
        return True


def tracked(items: Iterable[_Item], title: str, total: int, file: IO[str] | None = None) -> Iterator[_Item]:
    """The items, under a bar where the file (None for stderr) is a terminal; else with lines that count them."""
    file = sys.stderr if file is None else file
    if file.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, title, total=total, console=Console(file=file))
        return
    lines = NowAndThen()
    for count, item in enumerate(items, 1):
        if count == total or lines.due():
            print(f"{title}: {count:,} of {total:,}", file=file, flush=True)
        yield item
