"""Behind docs/steps.md: python -m studies.steps run | report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import command, record
from studies.steps import measure, report

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def run(
    rounds: Annotated[int, typer.Option(help="In which each loop has its turn.")] = measure.ROUNDS,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Measure the loops on one thread; takes some ten minutes, most of it to compile."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    content = {**record.head(f"python -m studies.steps run --rounds {rounds}", measure.SEED), "cases": []}
    for case in measure.CASES:
        content["cases"].append(measure.measured(case, rounds))
        typer.echo(f"done {case}")
        record.keep(out / "steps.json", content)
    command.wrote(out / "steps.json")


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
