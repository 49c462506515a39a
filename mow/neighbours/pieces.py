"""Who wants to know the pieces in which a batch is processed, whose sizes change when memory runs out."""

from __future__ import annotations

from typing import Any, Protocol
from weakref import WeakSet


class Listener(Protocol):
    """Follows the backward passes of pieces."""

    def piece(self, rows: int) -> None:
        """A piece of so many rows has run backward."""

    def mark(self) -> Any:
        """What `rewind` needs to forget what comes from now on."""

    def rewind(self, mark: Any) -> None:
        """The pieces since the mark did not count: they begin again."""


LISTENERS: WeakSet[Listener] = WeakSet()
"""Those that are told by `mow.accumulate`."""
