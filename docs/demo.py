"""Puts a run of `make demo` into the README: its pictures, and a table from its files.

python docs/demo.py runs/demo-...
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import torch

from mow.app import evaluation
from mow.app.run import Run

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- demo:start -->", "<!-- demo:end -->"


def table(run: Run) -> str:
    lines = [json.loads(line) for line in (run.out / "metrics.jsonl").read_text().splitlines()]
    scores = [line for line in lines if "test_cramer_wold" in line]
    first, last = scores[0], scores[-1]
    mean_picture = evaluation.mean_picture_error(run.source.train, run.source.test)
    options = run.options
    return f"""
The run above: {run.source.origin.split(", found")[0]}, n = {options.n}, k = {options.k}, {last["step"]:,} steps, seed \
{options.seed}, PyTorch {torch.__version__.split("+")[0]}.

| on the test pictures | at initialisation | after training | predicting the mean picture |
|---|---|---|---|
| reconstruction error (sum of squares a picture) | {first["test_reconstruction"]:.1f} \
| {last["test_reconstruction"]:.1f} | {mean_picture:.1f} |
| exact Cramer-Wold distance of 2,000 latents to N(0, I) | {first["test_cramer_wold"]:.4f} \
| {last["test_cramer_wold"]:.4f} | |
"""


def main(out: Path) -> None:
    run = Run.load(out)
    for name in ("reconstructions", "samples"):
        shutil.copyfile(out / f"{name}.png", ROOT / "docs" / "images" / f"demo-{name}.png")
    readme = (ROOT / "README.md").read_text()
    before, rest = readme.split(START)
    after = rest.split(END)[1]
    (ROOT / "README.md").write_text(f"{before}{START}{table(run)}{END}{after}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
