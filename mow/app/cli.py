"""The command line: training, what to do with a trained model, grids of runs, and demonstrations."""

from __future__ import annotations

import io
import itertools
import shlex
import warnings
from contextlib import ContextDecorator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

import mow
from mow.app import coreset_demo, critical_batch_demo, grid_commands, launch, micro_batch_demo, pictures
from mow.app.data import PictureWarning
from mow.app.options import MAY_CHANGE, RUN, Options, flag
from mow.app.parameters import given, takes_options
from mow.app.progress import train_and_show
from mow.app.run import Part, Run
from mow.distributed import ranks
from mow.files import json_text, write_whole

app = typer.Typer(
    help="Training on batches as small as one, for models that compare samples: the moving window.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mow {mow.__version__}, PyTorch {torch.__version__}")
        raise typer.Exit


@app.callback()
def _of_every_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the versions and end.")
    ] = False,
) -> None:
    pass


@app.command()
@takes_options
def train(
    context: typer.Context,
    options: Options,
    out: Annotated[Path | None, typer.Option(help="The folder of the run.", rich_help_panel=RUN)] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help=f"Go on in this folder with all its options; others may be {', '.join(map(flag, MAY_CHANGE))}.",
            rich_help_panel=RUN,
        ),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(help="Seconds after which a process gives up waiting for another.", rich_help_panel=RUN),
    ] = ranks.TIMEOUT,
    processes: Annotated[
        int, typer.Option(min=1, help="Of this machine, which share the k elements of a step.", rich_help_panel=RUN)
    ] = 1,
) -> None:
    """Train an auto-encoder with k new elements a step, compared over a window of n."""
    run: Run | None = None
    words = given(context)
    with _plain_errors():
        try:
            if resume is not None:
                if others := words.keys() - {"resume", *_BESIDE_RESUME}:
                    names = ", ".join(map(flag, sorted(others)))
                    allowed = f"{', '.join(map(flag, _BESIDE_RESUME[:-1]))} and {flag(_BESIDE_RESUME[-1])}"
                    told = f"--resume restores every option and allows {allowed} alone beside it, not {names}"
                    raise ValueError(told)
                changes = {name: getattr(options, name) for name in MAY_CHANGE if name in words}
                begin = partial(Run.resume, resume, **changes)
            elif out is None:
                raise ValueError("--out is missing: name the folder that the run shall be written to (or --resume one)")
            else:
                begin = partial(Run.start, options, out)
            if processes > 1:
                launch.check(processes, None if resume else options.resolved())
                del words["processes"]
                return launch.launch(["train", *itertools.chain(*words.values())], processes)
            with ranks.process_group(timeout):
                run = begin()
                train_and_show(run, console)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(_how_to_go_on(run, resume or out, processes)) from None


_BESIDE_RESUME = (*MAY_CHANGE, "timeout", "processes")
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
        print(json_text({"step": run.trainer.steps_done, **run.score(seed)}))


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
def report(folder: _Folder) -> None:
    """Draw a run's pictures and write its report as they are now, also of a training that was interrupted."""
    with _plain_errors():
        run = Run.load(folder)
        run.write_pictures()
        run.write_report()
        typer.echo(f"step {run.trainer.steps_done:,}: open {folder / 'report.html'}")


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


def _how_to_go_on(run: Run | None, folder: Path | None, processes: int) -> str:
    """What to do after Ctrl-C in a training."""
    if folder is None or not (folder / "checkpoint.pt").exists():
        return "interrupted before the first checkpoint: the same command begins again"
    step = "its checkpoint" if run is None or run.saved_step is None else f"step {run.saved_step:,}"
    several = f" --processes {processes}" if processes > 1 else ""
    return f"interrupted: mow train --resume {shlex.quote(str(folder))}{several} goes on from {step}"


class _plain_errors(ContextDecorator):
    """What a user can mend is told in one line, as is a picture that is left out; all else keeps its traceback."""

    def __enter__(self) -> None:
        self._warnings = warnings.catch_warnings()
        self._warnings.__enter__()
        told = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *where: Any, **options: Any) -> None:
            if issubclass(category, PictureWarning):
                typer.echo(str(message), err=True)
            else:
                told(message, category, *where, **options)

        warnings.showwarning = tell

    def __exit__(self, kind: type | None, error: BaseException | None, _: object) -> None:
        self._warnings.__exit__(None, None, None)
        if isinstance(error, KeyboardInterrupt):
            code, words = 130, str(error) or "interrupted: the same command begins again"
        elif isinstance(error, (ValueError, TypeError, OSError, FloatingPointError)):
            code, words = 2, " ".join(f"error: {error}".split())
        elif isinstance(error, launch.LaunchError):
            code, words = 2, f"error: {error}"
        else:
            return
        if launch.launched():
            launch.hand_over(error)
        else:
            typer.echo(words, err=True)
        ranks.leave(code)
        raise typer.Exit(code) from None


app.command("coreset")(_plain_errors()(coreset_demo.command))
app.command("critical-batch")(_plain_errors()(critical_batch_demo.command))
app.command("microbatch")(_plain_errors()(micro_batch_demo.command))
app.command("grid")(_plain_errors()(grid_commands.grid_command))
app.command("reproduce")(_plain_errors()(grid_commands.reproduce_command))
