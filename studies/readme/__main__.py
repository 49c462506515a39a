"""Behind the README and the gallery: python -m studies.readme RUN puts a run of `make demo` there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import command, page
from mow.app import evaluation
from mow.app.run import Run
from mow.files import read_json_lines

app = command.new(__doc__)


def table(run: Run) -> str:
    """The scores of a run before and after training."""
    scores = [line for line in read_json_lines(run.out / "metrics.jsonl") if "test_cramer_wold" in line]
    first, last = scores[0], scores[-1]
    mean_picture = evaluation.mean_picture_error(run.source.train, run.source.test)
    options = run.options
    return f"""\
The run above: {run.source.origin.split(", found")[0]}, n = {options.n}, k = {options.k}, {last["step"]:,} steps, seed \
{options.seed}, PyTorch {torch.__version__.split("+")[0]}.

| on the test pictures | at initialisation | after training | predicting the mean picture |
|---|---|---|---|
| reconstruction error (sum of squares a picture) | {first["test_reconstruction"]:.1f} \
| {last["test_reconstruction"]:.1f} | {mean_picture:.1f} |
| exact Cramer-Wold distance of 2,000 latents to N(0, I) | {first["test_cramer_wold"]:.4f} \
| {last["test_cramer_wold"]:.4f} | |"""


@app.command()
def keep(folder: Annotated[Path, typer.Argument(help="A run of `make demo`.")]) -> None:
    """Put a run, its pictures and its scores, into the README and docs/gallery.md."""
    for name in ("reconstructions", "samples", "interpolations"):
        shutil.copyfile(folder / f"{name}.png", page.DOCS / "images" / f"demo-{name}.png")
    command.wrote(*page.fill(page.README, {"demo": table(Run.load(folder))}))


if __name__ == "__main__":
    app()
