"""Behind docs/neighbours.md: python -m studies.neighbours run | report"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import command, record
from mow.files import append_json_line, read_json_lines
from studies.neighbours import critical, grid, report, speed, window

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"
PARTS = {"critical": critical, "grid": grid, "window": window, "speed": speed}


@app.command()
def run(
    parts: Annotated[list[str] | None, typer.Argument(help=f"Of {', '.join(PARTS)}; default: all.")] = None,
    out: Annotated[Path, typer.Option(help="The folder of the results.")] = RESULTS,
    only: Annotated[str | None, typer.Option(help="Only jobs with these settings, as JSON, e.g. '{\"k\": 4}'.")] = None,
) -> None:
    """Measure what is not in the results yet, one job after another on one thread, a line of JSON each."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    wanted = json.loads(only or "{}")
    out.mkdir(parents=True, exist_ok=True)
    for part in parts or PARTS:
        path = out / f"{part}.jsonl"
        done = [line["settings"] for line in read_json_lines(path)]
        for settings in PARTS[part].jobs():
            if settings in done or not wanted.items() <= settings.items():
                continue
            wall, cpu = time.perf_counter(), time.process_time()
            result = PARTS[part].run(settings)
            line = {"settings": settings, **result}
            line["wall_seconds"] = round(time.perf_counter() - wall, 2)
            line["cpu_seconds_in_all"] = round(time.process_time() - cpu, 2)
            head = record.head(f"python -m studies.neighbours run {part}", settings["seed"])
            line["on"] = {name: head[name] for name in ("created", "command", "machine", "versions")}
            append_json_line(path, line)
            typer.echo(f"{part} {settings} {line['wall_seconds']} s")


command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
