"""Behind docs/kernels.md: python -m studies.kernels run | tiles | report"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command, record
from studies.kernels import measure, report
from studies.kernels import tiles as measured

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def run(
    seconds: Annotated[float, typer.Option(help="For the timings of each case.")] = 5.0,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Measure every kernel against the library that has it; some eight minutes, of which KeOps compiles for four."""
    head = record.head(f"python -m studies.kernels run --seconds {seconds:g}", measure.SEED)
    head["versions"] |= {name: record.version(name) for name in ("torchmetrics", "pykeops")}
    cases = []
    for case in measure.CASES:
        cases.append(measure.measured(case, seconds))
        typer.echo(f"done {case.name}")
    command.wrote(record.keep(out / "kernels.json", {**head, "cases": cases}))


@app.command()
def tiles() -> None:
    """Measure tiles of products by bfloat16 limbs against float32's, on a processor that has AMX."""
    before = list(os.getloadavg())
    found = list(measured.measured())
    content = {**record.head("python -m studies.kernels tiles", 0), "load": before, "tiles": found}
    command.wrote(record.keep(RESULTS / "tiles.json", content))


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
