"""Behind docs/cuda.md: python -m studies.cuda run | report"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import command, page, record
from studies.cuda import compiler, floors

app = command.new(__doc__)

RESULTS, PAGE = Path(__file__).parent / "results", "cuda.md"


@app.command()
def run() -> None:
    """Compile for every architecture, which takes nvcc and some minutes, and keep what ptxas says."""
    command.wrote(record.keep(RESULTS / "compiler.json", compiler.compile_all()))


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the table of the page. Returns what was written."""
    found = json.loads((results / "compiler.json").read_text())
    return page.fill(docs / PAGE, {"cuda_static": compiler.tables(found), "cuda_floors": floors.table()})


command.add_report(app, write, RESULTS)

if __name__ == "__main__":
    app()
