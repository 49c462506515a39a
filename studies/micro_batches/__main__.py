"""Behind docs/micro-batches.md: python -m studies.micro_batches keep | report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command, page
from studies import demo_runs
from studies.micro_batches import report

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def keep(folder: Annotated[Path, typer.Argument(help="A run of `mow microbatch`.")]) -> None:
    """Keep what `mow microbatch` measured beside the results, and its picture in the documentation."""
    command.wrote(*demo_runs.keep(folder, "microbatch", RESULTS, page.DOCS))


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
