"""How many steps a GAN needs at each batch size, measured on real pictures: what `mow critical-batch` does.

The pictures are averaged down to 7 x 7, the networks are small, and quality is the Frechet distance between generated
and real pictures on 16 principal components, so that ten batch sizes with several seeds take minutes on one core.
"""

from __future__ import annotations

import io
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from mow.app import data, interrupt
from mow.app.data import PictureData
from mow.app.display import tracked
from mow.app.evaluation import frechet_distance
from mow.app.models import mlp
from mow.files import append_json_line, read_json_lines, write_whole
from mow.neighbours.critical_batch import CriticalBatch, LawFit, fit_critical_batch
from mow.neighbours.gan import GANTrainer
from mow.training.stream import ShuffledStream, to_unit_range

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BATCHES = tuple(2**i for i in range(10))
THRESHOLD, EVERY, LIMIT = 4.0, 10, 20_000
"""A distance that all batch sizes reach; steps between evaluations, and before a run gives up."""

SIDE, COMPONENTS, LATENT, WIDTH = 7, 16, 32, 128
GENERATED = 2000
"""Pictures that an evaluation generates, from the same prior samples each time."""


class Task:
    """The pictures and how far generated ones are from them.

    Args:
        source: grey pictures.
    """

    def __init__(self, source: PictureData) -> None:
        pictures = to_unit_range(source.train[:]).mean(1, keepdim=True)
        self.pictures = 2 * adaptive_avg_pool2d(pictures, SIDE).flatten(1) - 1
        self._mean = self.pictures.mean(0)
        _, vectors = torch.linalg.eigh(torch.cov(self.pictures.T.double()))
        self._components = vectors[:, -COMPONENTS:].to(self.pictures)
        self._real = self._project(self.pictures)

    def distance(self, pictures: Tensor) -> float:
        """Squared Frechet distance of pictures [N, 49] to the real ones, on the principal components of those."""
        return frechet_distance(self._project(pictures), self._real)

    def _project(self, pictures: Tensor) -> Tensor:
        return (pictures - self._mean) @ self._components


