"""What a person sees of a training: a bar on a terminal or in a notebook, elsewhere a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from mow.training.history import Callback, Record

SECONDS_BETWEEN_LINES = 10.0
"""Where there is no terminal."""


@contextmanager
def shown(progress: bool | None, steps: int, done: Callable[[], int]) -> Iterator[Callback]:
    """Inside, a training is shown on stderr; what it gives takes the records.

    Args:
        progress: None for a bar in a notebook, or on a terminal where rich is installed, and else nothing; with True
            there are lines in place of the bar.
        steps: in all.
        done: how many are done by now. The bar asks as often as it is drawn, so that a step pays nothing for it.
    """
    if progress is not False and (display := _notebook_display()) is not None:
        yield NotebookBar(steps, done(), display)
        return
    bar = None if progress is False else _bar(steps, done)
    if bar is not None:
        with bar:
            yield bar.told
    elif progress:
        yield Lines(steps, sys.stderr, SECONDS_BETWEEN_LINES)
    else:
        yield lambda record: None


def summary(record: Record) -> str:
    """The measured values of a record, in words.

    >>> summary({"step": 3, "pictures": 3, "loss": 2.5, "reconstruction": 2.0, "distance": 0.25})
    'loss 2.5  reconstruction 2  distance 0.25'
    """
    counts = ("step", "pictures")
    return "  ".join(
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in record.items()
        if name not in counts and value is not None
    )


class Lines:
    """Records as lines without control characters: the first, the last, those of a test, and one every so often.

    Args:
        steps: of the training.
        file: to write to.
        seconds: between the others.
    """

    def __init__(self, steps: int, file: IO[str], seconds: float) -> None:
        self._steps, self._file, self._seconds = steps, file, seconds
        self._last = float("-inf")

    def __call__(self, record: Record) -> None:
        tested = any(name.startswith("test_") for name in record)
        now = time.monotonic()
        if tested or record["step"] == self._steps or now - self._last >= self._seconds:
            self._last = now
            print(f"step {record['step']:,} of {self._steps:,}  {summary(record)}", file=self._file, flush=True)


class NotebookBar:
    """A bar under a notebook's cell, which HTML alone draws: rich's own needs ipywidgets there.

    Args:
        steps: in all.
        done: how many are done by now.
        display: IPython's; takes HTML, and gives a handle that replaces it.
    """

    SECONDS = 0.25
    """Between two drawings; a last step is always drawn."""

    def __init__(self, steps: int, done: int, display: Callable[[str], Callable[[str], object]]) -> None:
        self._steps, self._drawn = steps, float("-inf")
        self._update = display(self._html(done, ""))

    def __call__(self, record: Record) -> None:
        now = time.monotonic()
        if record["step"] == self._steps or now - self._drawn >= self.SECONDS:
            self._drawn = now
            self._update(self._html(record["step"], summary(record)))

    def _html(self, step: int, values: str) -> str:
        bar = f'<progress value="{step}" max="{self._steps}" style="width: 20em"></progress>'
        return f"{bar} <code>{step:,}/{self._steps:,}  {values}</code>"


def _notebook_display() -> Callable[[str], Callable[[str], object]] | None:
    """Draws HTML under the cell of the notebook that this process serves, and gives what replaces it; else None."""
    ipython = sys.modules.get("IPython")
    if ipython is None or not hasattr(ipython.get_ipython(), "kernel"):  # which the shell of a terminal has not
        return None
    shown = ipython.display

    def display(html: str) -> Callable[[str], object]:
        handle = shown.display(shown.HTML(html), display_id=True)
        return lambda later: handle.update(shown.HTML(later))

    return display


def _bar(steps: int, done: Callable[[], int]) -> Any:
    """A bar of rich on a terminal, or None where there is none to be had."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ModuleNotFoundError:
        return None
    console = Console(stderr=True)
    if not console.is_terminal:
        return None

    class Bar(Progress):
        """Asks how many steps are done whenever it is drawn."""

        def __init__(self) -> None:
            columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[values]}")
            super().__init__(*columns, console=console, refresh_per_second=4)
            self.task = self.add_task("", total=steps, completed=done(), values="")

        def get_renderables(self) -> Any:
            for task in self.tasks:
                self.update(task.id, completed=done())
            return super().get_renderables()

        def told(self, record: Record) -> None:
            self.update(self.task, values=summary(record))

    return Bar()
