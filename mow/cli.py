"""The command line: mow train, mow evaluate, mow sample."""

from __future__ import annotations

import dataclasses
import enum
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from mow import data, pictures, trainer
from mow import run as runs
from mow.checkpoint import CheckpointError
from mow.priors import PRIORS
from mow.run import Options, Run

app = typer.Typer(
    help="Training on batches as small as one, for models that compare samples: the moving window.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()


def _one_of(name: str, values: tuple[str, ...]) -> Any:
    return enum.StrEnum(name, {value: value for value in values})


Model = _one_of("Model", runs.MODELS)
OptimizerName = _one_of("OptimizerName", runs.OPTIMIZERS)
Weighting = _one_of("Weighting", trainer.WEIGHTINGS)
PriorName = _one_of("PriorName", ("normal", *PRIORS))
Phi = _one_of("Phi", ("exact", "asymptotic"))

_MODEL, _DISTANCE, _RUN = "Model and training", "Distance", "Run"


@app.command()
def train(
    context: typer.Context,
    model: Annotated[
        Model, typer.Option(help="Cramer-Wold, MMD or sliced-Wasserstein.", rich_help_panel=_MODEL)
    ] = Model(Options.model),
    data: Annotated[
        str,
        typer.Option(help="fashion-mnist, mnist, a folder of pictures, or an .npy/.npz file.", rich_help_panel=_RUN),
    ] = Options.data,
    n: Annotated[int, typer.Option(help="Window size.", rich_help_panel=_MODEL)] = Options.n,
    k: Annotated[
        int, typer.Option(help="New elements a step; n is the classical method.", rich_help_panel=_MODEL)
    ] = Options.k,
    steps: Annotated[int, typer.Option(help="Steps in all.", rich_help_panel=_RUN)] = Options.steps,
    seed: Annotated[int, typer.Option(help="Of weights, order and draws.", rich_help_panel=_RUN)] = Options.seed,
    out: Annotated[Path | None, typer.Option(help="The folder of the run.", rich_help_panel=_RUN)] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with the run in this folder, with all its options; --steps may extend it.", rich_help_panel=_RUN
        ),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            help="Latent width (default: 20 for mnist, 8 for fashion-mnist, else 32).", rich_help_panel=_MODEL
        ),
    ] = Options.dim,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate (default: 1e-3 sqrt(k/64)).", rich_help_panel=_MODEL)
    ] = Options.lr,
    optimizer: Annotated[OptimizerName, typer.Option(rich_help_panel=_MODEL)] = OptimizerName(Options.optimizer),
    weight: Annotated[float, typer.Option(help="Lambda of the distance.", rich_help_panel=_DISTANCE)] = Options.weight,
    weighting: Annotated[
        Weighting,
        typer.Option(help="How the distance is scaled against the reconstruction.", rich_help_panel=_DISTANCE),
    ] = Weighting(Options.weighting),
    log: Annotated[
        bool | None,
        typer.Option(
            "--log/--no-log", help="Logarithm of the distance (default: for cwae).", rich_help_panel=_DISTANCE
        ),
    ] = Options.log,
    prior: Annotated[
        PriorName,
        typer.Option(help="normal is N(0, I) in closed form; the others are sampled.", rich_help_panel=_DISTANCE),
    ] = PriorName(Options.prior),
    phi: Annotated[Phi, typer.Option(help="For cwae.", rich_help_panel=_DISTANCE)] = Phi(Options.phi),
    directions: Annotated[int, typer.Option(help="For swae.", rich_help_panel=_DISTANCE)] = Options.directions,
    reencode: Annotated[
        bool, typer.Option(help="Push latents of the updated encoder, as the paper does.", rich_help_panel=_MODEL)
    ] = Options.reencode,
    warm_up: Annotated[
        bool, typer.Option(help="Fill the window before the first step, as the paper does.", rich_help_panel=_MODEL)
    ] = Options.warm_up,
    root: Annotated[
        bool, typer.Option(help="Root of the reconstruction, as the public code does.", rich_help_panel=_MODEL)
    ] = Options.root,
    size: Annotated[
        int | None, typer.Option(help="Crop and resize a folder's pictures to this size.", rich_help_panel=_RUN)
    ] = Options.size,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where the data set lies; else MOW_DATA and the usual places.", rich_help_panel=_RUN),
    ] = Options.data_dir,
    download: Annotated[
        bool, typer.Option("--download", help="Download the data set if it is nowhere.", rich_help_panel=_RUN)
    ] = Options.download,
    device: Annotated[
        str | None, typer.Option(help="Default: cuda if there is one, else cpu.", rich_help_panel=_RUN)
    ] = Options.device,
    threads: Annotated[int | None, typer.Option(help="Of PyTorch on the CPU.", rich_help_panel=_RUN)] = Options.threads,
    log_every: Annotated[int, typer.Option(help="Steps.", rich_help_panel=_RUN)] = Options.log_every,
    evaluate_every: Annotated[int, typer.Option(help="Steps.", rich_help_panel=_RUN)] = Options.evaluate_every,
    checkpoint_every: Annotated[int, typer.Option(help="Steps.", rich_help_panel=_RUN)] = Options.checkpoint_every,
) -> None:
    """Train an auto-encoder with k new elements a step, compared over a window of n."""
    given = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}  # type: ignore[union-attr]
    with _plain_errors():
        if resume is not None:
            if others := given - {"resume", "steps"}:
                names = ", ".join("--" + name.replace("_", "-") for name in sorted(others))
                raise ValueError(f"--resume restores every option and allows --steps alone beside it, not {names}")
            run = Run.resume(resume, steps if "steps" in given else None)
        elif out is None:
            raise ValueError("--out is missing: name the folder that the run shall be written to (or --resume one)")
        else:
            chosen = {field.name: _plain(context.params[field.name]) for field in dataclasses.fields(Options)}
            run = Run.start(Options(**chosen), out)
        _show(run)


