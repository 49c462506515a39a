"""The command `mow`, also as `python -m mow`."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def main() -> None:
    try:
        with _ctrl_c_ends_at_once():
            from mow.app.cli import app
    except ModuleNotFoundError as error:
        sys.exit(f"mow: the command line needs {error.name}: pip install 'mow-kernels[train]'")
    app()


@contextmanager
def _ctrl_c_ends_at_once() -> Iterator[None]:
    """For the second in which the command line is imported, where a module may swallow a KeyboardInterrupt.

    Before it Python's own answer holds, while `import mow` imports PyTorch; after it that of the commands.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def end(*_: object) -> None:
        os.write(2, b"interrupted before anything was begun: the same command begins again\n")
        os._exit(130)

    signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    main()
