"""The gradient of the batch at the memory of a piece, on real pictures: what `mow microbatch` does."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor, nn

import mow
from mow.app import data
from mow.app.data import PictureData
from mow.app.display import tracked
from mow.files import json_text, write_whole
from mow.neighbours.micro_batch import accumulate, accumulate_coupled
from mow.training.stream import to_unit_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 100
SPLITS = (1, 2, 3, 5, 7, 8, 10, 16, 25, 32, 33, 50, 64, 75, 99, 100)
"""The batch whose gradients are compared, in float64, and the rows of the pieces it is cut into."""

BATCHES = (64, 256, 512, 1024)
PIECES = (None, 32, 8)
"""The batches whose peak memory is measured, in float32, and the rows of their pieces; None is the whole at once."""

LATENTS = 8


class AutoEncoder(nn.Module):
    """A small convolutional one for grey pictures [N, 1, H, W] with H and W divisible by 4."""

    def __init__(self, height: int, width: int, channels: int = 32) -> None:
        super().__init__()
        inner = (2 * channels, height // 4, width // 4)
        flat = inner[0] * inner[1] * inner[2]
        self.encoder = nn.Sequential(
            *(nn.Conv2d(1, channels, 3, padding=1), nn.GELU()),
            *(nn.Conv2d(channels, channels, 4, stride=2, padding=1), nn.GELU()),
            *(nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1), nn.GELU()),
            *(nn.Flatten(), nn.Linear(flat, LATENTS)),
        )
        self.decoder = nn.Sequential(
            *(nn.Linear(LATENTS, flat), nn.GELU(), nn.Unflatten(1, inner)),
            *(nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1), nn.GELU()),
            *(nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1), nn.Sigmoid()),
        )


def step(model: AutoEncoder, distance: Callable[[Tensor], Tensor], x: Tensor, piece: int | None) -> Tensor:
    """Forward and backward of reconstruction + distance for a batch, in pieces or (None) at once."""

    def reconstruction(z: Tensor, x: Tensor) -> Tensor:
        return (model.decoder(z) - x).square().sum((1, 2, 3)).mean()

    if piece is not None:
        return accumulate_coupled(model.encoder, distance, x, separable=reconstruction, micro_batch=piece)
    z = model.encoder(x)
    loss = distance(z) + reconstruction(z, x)
    loss.backward()
    return loss.detach()


# The gradient -------------------------------------------------------------------------------------------------------


def errors(source: PictureData, seed: int, splits: tuple[int, ...]) -> dict[str, list[float]]:
    """The errors by loss and split: |g - g_whole| / |g_whole| over all its parameters, in float64.

    Three distances over the whole batch beside a mean, a masked mean, and the usual mistake: the mean of the pieces'
    means, which is wrong where the last piece is smaller.
    """
    x = _pictures(source, BATCH, torch.float64)
    torch.manual_seed(seed)
    model = AutoEncoder(x.shape[2], x.shape[3], channels=4).double()
    directions = torch.nn.functional.normalize(torch.randn(LATENTS, 50, dtype=torch.float64), dim=0)
    mask = torch.rand(len(x)) > 0.5

    def pixels(x: Tensor) -> Tensor:
        return (model.decoder(model.encoder(x)) - x).square().sum((1, 2, 3))

    def masked(x: Tensor, mask: Tensor) -> Tensor:
        return (pixels(x) * mask).sum()

    def coupled(distance: Callable[[Tensor], Tensor], piece: int | None) -> None:
        if piece is None:
            distance(model.encoder(x)).backward()
        else:
            accumulate_coupled(model.encoder, distance, x, micro_batch=piece)

    def mean_of_means(x: Tensor, piece: int) -> None:
        parts = x.split(piece)
        for part in parts:
            (pixels(part).mean() / len(parts)).backward()

    distances = {
        "MMD": mow.MMD(),
        "Cramer-Wold": mow.CramerWold(log=True),
        "sliced-Wasserstein": mow.SlicedWasserstein(directions=directions),
    }
    ways: dict[str, Callable[[int | None], Any]] = {
        name: partial(coupled, distance) for name, distance in distances.items()
    }
    ways["mean"] = lambda piece: accumulate(lambda x: pixels(x).mean(), x, micro_batch=piece or len(x))
    ways["masked mean"] = lambda piece: accumulate(
        masked, x, mask, micro_batch=piece or len(x), reduction="sum", count=mask.sum()
    )
    ways["mean of means"] = lambda piece: mean_of_means(x, piece or len(x))

    def gradient(way: Callable[[int | None], Any], piece: int | None) -> Tensor:
        model.zero_grad()
        way(piece)
        gradients = (parameter.grad for parameter in model.parameters())
        return torch.cat([gradient.flatten() for gradient in gradients if gradient is not None])

    found = {}
    for name, way in ways.items():
        whole = gradient(way, None)
        found[name] = [float((gradient(way, piece) - whole).norm() / whole.norm()) for piece in splits]
    return found


# Memory -------------------------------------------------------------------------------------------------------------


def peak_mib(batch: int, piece: int | None) -> float:
    """The peak resident set of a fresh process that does one step, Python and PyTorch included."""
    command = [sys.executable, "-m", "mow.app.micro_batch_demo", str(batch), str(piece or 0)]
    # in a session of its own: Ctrl-C is this process's, which then ends that one
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, start_new_session=True)
    return float(done.stdout.split()[-1])


def _probe(batch: int, piece: int) -> None:
    """Random pictures: their values do not change what is kept, and no data set is in the way."""
    torch.set_num_threads(1)
    x = torch.rand(batch, 1, 28, 28)
    step(AutoEncoder(28, 28), mow.CramerWold(), x, piece or None)
    print(_own_peak_mib())


def _own_peak_mib() -> float:
    try:  # unlike ru_maxrss, not inherited from the process that started this one
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if os.name != "darwin" else 1024**2)


# The command --------------------------------------------------------------------------------------------------------


def command(
    out: Annotated[Path, typer.Option(help="The folder of the measurements and of the picture.")] = Path(
        "runs/microbatch"
    ),
    largest: Annotated[int, typer.Option(min=1, help="Largest batch whose memory is measured.")] = BATCHES[-1],
    seed: Annotated[int, typer.Option(help="Of the weights.")] = 0,
    data_dir: Annotated[Path | None, typer.Option(help="Where Fashion-MNIST lies; else as for mow train.")] = None,
) -> None:
    """Show that pieces give the gradient of the batch at the memory of a piece.

    Takes about two minutes.
    """
    console = Console()
    source = data.load("fashion-mnist", data_dir=data_dir)
    console.print(f"gradients on {BATCH} pictures of {source.origin}", soft_wrap=True, highlight=False)
    found = errors(source, seed, SPLITS)
    for name, values in found.items():
        print(f"{name:<19} worst relative error of the gradient over {len(values)} splits: {max(values):.1e}")
    batches = [batch for batch in BATCHES if batch <= largest] or [largest]
    jobs = [(batch, piece) for piece in PIECES for batch in batches]
    peaks = [
        {"batch": batch, "piece": piece, "peak_mib": round(peak_mib(batch, piece), 1)}
        for batch, piece in tracked(jobs, "peak memory", len(jobs), console.file)
    ]
    for piece in PIECES:
        row = ", ".join(f"{peak['batch']}: {peak['peak_mib']:.0f} MiB" for peak in peaks if peak["piece"] == piece)
        print(f"{_label(piece):<19} {row}")
    floor = round(peak_mib(1, None), 1)
    result = {
        "data": source.origin,
        "seed": seed,
        "torch": torch.__version__,
        "splits": SPLITS,
        "errors": found,
        "peaks": peaks,
        "floor_mib": floor,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "microbatch.json", json_text(result, indent=1) + "\n")
    content = io.BytesIO()
    draw(result).savefig(content, format="png", dpi=150)
    console.print(f"[bold green]done[/]: {write_whole(out / 'microbatch.png', content.getvalue())}", soft_wrap=True)


def _label(piece: int | None) -> str:
    return "whole batch" if piece is None else f"pieces of {piece}"


_COLOURS = {None: "#b2182b", 32: "#e08214", 8: "#00695c"}
_WRONG = "mean of means"
_ROUND = 1e-17  # an error of zero, on a logarithmic axis


def draw(result: dict[str, Any]) -> Figure:
    """Errors of the gradient over the size of the pieces, and peak memory over the size of the batch."""
    import matplotlib  # here and not above: the command line should not wait for it
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 3.8), facecolor="white", layout="constrained")
        gradient, memory = figure.subplots(1, 2)
        for name, values in result["errors"].items():
            style = {"color": "#b2182b", "marker": "x"} if name == _WRONG else {"marker": "o"}
            values = [max(value, _ROUND) for value in values]
            gradient.plot(result["splits"], values, markersize=4, linestyle="none", alpha=0.7, label=name, **style)
        gradient.axhline(1e-12, color="#777777", linewidth=0.8, linestyle=":")
        gradient.set(title="relative error of the gradient, float64", yscale="log", ylim=(_ROUND / 2, 2))
        gradient.set_xlabel(f"rows of a piece, batch of {BATCH}")
        for piece in PIECES:
            peaks = [peak for peak in result["peaks"] if peak["piece"] == piece]
            memory.plot(
                *([peak[name] for peak in peaks] for name in ("batch", "peak_mib")),
                marker="o",
                markersize=3.5,
                color=_COLOURS[piece],
                label=_label(piece),
            )
        memory.axhline(result["floor_mib"], color="#777777", linewidth=0.8, linestyle=":", label="batch of 1")
        memory.set(title="peak memory of a step, whole process, MiB", xlabel="batch", ylim=(0, None))
        for panel in (gradient, memory):
            panel.legend(frameon=False, fontsize=8)
            panel.grid(color="#e6e6e6", linewidth=0.8)
            panel.set_axisbelow(True)
    return figure


def _pictures(source: PictureData, count: int, dtype: torch.dtype) -> Tensor:
    """The first pictures, grey, cut to sides divisible by 4."""
    x = to_unit_range(source.train[:count]).to(dtype).mean(1, keepdim=True)
    return x[..., : x.shape[2] // 4 * 4, : x.shape[3] // 4 * 4]


if __name__ == "__main__":
    _probe(*map(int, sys.argv[1:]))
