"""Behind docs/larger-windows.md: python -m studies.larger_windows run | adapt | constant | remedies | cost | report"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import typer

from benchmarks import command, record
from mow.app import grid, reproduce
from mow.window.adaptive import AdaptiveSpan
from studies import collected
from studies.larger_windows import adaptive, experiment, remedies, report
from studies.larger_windows import cost as measured

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The folder of the runs.")] = Path("runs/larger-windows"),
    pictures: Annotated[int, typer.Option(help="That each run sees.")] = 60_000,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as many as cores by default.")] = None,
) -> None:
    """Train, go on where it was interrupted, and keep the scores in the repository."""
    found = grid.run_cells(experiment.cells(pictures), out, jobs=jobs, on_event=command.tell)
    content = record.head("python -m studies.larger_windows run", 0)
    content["runs"] = [reproduce.public(found[name]) for name in sorted(found)]
    command.wrote(record.keep(RESULTS / "scores.json", content))


@app.command()
def adapt(
    out: Annotated[Path, typer.Option(help="The folder of the runs.")] = Path("runs/adaptive-windows"),
    pictures: Annotated[int, typer.Option(help="That each run sees.")] = 18_000,
    minutes: Annotated[float, typer.Option(help="Begin no run after these; 0 keeps what is there.")] = math.inf,
) -> None:
    """The span that adapts against fixed windows, one run after another; goes on where it was interrupted.

    What decides most comes first. MNIST is looked for where `mow train --data mnist` does (MOW_DATA).
    """
    file = RESULTS / "adaptive.json"
    found = _run(
        adaptive.cells(pictures), out, minutes, file, lambda cell, at: adaptive.kept(grid.run_cell(cell, at), at)
    )
    content = record.head("python -m studies.larger_windows adapt", 0)
    command.wrote(record.keep(file, {**content, "runs": found}))


@app.command()
def constant(
    out: Annotated[Path, typer.Option(help="The folder of the runs.")] = Path("runs/adaptive-staleness"),
    staleness: Annotated[float, typer.Option(help="The constant of the rule in place of its default.")] = 1.0,
    pictures: Annotated[int, typer.Option(help="That each run sees.")] = 18_000,
    minutes: Annotated[float, typer.Option(help="Begin no run after these; 0 keeps what is there.")] = math.inf,
) -> None:
    """The span that adapts with another constant, of all runs that `adapt` has of it with a cosine."""
    begin = functools.partial(AdaptiveSpan, staleness=staleness)
    cells = [cell for cell in adaptive.cells(pictures) if cell.options.adaptive and cell.options.schedule == "cosine"]
    file = RESULTS / "staleness.json"
    with mock.patch("mow.app.run.AdaptiveSpan", begin):  # the command line has no option for it
        found = _run(cells, out, minutes, file, lambda cell, at: reproduce.public(grid.run_cell(cell, at)))
    content = record.head("python -m studies.larger_windows constant", 0)
    command.wrote(record.keep(file, {**content, "staleness": staleness, "runs": found}))


@app.command("remedies")
def remedies_command(
    out: Annotated[Path, typer.Option(help="The folder of the runs.")] = Path("runs/remedies"),
    pictures: Annotated[int, typer.Option(help="That each run sees.")] = 18_000,
    minutes: Annotated[float, typer.Option(help="Begin no run after these; 0 keeps what is there.")] = math.inf,
) -> None:
    """What others do about old rows: a momentum encoder, and weights by age."""
    remedy = {cell.name: name for name, cell in remedies.cells(pictures)}
    cells = [cell for _, cell in remedies.cells(pictures)]
    file = RESULTS / "remedies.json"
    found = _run(cells, out, minutes, file, lambda cell, at: remedies.run(remedy[cell.name], cell, at))
    content = record.head("python -m studies.larger_windows remedies", 0)
    command.wrote(record.keep(file, {**content, "runs": found}))


@app.command()
def cost(turns: Annotated[int, typer.Option(help="Of each window.")] = 61) -> None:
    """Measure the processor time of a step whose span adapts against one over a window of 64."""
    content = record.head("python -m studies.larger_windows cost", 0)
    command.wrote(record.keep(RESULTS / "cost.json", {**content, "rows": measured.measure(turns=turns)}))


def _run(
    cells: Sequence[grid.Cell],
    out: Path,
    minutes: float,
    file: Path,
    run: Callable[[grid.Cell, Path], dict[str, Any]],
) -> list[dict[str, Any]]:
    """What to keep of these runs, one after another: those that the file has already are not run again, those that
    would begin too late are left out."""
    begun, held, found = time.monotonic(), collected.held(file), []
    for cell in cells:
        folder, earlier = out / cell.name, held.get(cell.name)
        if grid.result_of(folder) is None:
            if earlier is not None and collected.same(earlier, cell.options):
                found.append(earlier)
                continue
            if time.monotonic() - begun >= 60 * minutes:
                continue
        found.append(run(cell, folder))
        command.tell(cell.name, "done", None)
    return found


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
