"""Ctrl-C while the command is imported, PyTorch with it: one line and exit code 130, not an import's traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LAUNCHED = "MOW_LAUNCHED"
"""In the environment of the processes that `mow train --processes` starts; the one that started them tells of them."""


def is_command() -> bool:
    """Whether this process is the command: the script `mow`, or `python -m mow`, which is `-m` until it is found."""
    name = sys.argv[0] if sys.argv else ""
    return name == "-m" or os.path.splitext(os.path.basename(name))[0] == "mow"


@contextmanager
def ctrl_c_ends_at_once(wanted: bool = True) -> Iterator[None]:
    """Inside, Ctrl-C ends the process. A KeyboardInterrupt would not do: a module that is imported may swallow it.

    Args:
        wanted: else nothing changes; nor does it where Ctrl-C is handled in another way, or in another thread.
    """
    main = threading.current_thread() is threading.main_thread()
    if not (wanted and main and signal.getsignal(signal.SIGINT) is signal.default_int_handler):
        yield
        return

    def end(*_: object) -> None:
        if LAUNCHED not in os.environ:
            os.write(2, b"interrupted before anything was begun: the same command begins again\n")
        os._exit(130)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
