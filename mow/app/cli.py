"""The command line: training, what to do with a trained model, grids of runs, and demonstrations."""

from __future__ import annotations

import dataclasses
import io
import json
from contextlib import ContextDecorator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from mow.app import coreset_demo, critical_batch_demo, grid_commands, micro_batch_demo, pictures
from mow.app.architectures import ARCHITECTURES
from mow.app.data import NAMES
from mow.app.files import write_whole
from mow.app.run import Model, OnNonfinite, OptimizerName, Options, Part, Phi, PriorName, Run, Weighting
from mow.distributed import ranks
from mow.training.precision import Precision

app = typer.Typer(
    help="Training on batches as small as one, for models that compare samples: the moving window.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()


def _model(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Model and training")


def _distance(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Distance")


def _run(help: str, *names: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel="Run")


@app.command()
def train(
    context: typer.Context,
    model: Annotated[Model, _model("Cramer-Wold, MMD or sliced-Wasserstein.")] = Options.model,
    n: Annotated[int, _model("Window size.")] = Options.n,
    k: Annotated[int, _model("New elements a step; n is the classical method.")] = Options.k,
    architecture: Annotated[str | None, _model(f"{', '.join(ARCHITECTURES)} (default: by the data).")] = None,
    dim: Annotated[int | None, _model("Latent width (default: the paper's for the data or the architecture).")] = None,
    lr: Annotated[float | None, _model("Learning rate (default: 1e-3 sqrt(k/64)).")] = None,
    optimizer: Annotated[OptimizerName, _model("With a constant learning rate.")] = Options.optimizer,
    beta1: Annotated[float, _model("Of Adam.")] = Options.beta1,
    beta2: Annotated[float, _model("Of Adam.")] = Options.beta2,
    reencode: Annotated[bool, _model("Push latents of the updated encoder, as the paper does.")] = Options.reencode,
    refresh: Annotated[int | None, _model("Encode the whole window again every so many steps.")] = None,
    warm_up: Annotated[bool, _model("Fill the window before the first step, as the paper does.")] = Options.warm_up,
    root: Annotated[bool, _model("Root of the reconstruction, as the public code does.")] = Options.root,
    on_nonfinite: Annotated[
        OnNonfinite | None, _model("At a loss that is NaN or infinite (default: stop; ignore with --cuda-graph).")
    ] = None,
    shard: Annotated[bool, _model("Each rank of torchrun keeps its part of the window.", "--shard")] = Options.shard,
    weight: Annotated[float, _distance("Lambda of the distance.")] = Options.weight,
    weighting: Annotated[Weighting, _distance("How the distance stands to the reconstruction.")] = Options.weighting,
    log: Annotated[bool | None, _distance("Logarithm of it (default: for cwae).", "--log/--no-log")] = None,
    prior: Annotated[PriorName, _distance("normal is N(0, I) in closed form; the others are sampled.")] = Options.prior,
    prior_window: Annotated[bool, _distance("Draw k prior rows a step, and keep the others.")] = Options.prior_window,
    phi: Annotated[Phi, _distance("For cwae.")] = Options.phi,
    directions: Annotated[int, _distance("For swae.")] = Options.directions,
    keep_directions: Annotated[int, _distance("For so many steps, for swae.")] = Options.keep_directions,
    data: Annotated[str, _run(f"{', '.join(NAMES)}, a folder of pictures, or an .npy/.npz file.")] = Options.data,
    out: Annotated[Path | None, _run("The folder of the run.")] = None,
    resume: Annotated[
        Path | None, _run("Go on in this folder with all its options; --steps may extend it, --on-nonfinite differ.")
    ] = None,
    steps: Annotated[int, _run("Steps in all.")] = Options.steps,
    seed: Annotated[int, _run("Of weights, order and draws.")] = Options.seed,
    size: Annotated[int | None, _run("Resize a folder's pictures, CelebA or FFHQ to this size.")] = None,
    data_dir: Annotated[Path | None, _run("Where the data set lies; else MOW_DATA and the usual places.")] = None,
    download: Annotated[bool, _run("Download the data set if it is nowhere.", "--download")] = Options.download,
    device: Annotated[str | None, _run("Default: cuda if there is one, else cpu.")] = None,
    threads: Annotated[int | None, _run("Of PyTorch on the CPU (default: 1 for small steps, else all cores).")] = None,
    cuda_graph: Annotated[bool, _run("The whole step in one CUDA graph.")] = Options.cuda_graph,
    precision: Annotated[Precision, _run("Of encoder and decoder; distance and errors are float32.")] = "fp32",
    checkpointing: Annotated[
        bool, _run("Keep less for the backward pass, and compute it again.", "--checkpointing")
    ] = (Options.checkpointing),
    channels_last: Annotated[bool, _run("Memory layout of the convolutions.", "--channels-last")] = (
        Options.channels_last
    ),
    log_every: Annotated[int, _run("Steps between logged lines.")] = Options.log_every,
    evaluate_every: Annotated[int, _run("Steps between evaluations.")] = Options.evaluate_every,
    checkpoint_every: Annotated[int, _run("Steps between checkpoints.")] = Options.checkpoint_every,
    timeout: Annotated[float, _run("Seconds after which ranks of torchrun give up waiting for one.")] = ranks.TIMEOUT,
) -> None:
    """Train an auto-encoder with k new elements a step, compared over a window of n (torchrun: in all ranks)."""
    given = {name for name in context.params if context.get_parameter_source(name).name == "COMMANDLINE"}  # type: ignore[union-attr]
    with _plain_errors(), ranks.process_group(timeout):
        if resume is not None:
            if others := given - {"resume", "steps", "on_nonfinite", "timeout"}:
                names = ", ".join("--" + name.replace("_", "-") for name in sorted(others))
                allowed = "--steps, --on-nonfinite and --timeout"
                raise ValueError(f"--resume restores every option and allows {allowed} alone beside it, not {names}")
            changes = {name: context.params[name] for name in given & {"steps", "on_nonfinite"}}
            _show(Run.resume(resume, **changes))
        elif out is None:
            raise ValueError("--out is missing: name the folder that the run shall be written to (or --resume one)")
        else:
            chosen = {field.name: context.params[field.name] for field in dataclasses.fields(Options)}
            chosen["data_dir"] = None if data_dir is None else str(data_dir)
            _show(Run.start(Options(**chosen), out))


_Folder = Annotated[Path, typer.Argument(help="The folder of a run.")]
_PngFile = Annotated[Path, typer.Option("--out", help="The PNG file to write.")]
_Of = Annotated[Part, typer.Option("--of", help="Which pictures of the run's data set.")]


@app.command()
def evaluate(
    folder: _Folder,
    seed: Annotated[int, typer.Option(help="Of the subsets, prior rows, directions and samples.")] = 0,
) -> None:
    """Score the model of a run as the paper's tables do, and print the scores as a line of JSON."""
    with _plain_errors():
        run = Run.load(folder)
        print(json.dumps({"step": run.trainer.steps_done, **run.score(seed)}))


@app.command()
def sample(
    folder: _Folder,
    out: _PngFile,
    count: Annotated[int, typer.Option(min=1)] = 60,
    columns: Annotated[int, typer.Option(min=1)] = 10,
    seed: Annotated[int, typer.Option()] = 0,
) -> None:
    """Decode samples of the prior into one picture."""
    with _plain_errors():
        pictures.save_png(pictures.grid(Run.load(folder).sample(count, seed), columns), out)
        typer.echo(f"{count} samples in {out}")


@app.command()
def reconstruct(
    folder: _Folder,
    out: _PngFile,
    count: Annotated[int, typer.Option(min=1)] = 40,
    columns: Annotated[int, typer.Option(min=1)] = 10,
    of: _Of = "test",
) -> None:
    """Draw pictures and, under each, what the auto-encoder makes of it."""
    with _plain_errors():
        run = Run.load(folder)
        shown = run.pictures(of)[:count]
        pictures.save_png(pictures.reconstruction_grid(shown, run.reconstruct(shown), columns), out)
        typer.echo(f"{len(shown)} reconstructions in {out}")


@app.command()
def interpolate(
    folder: _Folder,
    out: _PngFile,
    rows: Annotated[int, typer.Option(min=1, help="Walks from one picture to another.")] = 6,
    stages: Annotated[int, typer.Option(min=2, help="Pictures of a walk, both ends included.")] = 10,
    of: _Of = "test",
) -> None:
    """Walk in straight lines from one latent to another: from the first pictures to the last ones."""
    with _plain_errors():
        run = Run.load(folder)
        ends = run.pictures(of)
        rows = min(rows, len(ends))
        walks = run.interpolate(ends[:rows], ends[-rows:], stages)
        pictures.save_png(pictures.interpolation_grid(walks), out)
        typer.echo(f"{rows} interpolations in {out}")


@app.command()
def encode(
    folder: _Folder,
    out: Annotated[Path, typer.Option(help="The .npy or .npz file to write.")],
    of: _Of = "test",
) -> None:
    """Write the latents of pictures, in the order of the data set; into an .npz their labels, too, if there are any."""
    with _plain_errors():
        if out.suffix not in (".npy", ".npz"):
            raise ValueError(f"out is {str(out)!r}; it must end in .npy or .npz")
        run = Run.load(folder)
        latents, labels = run.encode(of).numpy(), run.source.test_labels if of == "test" else run.source.train_labels
        content = io.BytesIO()
        if out.suffix == ".npy":
            np.save(content, latents)
        else:
            arrays = {"latents": latents} if labels is None else {"latents": latents, "labels": labels.numpy()}
            np.savez(content, **arrays)  # type: ignore[arg-type] # it takes allow_pickle, too
        write_whole(out, content.getbuffer())
        typer.echo(f"latents {list(latents.shape)} in {out}")


def _show(run: Run) -> None:
    """Train with a progress bar, and a line for each evaluation."""
    if run.ranks.rank > 0:
        return run.train()
    options = run.options
    console.print(f"[bold]{options.model}[/] on {escape(run.source.origin)}", soft_wrap=True)
    weighting = f"{options.weighting} weighting"
    console.print(
        f"n = {options.n}, k = {options.k}, {options.steps:,} steps, {weighting}, into {escape(str(run.out))}",
        soft_wrap=True,
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
            if record is None or record["reconstruction"] is None:
                return
            losses = f"reconstruction {record['reconstruction']:.1f}  distance {record['distance']:.4f}"
            progress.update(task, completed=step, losses=losses)
            if "test_reconstruction" in record:
                console.print(
                    f"step {step:>9,}   test reconstruction {record['test_reconstruction']:7.2f}   "
                    f"test Cramer-Wold {record['test_cramer_wold']:.5f}"
                )

        run.train(on_step)
    console.print(f"[bold green]done[/]: open {escape(str(run.out / 'report.html'))}", soft_wrap=True)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} steps/s" if task.speed else "-", style="green")


class _plain_errors(ContextDecorator):
    """What a user can mend is told in one line; everything else keeps its traceback."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, KeyboardInterrupt):
            console.print("interrupted: --resume goes on from the last checkpoint")
            ranks.leave(130)
            raise typer.Exit(130) from None
        if isinstance(error, (ValueError, TypeError, OSError, FloatingPointError)):
            typer.echo(" ".join(f"error: {error}".split()), err=True)
            ranks.leave(2)
            raise typer.Exit(2) from None


app.command("coreset")(_plain_errors()(coreset_demo.command))
app.command("critical-batch")(_plain_errors()(critical_batch_demo.command))
app.command("microbatch")(_plain_errors()(micro_batch_demo.command))
app.command("grid")(_plain_errors()(grid_commands.grid_command))
app.command("reproduce")(_plain_errors()(grid_commands.reproduce_command))
