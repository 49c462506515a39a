"""The command `mow`, also as `python -m mow`."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from mow.app.cli import app
    except ModuleNotFoundError as error:
        sys.exit(f"mow: the command line needs {error.name}: pip install 'mow-kernels[train]'")
    except KeyboardInterrupt:  # while PyTorch is imported; the commands have their own answer
        sys.exit(130)
    app()


if __name__ == "__main__":
    main()
