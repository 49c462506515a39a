"""Behind docs/core-sets.md: python -m studies.core_sets run | keep | report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command, record
from studies import demo_runs
from studies.core_sets import anomaly, report, speed

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"
PARTS = {"speed": speed, "anomaly": anomaly}


@app.command()
def run(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; default: all.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Measure on one thread, and write a JSON file for each part; takes some ten minutes."""
    for part in parts or PARTS:
        head = record.head(f"python -m studies.core_sets run {part}", 0)
        command.wrote(record.keep(out / f"{part}.json", {**head, **PARTS[part].run()}))


demo_runs.add_keep(app, "coreset", RESULTS)
command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
