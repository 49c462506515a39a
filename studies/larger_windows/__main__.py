"""Behind docs/larger-windows.md: python -m studies.larger_windows run | report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command, record
from mow.app import grid, reproduce
from studies.larger_windows import experiment, report

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The folder of the runs.")] = Path("runs/larger-windows"),
    pictures: Annotated[int, typer.Option(help="That each run sees.")] = 60_000,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as many as cores by default.")] = None,
) -> None:
    """Train, go on where it was interrupted, and keep the scores in the repository."""
    found = grid.run_cells(experiment.cells(pictures), out, jobs=jobs, on_event=command.tell)
    content = record.head("python -m studies.larger_windows run", 0)
    content["runs"] = [reproduce.public(found[name]) for name in sorted(found)]
    command.wrote(record.keep(RESULTS / "scores.json", content))


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
