"""Ctrl-C: between two steps, not within one, and with a word on how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def deferred(wanted: bool = True) -> Iterator[Callable[[], bool]]:
    """Inside, a first Ctrl-C is only noted: what this gives says whether there was one. A second interrupts at once.

    Args:
        wanted: else nothing changes; nor does it where Ctrl-C is handled in another way, or in another thread.
    """
    asked = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    main = threading.current_thread() is threading.main_thread()
    if not (wanted and main and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def telling(how: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C inside says how to go on, which is asked for then."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise KeyboardInterrupt(str(error) or f"interrupted: {how()}") from None
