"""`mow grid` and `mow reproduce`: many runs side by side, with a progress display and a table at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from mow.app import grid, interrupt, paper, reproduce
from mow.app.display import NowAndThen
from mow.files import json_text, write_whole

_Jobs = Annotated[int | None, typer.Option(min=1, help="Runs at a time; by default one on each core.")]


def grid_command(
    assignments: Annotated[
        list[str],
        typer.Argument(
            help="OPTION=VALUE or OPTION=VALUE,VALUE,... with the options of mow train, and pictures=N for the steps "
            "in which N pictures are seen.",
            metavar="OPTION=VALUES...",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder of the grid; goes on with what it holds.")],
    by: Annotated[str, typer.Option(help="The score that the table is sorted by, least first.")] = "test_cost",
    jobs: _Jobs = None,
) -> None:
    """Run every combination of options, e.g. mow grid --out DIR k=1,64 lr=1e-4,1e-3 seed=0,1,2 pictures=60000.

    Writes table.md and results.json. Interrupted or killed, the same command goes on.
    """
    console = Console()
    cells = grid.cells(grid.parse(assignments))
    results = _run(console, cells, out, jobs)
    write_whole(out / "results.json", json_text(list(results.values()), indent=1) + "\n")
    table = grid.table(list(results.values()), by)
    write_whole(out / "table.md", table + "\n")
    print(table)
    _end(console, len(results), len(cells), out / "table.md")


def reproduce_command(
    what: Annotated[str, typer.Argument(help=f"One of {', '.join(reproduce.WHAT)}.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder of the runs (default: runs/WHAT-scale-SCALE or -epochs-EPOCHS).")
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="The share of the paper's epochs that is run (default: 1).")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Passes over the data in place of a share of the paper's.")
    ] = None,
    models: Annotated[str | None, typer.Option(help="Of the table's, by commas.")] = None,
    k: Annotated[str, typer.Option(help="Of 64, 32 and 1, by commas.")] = "64,32,1",
    recipes: Annotated[str, typer.Option(help="published: the public code's; ours: the defaults of mow train.")] = (
        ",".join(paper.RECIPES)
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each cell.")] = 1,
    architecture: Annotated[
        str | None, typer.Option(help="mnist for one that a CPU can train (default: the paper's for the data set).")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option(help="NAME=PATH: read this data set from there, e.g. mnist=digits.npz.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the data sets lie; else as for mow train.")] = None,
    download: Annotated[bool, typer.Option("--download", help="Download a data set if it is nowhere.")] = False,
    device: Annotated[str | None, typer.Option(help="Default: cuda if there is one, else cpu.")] = None,
    compile: Annotated[bool, typer.Option("--compile", help="The whole step of each run by torch.compile.")] = False,
    jobs: _Jobs = None,
) -> None:
    """Run a table of the paper again, and write report.md and report.json with its figures beside ours.

    Interrupted or killed, the same command goes on. fig3, fig4 and fig5 draw the scores of tables 1, 2 and 3 during
    training; with --out of a table that was run they need no runs of their own.
    """
    console = Console()
    sources = dict(_source(word) for word in data or ())
    try:
        ks = [int(word) for word in k.split(",")]
    except ValueError:
        raise ValueError(f"k is {k!r}; it must be of {', '.join(map(str, paper.KS))}, by commas") from None
    cells, missing = reproduce.cells(
        what,
        scale,
        epochs=epochs,
        models=None if models is None else models.split(","),
        ks=ks,
        recipes=recipes.split(","),
        seeds=range(seeds),
        architecture=architecture,
        sources=sources,
        **({} if data_dir is None else {"data_dir": str(data_dir)}),
        **({"download": True} if download else {}),
        **({"compile": True} if compile else {}),
        device=device,
    )
    for name, why in missing.items():
        console.print(f"[yellow]without {name}[/]: {escape(why)}", soft_wrap=True)
    length = f"scale-{1.0 if scale is None else scale:g}" if epochs is None else f"epochs-{epochs:g}"
    out = Path("runs") / f"{what}-{length}" if out is None else out
    results = _run(console, cells, out, jobs)
    path = reproduce.write(out, reproduce.report(what, results, missing, out))
    _end(console, len(results), len(cells), path)


def _source(word: str) -> tuple[str, str]:
    name, equals, path = word.partition("=")
    if not equals or name not in paper.SCHEDULES:
        raise ValueError(f"data is {word!r}; it must be NAME=PATH with NAME one of {', '.join(paper.SCHEDULES)}")
    return name, path


def _end(console: Console, done: int, wanted: int, path: Path) -> None:
    if done < wanted:
        console.print(f"[red]{wanted - done} of {wanted} runs failed[/]: the same command tries them again")
    console.print(f"[bold green]done[/]: {escape(str(path))}", soft_wrap=True)
    if done < wanted:
        raise typer.Exit(1)


def _run(console: Console, cells: list[grid.Cell], out: Path, jobs: int | None) -> dict[str, dict[str, Any]]:
    """Run the cells under a bar for the grid and one for each that is running; without a terminal with lines."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    finished = sum(grid.result_of(out / cell.name) is not None for cell in cells)
    lines = None if console.is_terminal else NowAndThen()
    shares: dict[str, float] = {}

    def counted() -> str:
        return f"{finished:,} of {len(cells):,} runs are finished"

    with (
        interrupt.telling(lambda: f"the same command goes on; {counted()} in {out}"),
        Progress(*columns, console=console, refresh_per_second=4, disable=lines is not None) as progress,
    ):
        whole = progress.add_task(f"[bold]{len(cells)} runs[/]", total=len(cells), completed=finished)
        bars: dict[str, TaskID] = {}

        def on_event(name: str, kind: str, what: Any) -> None:
            nonlocal finished
            if kind == "warned":
                console.print(escape(what), soft_wrap=True)
                return
            if kind == "start":
                bars[name] = progress.add_task(escape(name), total=None)
            elif kind == "step":
                shares[name] = what[0] / what[1]
                progress.update(bars[name], completed=what[0], total=what[1])
            else:
                shares.pop(name, None)
                finished += kind == "done"
                progress.remove_task(bars[name])
                progress.advance(whole, kind == "done")
                if kind == "failed":
                    console.print(f"[red]failed[/] {escape(name)}: {escape(what)}", soft_wrap=True)
            if lines is not None and lines.due():
                running = ", ".join(f"{each} at {share:.0%}" for each, share in shares.items())
                print(f"{counted()}{running and f'; {running}'}", file=console.file, flush=True)

        return grid.run_cells(cells, out, jobs=jobs, on_event=on_event)
