"""The table of docs/how-to/pythae.md, from the result."""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks import record
from benchmarks.page import about, fill, ratio, table
from benchmarks.timing import ratios, summary
from studies.pythae.training import KINDS

PAGE = "how-to/pythae.md"


def write(results: Path, docs: Path) -> list[Path]:
    """Replace the table of the page. Returns what was written."""
    return fill(docs / PAGE, {"pythae": losses_and_times(record.read(results / "training.json"))})


def losses_and_times(content: dict[str, Any]) -> str:
    """The loss of the last epoch, mean and standard deviation over the seeds, and the time of an epoch."""
    rows = []
    for case in content["cases"]:
        seconds = {kind: [s for one in runs for s in one["seconds"]] for kind, runs in case["kinds"].items()}
        for kind, runs in case["kinds"].items():
            last = [one["losses"][-1] for one in runs]
            apart = max(
                abs(a - b) / abs(b)
                for one, own in zip(runs, case["kinds"]["own"], strict=True)
                for a, b in zip(one["losses"], own["losses"], strict=True)
            )
            rows.append(
                [
                    f"{case['model']}, batches of {case['batch']}: {KINDS[kind]}",
                    f"{mean(last):.3f} ± {stdev(last):.3f}" if len(last) > 1 else f"{last[0]:.3f}",
                    "" if kind == "own" else f"{apart:.1e}",
                    f"{summary(seconds[kind])['median']:.2f} s",
                    "" if kind == "own" else ratio(ratios(seconds["own"], seconds[kind]), spread=True),
                ]
            )
    heads = [
        f"after {content['epochs']} epochs over {content['pictures']:,} pictures",
        "loss of the last epoch",
        "furthest from its own run, any epoch",
        "an epoch",
        "times as fast (p20 – p80)",
    ]
    load = f"One thread; load average {min(content['load']):.1f} to {max(content['load']):.1f} on the machine."
    return f"{table(heads, rows)}\n\n{load} {about(content)}"
