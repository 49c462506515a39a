"""python -m benchmarks.high_resolution run | report"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks import record
from benchmarks.high_resolution import counted, photographs, report, resident
from mow.app.files import write_whole

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

RESULTS = record.RESULTS / "high_resolution"


@app.command()
def count(out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS) -> None:
    """Count the bytes of a step, without computing anything; takes seconds."""
    _write(out, "counted", {**record.head("python -m benchmarks.high_resolution count", 0), **counted.run()})


@app.command()
def measure(out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS) -> None:
    """Measure the peak memory of a step where it fits into 12 GiB; takes some minutes."""
    _write(out, "resident", {**record.head("python -m benchmarks.high_resolution measure", 0), **resident.run()})


@app.command()
def run(
    source: Annotated[Path, typer.Argument(help="A folder of .jpg photographs of 1024 x 1024 and more.")],
    steps: Annotated[int, typer.Option(min=1)] = 5,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Train on tiles of photographs, one a step, on one core; takes some minutes."""
    head = record.head(f"python -m benchmarks.high_resolution run FOLDER --steps {steps}", 0)
    _write(out, "photographs", {**head, **photographs.run(source, steps)})


@app.command(name="report")
def make_report(
    results: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
    docs: Annotated[Path, typer.Option(help="The folder of high-resolution.md.")] = record.ROOT / "docs",
) -> None:
    """Make the tables and the figure of docs/high-resolution.md from the results."""
    for path in report.write(results, docs):
        console.print(f"[green]wrote[/] {path}", soft_wrap=True, highlight=False)


def _write(out: Path, name: str, content: dict[str, object]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    path = write_whole(out / f"{name}.json", json.dumps(content, indent=1) + "\n")
    console.print(f"[bold green]done[/]: {path}", soft_wrap=True)


if __name__ == "__main__":
    app()