@app.command()
def evaluate(folder: Annotated[Path, typer.Argument(help="The folder of a run.")]) -> None:
    """Score the model of a run on its test pictures, and print the scores as a line of JSON."""
    with _plain_errors():
        run = Run.load(folder)
        print(json.dumps({"step": run.trainer.steps_done, **run.evaluate()}))


@app.command()
def sample(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    out: Annotated[Path, typer.Option(help="The PNG file to write.")],
    count: Annotated[int, typer.Option(min=1)] = 60,
    columns: Annotated[int, typer.Option(min=1)] = 10,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Decode samples of the prior into one picture."""
    with _plain_errors():
        pictures.save_png(pictures.grid(Run.load(folder).sample(count, seed), columns), out)
        console.print(f"{count} samples in {out}")


def _show(run: Run) -> None:
    """Train with a progress bar, and a line for each evaluation."""
    options = run.options
    console.print(f"[bold]{options.model}[/] on {run.source.origin}")
    console.print(
        f"n = {options.n}, k = {options.k}, {options.steps:,} steps, {options.weighting} weighting, into {run.out}"
    )
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[losses]}", style="cyan"),
    )
    with Progress(*columns, console=console, refresh_per_second=4) as progress:
        task = progress.add_task("", total=options.steps, completed=run.trainer.steps_done, losses="")

        def on_step(step: int, record: dict[str, Any] | None) -> None:
            if record is None:
                return
            losses = f"reconstruction {record['reconstruction']:.1f}  distance {record['distance']:.4f}"
            progress.update(task, completed=step, losses=losses)
            if "test_reconstruction" in record:
                console.print(
                    f"step {step:>9,}   test reconstruction {record['test_reconstruction']:7.2f}   "
                    f"test Cramer-Wold {record['test_cramer_wold']:.5f}"
                )

        run.train(on_step)
    console.print(f"[bold green]done[/]: open {run.out / 'report.html'}")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} steps/s" if task.speed else "-", style="green")


class _plain_errors:
    """What a user can mend is told in one line; everything else keeps its traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            console.print("interrupted: --resume goes on from the last checkpoint")
            raise typer.Exit(130) from None
        if isinstance(error, (ValueError, TypeError, OSError)):
            Console(stderr=True).print(f"[bold red]error:[/] {error}", highlight=False, markup=True)
            raise typer.Exit(2) from None


def _plain(value: Any) -> Any:
    """An option's value as the checkpoint keeps it: paths and enumerations become strings."""
    return str(value) if isinstance(value, (Path, enum.Enum)) else value
