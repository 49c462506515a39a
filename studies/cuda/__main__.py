"""Behind docs/cuda.md: python -m studies.cuda run | errors | report"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks import command, page, record
from studies.cuda import compiler, floors, tensor_cores

app = command.new(__doc__)

RESULTS, PAGE = Path(__file__).parent / "results", "cuda.md"


@app.command()
def run() -> None:
    """Compile for every architecture, which takes nvcc and some minutes, and keep what ptxas says."""
    command.wrote(record.keep(RESULTS / "compiler.json", compiler.compile_all()))


@app.command()
def errors() -> None:
    """Emulate tensor cores, which takes seconds, and keep the errors of what they make."""
    command.wrote(record.keep(RESULTS / "errors.json", tensor_cores.errors()))


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the tables of the page. Returns what was written."""
    found, seen = (json.loads((results / name).read_text()) for name in ("compiler.json", "errors.json"))
    tables = {"cuda_static": compiler.tables(found), "cuda_errors": tensor_cores.table(seen)}
    return page.fill(docs / PAGE, {**tables, "cuda_floors": floors.table()})


command.add_report(app, write, RESULTS)

if __name__ == "__main__":
    app()
