"""What core-sets cover, and what they cost, on real pictures: what `mow coreset` does."""

from __future__ import annotations

import io
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console
from torch import Tensor

import mow_kernels as mk
from mow.app import data, pictures
from mow.app.data import PictureData
from mow.files import json_text, write_whole
from mow.neighbours.coreset import CoresetSampler, random_projection

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = tuple(2**i for i in range(2, 11))
"""The sizes of the sets whose covering radius is measured."""

DIM, DRAWS, BATCHES, FACTOR = 32, 10, 100, 8
"""Columns of the features; random choices of each size; batches that classes are counted in; candidates for a place."""

SHOWN = 40


def covering_radius(features: Tensor, indices: Tensor) -> float:
    """The largest distance of a row of features [N, D] to the nearest of the rows `indices`."""
    chosen = features[indices]
    return max(float(torch.cdist(rows, chosen).min(1).values.max()) for rows in features.split(8192))


def measure(source: PictureData, batch: int, seed: int) -> dict[str, Any]:
    """Covering radii of core-sets and of random choices, and the classes in batches of both kinds.

    Args:
        source: with labels.
        batch: size of the batches.

    Returns:
        sizes; coreset, the radius at each size; random, DRAWS radii at each size; classes, the shares of the classes in
        the data and in batches; present, the mean number of classes in a batch; shown, the indices of pictures.
    """
    random = torch.Generator().manual_seed(seed)
    features = random_projection(source.train[:], DIM, generator=random)
    sizes = [size for size in SIZES if size <= len(features)]
    centers = mk.k_center(features, sizes[-1], generator=random).indices
    draws = [torch.randperm(len(features), generator=random) for _ in range(DRAWS)]
    result: dict[str, Any] = {
        "sizes": sizes,
        "coreset": [covering_radius(features, centers[:size]) for size in sizes],
        "random": [[covering_radius(features, draw[:size]) for draw in draws] for size in sizes],
    }
    labels = source.train_labels
    shown, shares, present = {}, {"data": _shares(labels)}, {}
    for name, factor in (("random", 1), ("coreset", FACTOR)):
        sampler = CoresetSampler(features, batch, factor=factor, generator=random)
        batches = [torch.tensor(indices) for indices, _ in zip(sampler, range(BATCHES), strict=False)]
        shown[name] = batches[0][:SHOWN].tolist()
        if labels is not None:
            shares[name] = _shares(labels[torch.cat(batches)], int(labels.max()) + 1)
            present[name] = sum(len(labels[indices].unique()) for indices in batches) / len(batches)
    return {**result, "batch": batch, "shares": shares, "present": present, "shown": shown}


def command(
    out: Annotated[Path, typer.Option(help="The folder of the measurements and of the pictures.")] = Path(
        "runs/coreset"
    ),
    batch: Annotated[int, typer.Option(min=1, help="Size of the batches.")] = 64,
    seed: Annotated[int, typer.Option(help="Of every draw.")] = 0,
    name: Annotated[
        str, typer.Option("--data", help="fashion-mnist, mnist, a folder of pictures, or an .npy/.npz file.")
    ] = "fashion-mnist",
    data_dir: Annotated[Path | None, typer.Option(help="Where the data set lies; else as for mow train.")] = None,
) -> None:
    """Compare core-sets with random choices on pictures: what they cover, and which classes they show.

    Takes seconds.
    """
    console = Console()
    source = data.load(name, data_dir=data_dir)
    console.print(f"core-sets of {source.origin}", soft_wrap=True, highlight=False, markup=False)
    if batch > len(source.train):
        raise ValueError(f"batch is {batch}; it must be at most the number of pictures, {len(source.train)}")
    found = measure(source, batch, seed)
    out.mkdir(parents=True, exist_ok=True)
    for size, covered, drawn in zip(found["sizes"], found["coreset"], found["random"], strict=True):
        print(f"{size:>6} pictures: covering radius {covered:6.2f}, chosen at random {median(drawn):6.2f}")
    for kind, count in found["present"].items():
        print(f"classes in a batch of {batch}, {kind}: {count:.2f}")
    write_whole(
        out / "coreset.json",
        json_text({"data": source.origin, "seed": seed, "torch": torch.__version__, **found}, indent=1) + "\n",
    )
    for kind, indices in found["shown"].items():
        pictures.save_png(pictures.grid(source.train[indices], 10), out / f"{kind}-batch.png")
    content = io.BytesIO()
    draw(found).savefig(content, format="png", dpi=150)
    console.print(f"[bold green]done[/]: {write_whole(out / 'coreset.png', content.getvalue())}", soft_wrap=True)


def _shares(labels: Tensor | None, classes: int = 0) -> list[float]:
    if labels is None:
        return []
    return (torch.bincount(labels, minlength=classes) / len(labels)).tolist()


_COLOURS = {"coreset": "#00695c", "random": "#b2182b", "data": "#777777"}
_LABELS = {"coreset": "core-set", "random": "random choice", "data": "all pictures"}


def draw(found: dict[str, Any]) -> Figure:
    """Covering radius over size, and the shares of the classes in batches."""
    import matplotlib  # here and not above: the command line should not wait for it
    from matplotlib.figure import Figure

    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(10, 3.8), facecolor="white", layout="constrained")
        radius, classes = figure.subplots(1, 2)
        sizes, drawn = found["sizes"], found["random"]
        low, high = [min(radii) for radii in drawn], [max(radii) for radii in drawn]
        radius.fill_between(sizes, low, high, color=_COLOURS["random"], alpha=0.2, linewidth=0)
        for kind, radii in {"random": [median(radii) for radii in drawn], "coreset": found["coreset"]}.items():
            radius.plot(sizes, radii, "o-", color=_COLOURS[kind], markersize=3.5, label=_LABELS[kind])
        radius.set_xscale("log")
        radius.set_xticks(sizes, [str(size) for size in sizes])
        radius.minorticks_off()
        radius.set(title="covering radius", xlabel="pictures chosen", ylim=(0, None))
        for i, (kind, shares) in enumerate(found["shares"].items()):
            places = [place + (i - 1) * 0.27 for place in range(len(shares))]
            classes.bar(places, shares, 0.25, color=_COLOURS[kind], label=_LABELS[kind])
        classes.set(title=f"share in batches of {found['batch']}", xlabel="class")
        classes.set_xticks(range(len(found["shares"]["data"])))
        for panel in (radius, classes):
            panel.legend(frameon=False, fontsize=8)
            panel.grid(axis="y", color="#e6e6e6", linewidth=0.8)
            panel.set_axisbelow(True)
    return figure
