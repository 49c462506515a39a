"""Behind docs/core-sets.md: python -m studies.core_sets run | train | keep | report"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks import command, record
from studies import demo_runs
from studies.core_sets import anomaly, energy, gan, report, speed

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"
PARTS = {"speed": speed, "anomaly": anomaly}
TRAINED = {"gan": gan, "energy": energy}


@app.command()
def run(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; default: all.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Measure on one thread, and write a JSON file for each part; takes some ten minutes."""
    for part in parts or PARTS:
        head = record.head(f"python -m studies.core_sets run {part}", 0)
        command.wrote(record.keep(out / f"{part}.json", {**head, **PARTS[part].run()}))


@app.command()
def train(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(TRAINED)}; default: all.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
) -> None:
    """Train Small-GAN's two models on one thread, each run kept as it ends; the same command goes on where it was."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    for part in parts or TRAINED:
        path, study = out / f"{part}.json", TRAINED[part]
        task = study.Task()
        about = {**task.about, "settings": study.SETTINGS}
        done: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        runs = done["runs"] if {name: done.get(name) for name in about} == about else []
        for cell in study.CELLS[len(runs) :]:
            runs.append({**cell, **task.run(**cell)})
            head = record.head(f"python -m studies.core_sets train {part}", 0)
            record.keep(path, {**head, **about, "runs": runs})
            typer.echo(f"{len(runs)} of {len(study.CELLS)}: {json.dumps(runs[-1])}")


demo_runs.add_keep(app, "coreset", RESULTS)
command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
