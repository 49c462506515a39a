"""`python -m benchmarks.reproduce run`: every stage, resumable; `report`: docs/reproduction.md from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.reproduce import experiment
from mow import grid, reproduce
from mow.files import write_whole

RESULTS = Path(__file__).resolve().parents[1] / "results" / "reproduce"
app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The folder of the runs, some 6 MB each.")] = Path("runs/reproduce"),
    pictures: Annotated[int, typer.Option(help="That each run sees.")] = 40_000,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as many as cores by default.")] = None,
    models: Annotated[str, typer.Option(help="By commas, compared in this order.")] = "cwae,wae",
    stage: Annotated[str, typer.Option(help="Go as far as select, compare or variants.")] = "variants",
    variants: Annotated[str, typer.Option(help="By commas, for the first model.")] = ",".join(experiment.VARIANTS),
) -> None:
    """Choose the learning rates, compare k = 1 with k = 64 over three seeds, and try what else helps."""
    chosen_models = tuple(models.split(","))
    file = experiment.selection_data(out / "data" / "selection.npz")
    results = _run(experiment.selection(pictures, file, chosen_models), out, jobs)
    if stage == "select":
        return
    multiples = {(model, k): experiment.chosen(results, model, k) for model in chosen_models for k in (1, 64)}
    typer.echo(f"multiples of the default learning rate: {multiples}")
    _run(experiment.comparison(pictures, multiples, chosen_models), out, jobs)
    if stage == "compare":
        return
    model = chosen_models[0]
    _run(experiment.variants(pictures, multiples[model, 1], model, tuple(variants.split(","))), out, jobs)


def _run(cells: list[grid.Cell], out: Path, jobs: int | None) -> dict[str, dict[str, Any]]:
    """Run cells, and keep what they gave in the repository: without the paths of this machine."""

    def keep(name: str, kind: str, what: Any) -> None:
        if kind != "step":
            typer.echo(f"{kind} {name}" + (f": {what}" if kind == "failed" else ""))

    results = grid.run_cells(cells, out, jobs=jobs, on_event=keep)
    for name, result in results.items():
        RESULTS.mkdir(parents=True, exist_ok=True)
        write_whole(RESULTS / f"{name}.json", json.dumps(reproduce.public(result), indent=1) + "\n")
    return results


if __name__ == "__main__":
    app()
