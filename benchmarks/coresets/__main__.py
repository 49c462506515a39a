"""python -m benchmarks.coresets run | report"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import record
from benchmarks.coresets import anomaly, report, speed
from mow.app.files import write_whole

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

RESULTS = record.RESULTS / "coresets"
PARTS = {"speed": speed, "anomaly": anomaly}


@app.command()
def run(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; default: all.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Measure on one thread, and write a JSON file for each part; takes some ten minutes."""
    out.mkdir(parents=True, exist_ok=True)
    for part in parts or PARTS:
        content = {**record.head(f"python -m benchmarks.coresets run {part}", 0), **PARTS[part].run()}
        path = write_whole(out / f"{part}.json", json.dumps(content, indent=1) + "\n")
        console.print(f"[bold green]done[/]: {path}", soft_wrap=True)


@app.command(name="report")
def make_report(
    results: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
    page: Annotated[Path, typer.Option(help="The page whose tables are replaced.")] = record.ROOT
    / "docs"
    / "core-sets.md",
) -> None:
    """Make the tables of docs/core-sets.md from the results."""
    console.print(f"[green]wrote[/] {report.write(results, page)}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    app()
