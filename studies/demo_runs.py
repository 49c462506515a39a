"""Runs of the demonstrations of `mow`, which write their measures and a picture: they are kept for a page."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import command, page


def add_keep(app: typer.Typer, name: str, results: Path) -> None:
    """Give a command line the command `keep`, which takes over a run of `mow NAME`."""

    @app.command(help=f"Keep what a run of `mow {name}` measured beside the results, and its picture in the docs.")
    def keep(run: Annotated[Path, typer.Argument(help="The folder of the run.")]) -> None:
        command.wrote(*copy(run, name, results, page.DOCS))


def copy(run: Path, name: str, results: Path, docs: Path) -> list[Path]:
    """NAME.json of a run to the results, and NAME.png to the pictures of the documentation."""
    results.mkdir(parents=True, exist_ok=True)
    copies = {f"{name}.json": results, f"{name}.png": docs / "images"}
    return [Path(shutil.copyfile(run / file, folder / file)) for file, folder in copies.items()]


def made_with(found: Mapping[str, Any]) -> str:
    """The data, the seed and the PyTorch of a run."""
    return f"{found['data'].split(', found')[0]}, seed {found['seed']}, PyTorch {found['torch']}."
