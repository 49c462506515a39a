"""Behind docs/micro-batches.md: python -m studies.micro_batches keep | report"""

from __future__ import annotations

from pathlib import Path

from benchmarks import command
from studies import demo_runs
from studies.micro_batches import report

app = command.new(__doc__)

RESULTS = Path(__file__).parent / "results"

demo_runs.add_keep(app, "microbatch", RESULTS)
command.add_report(app, report.write, RESULTS)

if __name__ == "__main__":
    app()
