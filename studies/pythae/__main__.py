"""Behind docs/how-to/pythae.md: python -m studies.pythae run | report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks import command, record
from studies.pythae import report, training

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def run(
    epochs: Annotated[int, typer.Option(help="Of each run.")] = 5,
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 3,
    pictures: Annotated[int, typer.Option(help="Of the training pictures.")] = 10_000,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Train on one thread, the kinds epoch by epoch in turn; takes some ten minutes."""
    options = f"--epochs {epochs} --seeds {seeds} --pictures {pictures}"
    head = record.head(f"python -m studies.pythae run {options}", 0)
    head["versions"]["pythae"] = record.version("pythae")
    command.wrote(record.keep(out / "training.json", {**head, **training.run(epochs, seeds, pictures)}))


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
