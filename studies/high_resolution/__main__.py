"""Behind docs/high-resolution.md: python -m studies.high_resolution count | measure | run | report"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import command, record
from studies.high_resolution import counted, photographs, report, resident

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def count(out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS) -> None:
    """Count the bytes of a step, without computing anything; takes seconds."""
    _keep(out / "counted.json", "count", counted.run)


@app.command()
def measure(out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS) -> None:
    """Measure the peak memory of a step where it fits into 12 GiB; takes some minutes."""
    _keep(out / "resident.json", "measure", resident.run)


@app.command()
def run(
    source: Annotated[Path, typer.Argument(help="A folder of .jpg photographs of 1024 x 1024 and more.")],
    steps: Annotated[int, typer.Option(min=1)] = 5,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Train on tiles of photographs, one a step, on one core; takes some minutes."""
    _keep(out / "photographs.json", f"run FOLDER --steps {steps}", lambda: photographs.run(source, steps))


def _keep(path: Path, words: str, measured: Callable[[], dict[str, Any]]) -> None:
    head = record.head(f"python -m studies.high_resolution {words}", 0)
    command.wrote(record.keep(path, {**head, **measured()}))


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
