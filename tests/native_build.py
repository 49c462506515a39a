"""Building the native library in a test, into a folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def build(python: Path | str, folder: Path, **variables: str) -> tuple[int, str]:
    """Builds into folder/mow_kernels, with the environment variables set: the exit status and what was said.

    Two builds in one folder share what they have in common.
    """
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # CMake and Ninja by pip
    command = [str(python), "setup.py", "build_ext", "--build-lib", str(folder), "--build-temp", str(folder / "temp")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MOW_", "CUDACXX"))}
    finished = subprocess.run(
        command, cwd=ROOT, env=environment | {"PATH": path} | variables, capture_output=True, text=True
    )
    return finished.returncode, finished.stdout + finished.stderr


def failing(program: str, folder: Path) -> Path:
    """A compiler that finds an error in every source of ours, and is otherwise the one that is installed."""
    compiler = folder / Path(program).name
    error = "echo 'kernels: error: this is no kernel' >&2; exit 1"
    compiler.write_text(f"""#!/bin/sh\ncase "$*" in *csrc*) {error} ;; esac\nexec {shutil.which(program)} "$@"\n""")
    compiler.chmod(0o755)
    return compiler
