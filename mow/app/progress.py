"""What `mow train` shows of a run on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from mow.app.run import Run
from mow.files import number_text
from mow.training.progress import SECONDS_BETWEEN_LINES, Lines


def train_and_show(run: Run, console: Console) -> None:
    """Train with a progress bar, or where there is no terminal a line now and then; and a line for each evaluation."""
    if run.ranks.rank > 0:
        return run.train()
    options = run.options
    console.print(f"[bold]{options.model}[/] on {escape(run.source.origin)}", soft_wrap=True)
    weighting = f"{options.weighting} weighting"
    console.print(
        f"n = {options.n}, k = {options.k}, {options.steps:,} steps, {weighting}, into {escape(str(run.out))}",
        soft_wrap=True,
    )
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}", style="cyan"),
    )
    lines = None if console.is_terminal else Lines(options.steps, console.file, SECONDS_BETWEEN_LINES)
    with Progress(*columns, console=console, refresh_per_second=4, disable=lines is not None) as progress:
        task = progress.add_task("", total=options.steps, completed=run.trainer.steps_done, losses="")

        compiled, seconds = run.trainer.compiled, 0.0

        def on_step(step: int, record: dict[str, Any] | None) -> None:
            nonlocal seconds
            if compiled is not None and compiled.seconds != seconds:
                console.print(f"step {step:>9,}   compiled in {compiled.seconds - seconds:.0f} s")
                seconds = compiled.seconds
            if record is None:
                return
            reconstruction = number_text(record["reconstruction"], ".1f")
            distance = number_text(record["distance"], ".4f")
            losses = f"reconstruction {reconstruction}  distance {distance}"
            progress.update(task, completed=step, losses=losses)
            if lines is not None:
                lines({name: record[name] for name in ("step", "reconstruction", "distance")})
            if "test_reconstruction" in record:
                console.print(
                    f"step {step:>9,}   test reconstruction {number_text(record['test_reconstruction'], '7.2f')}   "
                    f"test Cramer-Wold {number_text(record['test_cramer_wold'], '.5f')}"
                )

        run.train(on_step)
    console.print(f"[bold green]done[/]: open {escape(str(run.out / 'report.html'))}", soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} steps/s" if task.speed else "-", style="green")
