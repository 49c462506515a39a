"""What the command lines have in common."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import page


def new(about: str | None) -> typer.Typer:
    """A command line with this help."""
    return typer.Typer(help=about, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)


def add_report(app: typer.Typer, write: Callable[[Path, Path], Iterable[Path]], kept: Path) -> None:
    """Give a command line the command `report`, which makes a page from results that are kept.

    Args:
        write: makes the page in a folder of documents (second) from a folder of results (first).
        kept: the folder of the results.
    """

    @app.command()
    def report(
        results: Annotated[Path, typer.Option(help="The folder of the results.")] = kept,
        docs: Annotated[Path, typer.Option(help="The folder of the documentation.")] = page.DOCS,
    ) -> None:
        """Make the tables and figures of the page from the results."""
        wrote(*write(results, docs))


def tell(name: str, kind: str, what: object) -> None:
    """Tell an event of `mow.app.grid.run_cells`, single steps left out."""
    if kind != "step":
        typer.echo(f"{kind} {name}" + (f": {what}" if kind == "failed" else ""))


def wrote(*paths: Path) -> None:
    """Tell what was written."""
    for path in paths:
        typer.echo(f"wrote {path}")
