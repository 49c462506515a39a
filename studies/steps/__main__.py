"""Behind docs/steps.md: python -m studies.steps run | report"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command, record
from studies.steps import measure, report

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def run(
    cases: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(measure.CASES)}; else all.")] = None,
    rounds: Annotated[int, typer.Option(help="In which each loop has its turn.")] = measure.ROUNDS,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
    again: Annotated[bool, typer.Option(help="Also those that this commit has measured.")] = False,
) -> None:
    """Measure the loops, each case in a process of its own; takes some forty minutes, much of it to compile.

    Interrupted, the same command goes on: what this commit has measured stays.
    """
    head = record.head(f"python -m studies.steps run --rounds {rounds}", measure.SEED)
    for name in cases or measure.CASES:
        if name not in measure.CASES:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(measure.CASES)}", param_hint="CASES")
        path = out / f"{name}.json"
        if not again and path.exists() and not head["dirty"] and record.read(path)["commit"] == head["commit"]:
            typer.echo(f"kept {path}")
            continue
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as cache:  # nothing is compiled yet
            variables = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache}
            one = [sys.executable, "-m", "studies.steps", "one", name, str(path), "--rounds", str(rounds)]
            subprocess.run(one, env=variables, check=True)
        typer.echo(f"wrote {path} in {time.monotonic() - began:.0f} s")


@app.command(hidden=True)
def one(case: str, path: Path, rounds: int = measure.ROUNDS) -> None:
    """Measure a case in this process."""
    head = record.head(f"python -m studies.steps run --rounds {rounds}", measure.SEED)
    record.keep(path, {**head, **measure.measured(measure.CASES[case], rounds)})


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
