"""The command `mow`, also as `python -m mow`."""

from __future__ import annotations

import sys

from mow.startup import ctrl_c_ends_at_once


def main() -> None:
    try:
        with ctrl_c_ends_at_once():
            from mow.app.cli import app
    except ModuleNotFoundError as error:
        sys.exit(f"mow: the command line needs {error.name}: pip install 'mow-kernels[train]'")
    app()


if __name__ == "__main__":
    main()