def networks(seed: int) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator of pictures [k, 49] in [-1, 1]."""
    torch.manual_seed(seed)
    leaky = partial(nn.LeakyReLU, 0.2)
    generator = nn.Sequential(mlp(LATENT, WIDTH, WIDTH, SIDE**2, activation=leaky), nn.Tanh())
    return generator, mlp(SIDE**2, WIDTH, WIDTH, 1, activation=leaky)


def measure(
    task: Task, batch: int, seed: int, *, threshold: float = THRESHOLD, every: int = EVERY, limit: int = LIMIT
) -> dict[str, Any]:
    """Train at one batch size until the distance is at most the threshold.

    Args:
        threshold: of `Task.distance`.
        every: steps between evaluations.
        limit: steps after which to give up.

    Returns:
        batch, seed, threshold, every, limit; steps, of the first evaluation at or below the threshold, or None; curve,
        the distance at every evaluation; seconds.
    """
    began = time.perf_counter()
    trainer = GANTrainer(*networks(seed), LATENT, lr_discriminator=3e-4, lr_generator=1e-4, seed=seed)
    stream = ShuffledStream(task.pictures, seed)
    curve: list[float] = []
    for step in range(1, limit + 1):
        trainer.step(stream.take(batch))
        if step % every == 0:
            curve.append(round(task.distance(trainer.sample(GENERATED)), 4))
            if curve[-1] <= threshold:
                break
    reached = bool(curve) and curve[-1] <= threshold
    return {
        "batch": batch,
        "seed": seed,
        "threshold": threshold,
        "every": every,
        "limit": limit,
        "steps": len(curve) * every if reached else None,
        "curve": curve,
        "seconds": round(time.perf_counter() - began, 2),
    }


def command(
    out: Annotated[Path, typer.Option(help="The folder of the measurements and of the picture.")] = Path(
        "runs/critical-batch"
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Runs at each batch size.")] = 3,
    largest: Annotated[int, typer.Option(min=4, help="Batch sizes are the powers of 2 up to this one.")] = BATCHES[-1],
    threshold: Annotated[float, typer.Option(help="Of the Frechet distance, 19 without training.")] = THRESHOLD,
    limit: Annotated[int, typer.Option(min=1, help="Steps after which a run gives up.")] = LIMIT,
    data_dir: Annotated[Path | None, typer.Option(help="Where Fashion-MNIST lies; else as for mow train.")] = None,
) -> None:
    """Measure the critical batch size of a GAN on Fashion-MNIST, and draw both laws through the measurements.

    Goes on with the measurements that the folder holds already. Three seeds take about a minute.
    """
    console = Console()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    source = data.load("fashion-mnist", data_dir=data_dir)
    task = Task(source)
    out.mkdir(parents=True, exist_ok=True)
    path = out / "measurements.jsonl"
    measured = read_json_lines(path)
    wanted = {"threshold": threshold, "every": EVERY, "limit": limit, "data": len(source.train)}
    measured = [line for line in measured if wanted.items() <= line.items()]
    done = {(line["batch"], line["seed"]) for line in measured}
    batches = [2**i for i in range(largest.bit_length())]
    jobs = [(batch, seed) for seed in range(seeds) for batch in batches if (batch, seed) not in done]
    console.print(f"steps to a Frechet distance of {threshold:g} on {source.origin}", soft_wrap=True, highlight=False)
    whole, before = seeds * len(batches), len(measured) + len(jobs)

    def kept() -> str:
        return f"{whole - before + len(measured)} of {whole} measurements are in {path}"

    with interrupt.telling(lambda: f"the same command goes on; {kept()}"):
        for batch, seed in tracked(jobs, "measuring", len(jobs), console.file):
            line = {**measure(task, batch, seed, threshold=threshold, limit=limit), "data": len(source.train)}
            append_json_line(path, line)
            measured.append(line)
    reached = [line for line in measured if line["steps"] is not None and line["batch"] <= largest]
    if missed := [(line["batch"], line["seed"]) for line in measured if line["steps"] is None]:
        console.print(f"not reached within {limit:,} steps, and left out: (batch, seed) = {missed}", soft_wrap=True)
    result = fit_critical_batch([line["batch"] for line in reached], [line["steps"] for line in reached])
    print(result)
    content = io.BytesIO()
    draw(result).savefig(content, format="png", dpi=150)
    console.print(f"[bold green]done[/]: {write_whole(out / 'critical-batch.png', content.getvalue())}", soft_wrap=True)


_COLOURS = {"hyperbola": "#b2182b", "noise scale": "#00695c"}


def draw(result: CriticalBatch) -> Figure:
    """Steps, samples and the residuals of both laws over the batch size."""
    import matplotlib  # here and not above: the command line should not wait for it
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12, 3.8), facecolor="white", layout="constrained")
        steps, samples, residuals = figure.subplots(1, 3)
        b = _between(result.batch_sizes)
        _scatter(steps, result.batch_sizes, result.steps)
        _scatter(samples, result.batch_sizes, result.samples)
        for i, fit in enumerate(result.fits):
            colour = _COLOURS[fit.law.name]
            steps.plot(b, fit.steps(b), color=colour, label=_label(fit))
            samples.plot(b, fit.samples(b), color=colour)
            beside = result.batch_sizes * 1.08 ** (2 * i - 1)
            residuals.plot(beside, fit.residuals, "o", color=colour, markersize=3.5, alpha=0.6)
        residuals.axhline(0, color="#777777", linewidth=0.8)
        for panel, title in ((steps, "steps K to the quality"), (samples, "samples K b")):
            panel.set(title=title, yscale="log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        residuals.set(title="residuals, ln(measured / fitted)")
        steps.legend(frameon=False, fontsize=8)
        ticks = result.batch_sizes.unique().tolist()
        for panel in (steps, samples, residuals):
            panel.set_xscale("log")
            panel.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            panel.minorticks_off()
            panel.set_xlabel("batch size b")
            panel.grid(which="major", color="#e6e6e6", linewidth=0.8)
            panel.set_axisbelow(True)
    return figure


def _between(b: Tensor) -> Tensor:
    return torch.logspace(float(b.min().log10()), float(b.max().log10()), 300, dtype=torch.float64)


def _scatter(panel: Axes, b: Tensor, values: Tensor) -> None:
    panel.plot(b, values, "o", color="#333333", markersize=3.5, alpha=0.5)


def _label(fit: LawFit) -> str:
    name = "b*" if fit.law.name == "hyperbola" else "B_c"
    return f"{fit.law.name}: {name} = {fit.critical_batch:.3g}, rms {fit.rms:.2f}"
