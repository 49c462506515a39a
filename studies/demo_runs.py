"""Runs of the demonstrations of `mow`, which write their measures and a picture: they are kept for a page."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def keep(run: Path, name: str, results: Path, docs: Path) -> list[Path]:
    """Copy NAME.json of a run to the results, and NAME.png to the pictures of the documentation."""
    results.mkdir(parents=True, exist_ok=True)
    copies = {f"{name}.json": results, f"{name}.png": docs / "images"}
    return [Path(shutil.copyfile(run / file, folder / file)) for file, folder in copies.items()]


def made_with(found: Mapping[str, Any]) -> str:
    """The data, the seed and the PyTorch of a run."""
    return f"{found['data'].split(', found')[0]}, seed {found['seed']}, PyTorch {found['torch']}."
