"""Behind docs/choosing.md: python -m studies.choosing"""

from __future__ import annotations

from pathlib import Path

import typer

from benchmarks import command
from studies.choosing import report

app: typer.Typer = command.new(__doc__)

command.add_report(app, report.write, Path(__file__).parents[1])

if __name__ == "__main__":
    app()
