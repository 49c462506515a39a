"""pythae's own training runs beside those with our MMD: losses and times, for docs/how-to/pythae.md.

python -m benchmarks.pythae_training run | report
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import random
import tempfile
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor

from benchmarks import record
from benchmarks.coresets.report import _how, splice
from benchmarks.report import _ratio, table
from benchmarks.timing import ratios, summary
from mow.app import data
from mow.app.files import write_whole
from mow.training.stream import to_unit_range

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
console = Console()

RESULT = record.RESULTS / "clients" / "pythae.json"  # record.RESULTS itself is for runs of the distances
PAGE = record.ROOT / "docs" / "how-to" / "pythae.md"
MODELS, BATCHES, DIM = ("WAE_MMD", "INFOVAE_MMD"), (64, 256), 16
KINDS = {
    "own": "pythae's own",
    "drawn": "ours, the prior drawn as there",
    "closed": "ours, the prior in closed form",
}


class Entrant:
    """A model in pythae's own trainer, with random numbers of its own, so that the three see the same draws."""

    def __init__(self, kind: str, name: str, x: Tensor, batch: int, seed: int, folder: str) -> None:
        import pythae.models
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        from mow.adapters import pythae as ours

        torch.manual_seed(seed)
        config = getattr(pythae.models, f"{name}_Config")(input_dim=tuple(x.shape[1:]), latent_dim=DIM)
        options = {"own": {}, "drawn": {"closed_form": False}, "closed": {}}[kind]
        model = getattr(pythae.models if kind == "own" else ours, name)(config, **options)
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=batch,
            learning_rate=1e-3,
            seed=seed,
            no_cuda=True,
        )
        self.trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=training, callbacks=[])
        self.trainer.prepare_training()
        self.random = torch.get_rng_state()
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def epoch(self) -> None:
        torch.set_rng_state(self.random)
        start = time.perf_counter()
        loss = self.trainer.train_step(len(self.losses) + 1)
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(float(loss))
        self.random = torch.get_rng_state()


@app.command()
def run(
    epochs: Annotated[int, typer.Option(help="Of each run.")] = 5,
    seeds: Annotated[int, typer.Option(help="Runs of each kind.")] = 3,
    pictures: Annotated[int, typer.Option(help="Of the training pictures.")] = 10_000,
    out: Annotated[Path, typer.Option(help="The file of the result.")] = RESULT,
) -> None:
    """Train on one thread, the kinds epoch by epoch in turn; takes some ten minutes."""
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    source = data.load("fashion-mnist")
    x, cases, loads = to_unit_range(source.train[:pictures]), [], []
    for name in MODELS:
        for batch in BATCHES:
            case: dict[str, Any] = {"model": name, "batch": batch, "kinds": {kind: [] for kind in KINDS}}
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder:
                    entrants = {kind: Entrant(kind, name, x, batch, seed, folder) for kind in KINDS}
                    for _ in range(epochs):
                        for entrant in random.sample(list(entrants.values()), len(entrants)):
                            entrant.epoch()
                for kind, entrant in entrants.items():
                    case["kinds"][kind].append({"losses": entrant.losses, "seconds": entrant.seconds})
            cases.append(case)
            loads.append(os.getloadavg()[0])
            console.print(f"[green]done[/]: {name}, batches of {batch}")
    options = f"--epochs {epochs} --seeds {seeds} --pictures {pictures}"
    head = record.head(f"python -m benchmarks.pythae_training run {options}", 0)
    head["versions"]["pythae"] = importlib.metadata.version("pythae")
    content = {**head, "load": loads, "pictures": pictures, "data": source.origin, "epochs": epochs, "cases": cases}
    out.parent.mkdir(parents=True, exist_ok=True)
    console.print(write_whole(out, json.dumps(content, indent=1) + "\n"), soft_wrap=True)


@app.command()
def report(
    result: Annotated[Path, typer.Option(help="What `run` wrote.")] = RESULT,
    page: Annotated[Path, typer.Option(help="The page whose table is replaced.")] = PAGE,
) -> None:
    """Make the table of docs/how-to/pythae.md from the result."""
    console.print(
        write_whole(page, splice(page.read_text(), "pythae", losses_and_times(record.read(result)))), soft_wrap=True
    )


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
                    "" if kind == "own" else _ratio(ratios(seconds["own"], seconds[kind]), spread=True),
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
    return f"{table(heads, rows)}\n\n{load} {_how(content)}"


if __name__ == "__main__":
    app()
