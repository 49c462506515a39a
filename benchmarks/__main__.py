"""python -m benchmarks run | report | against"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import ROOT, against, command, page, record, report, runner
from benchmarks.candidates import OURS
from benchmarks.cases import SEED

app = command.new(__doc__)
console = Console()


@app.command()
def run(
    quick: Annotated[bool, typer.Option("--quick", help="A first impression, in under two minutes.")] = False,
    cases: Annotated[
        list[str] | None, typer.Option(help="Only these jobs, e.g. 'mmd-*' or 'step-*'; may be given several times.")
    ] = None,
    show: Annotated[bool, typer.Option("--list", help="Name the jobs, and measure nothing.")] = False,
    out: Annotated[Path, typer.Option(help="The folder that the record is written to.")] = record.RESULTS,
) -> None:
    """Measure, and write one new JSON file."""
    warnings.simplefilter("ignore")  # of the compilers, between the figures
    jobs = runner.plan(quick, cases or ())
    if show:
        for name in dict.fromkeys(job.name for job in jobs):
            console.print(name, highlight=False)
        return
    if (load := os.getloadavg()[0]) > 0.5:
        console.print(
            f"[yellow]The machine is busy[/] (load average {load:.1f}): the figures will say so, and little else."
        )
    content = {**record.head(_command(), SEED), "cases": [], "steps": [], "windows": [], "memory": [], "failed": []}
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=len(jobs))
        for job in jobs:
            progress.update(task, description=job.name)
            try:
                entry = job.run()
                content[job.section].append(entry)
                console.print(_line(job.section, entry), highlight=False, soft_wrap=True)
            except Exception as error:  # one job, not the run
                content["failed"].append({"name": job.name, "reason": f"{type(error).__name__}: {error}"})
                console.print(
                    f"[bold]{job.name}[/] [bold red]failed[/]: {escape(str(error))}", highlight=False, soft_wrap=True
                )
            progress.advance(task)
    console.print(f"[bold green]done[/]: {record.write(content, out)}", soft_wrap=True)


@app.command(name="report")
def make_report(
    json: Annotated[Path | None, typer.Option(help="The record (default: the newest).")] = None,
    docs: Annotated[Path, typer.Option(help="The folder of the page.")] = page.DOCS,
    summary: Annotated[
        Path | None, typer.Option(help="The page whose table is replaced (default, with our docs: docs/speed.md).")
    ] = None,
) -> None:
    """Make the tables and plots in docs/, and the table of docs/speed.md, from a record."""
    if summary is None and docs == page.DOCS:
        summary = page.SPEED
    command.wrote(*report.write_report(json or record.newest(), docs, summary))


@app.command(name="against")
def compare_checkouts(
    other: Annotated[Path, typer.Argument(help="Another checkout, its native library built in place.")],
    rounds: Annotated[int, typer.Option(min=1, help="How often each case is timed in both.")] = 15,
) -> None:
    """Time this checkout's distances against another's, by turns; below 1, this one is faster."""
    print(page.row(["value and gradient", "times the other", "p20", "p80"]))
    print("|---|---:|---:|---:|")
    try:
        for case, ratios in against.measure(ROOT, other, rounds):
            print(page.row(against.line(case, ratios)), flush=True)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _line(section: str, entry: dict) -> str:
    """What a finished job is told as."""
    by_name = {row["name"]: row for row in entry["candidates"]}
    ours, head = by_name["running" if section == "windows" else OURS], f"[bold]{entry['name']:<24}[/]"
    if section == "memory":
        size = "-" if "extra_mib" not in ours else f"{ours['extra_mib']:.0f} MiB extra"
        return f"{head} {size}  {escape(ours.get('reason', ''))}"
    head += f" {entry['threads']} thread{'s' * (entry['threads'] != 1)}  "
    if ours["status"] != "measured":
        return f"{head}[yellow]{OURS}: {escape(ours['reason'])}[/]"
    head += f"{ours['us']['median']:>9,.0f} us  "
    if section == "steps":
        return f"{head}{ours['cost']['empty']['median']:.3f}x the empty step"
    speedups = (f"{ratio['median']:.3g}x {name}" for name, ratio in ours["speedup"].items())
    if section == "windows":
        return f"{head}[green]{', '.join(speedups)}[/]"
    if not ours["match"]["ok"]:
        return f"{head}[bold red]does not match the reference: {ours['match']['errors']}[/]"
    costs = (f"{cost['median']:.3g}x {floor}" for floor, cost in ours["cost"].items())
    return f"{head}[green]{', '.join(speedups)}[/]; costs {', '.join(costs)}"


def _command() -> str:
    return shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])


def main() -> None:
    try:
        app()
    except (ValueError, OSError) as error:
        Console(stderr=True).print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
