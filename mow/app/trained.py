"""What a trainer in Python has learned, for a person: its report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor, nn

from mow.app import pictures
from mow.app.report import write_report
from mow.checks import expect
from mow.files import json_text, number_text, write_whole
from mow.naming import optimizer_name
from mow.training.stream import Pictures, ShuffledStream
from mow.training.trainer import Trainer

SAMPLES, COLUMNS, PAIRS, WALKS = 60, 10, 40, 6
"""Pictures that are drawn: samples, how many stand in a row, originals that are reconstructed, interpolations."""


def report(
    trainer: Trainer, folder: str | os.PathLike[str], test: Pictures | None = None, *, title: str | None = None
) -> Path:
    """Write the report of a training in Python, one HTML file that needs nothing else. -> its path.

        >>> from mow.app.trained import report
        >>> history = trainer.fit(pictures, steps=20, log_every=10)
        >>> report(trainer, folder / "report", test=pictures[:8]).name
        'report.html'

    It has the curves of `trainer.history`, samples, the options, and for `test` reconstructions and interpolations;
    pictures [C, H, W] with C = 1 or 3 are drawn. The folder also gets the history as metrics.jsonl and each drawing as
    a file. Of several processes all call it, and the first writes.

    Args:
        trainer: it goes on as if this had not been called.
        folder: is made; what an earlier report left in it is replaced.
        test: pictures that the training has not seen, as `Trainer.fit` takes them, of which the first are drawn.
        title: of the page; None for one that names k and n.

    Raises:
        ValueError: nothing was measured yet: `fit` does.
        FileExistsError: the folder holds a run of `mow train`.
        TypeError: trainer is none, or test nothing that `fit` takes.
    """
    expect(isinstance(trainer, Trainer), "trainer", trainer, "a mow.Trainer")
    folder = Path(folder)
    path = folder / "report.html"
    if not trainer.exchange.first:
        return path
    if not len(trainer.history):
        raise ValueError("the trainer has measured nothing; a report begins with trainer.fit(...)")
    if (folder / "checkpoint.pt").exists():
        raise FileExistsError(f"{folder} holds a run of mow train, which has a report of its own: name another folder")
    images = _images(trainer, None if test is None else next(ShuffledStream(test).in_order(PAIRS)))
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "metrics.jsonl", "".join(json_text(record) + "\n" for record in trainer.history))
    for name, image in images.items():
        if image is None:
            (folder / f"{name}.png").unlink(missing_ok=True)  # of an earlier report
        else:
            pictures.save_png(image, folder / f"{name}.png")
    if title is None:
        title = f"{trainer.k} new of n = {trainer.window.n} a step"
    return write_report(folder, title=title, summary=_summary(trainer), options=_options(trainer))


def _images(trainer: Trainer, shown: Tensor | None) -> dict[str, Image.Image | None]:
    """What can be drawn, by the names of the files; None for what cannot."""
    images: dict[str, Image.Image | None] = dict.fromkeys(("samples", "reconstructions", "interpolations"))
    if _drawable(samples := trainer.sample(SAMPLES)):
        images["samples"] = pictures.grid(samples, COLUMNS)
    if shown is not None and _drawable(shown):
        images["reconstructions"] = pictures.reconstruction_grid(shown, trainer.reconstruct(shown), COLUMNS)
        if rows := min(WALKS, len(shown) // 2):
            images["interpolations"] = pictures.interpolation_grid(trainer.interpolate(shown[:rows], shown[-rows:]))
    return images


def _drawable(x: Tensor) -> bool:
    return x.dim() == 4 and x.shape[1] in (1, 3)


def _summary(trainer: Trainer) -> list[tuple[str, str]]:
    """The last value of what was measured."""
    shown: dict[str, Any] = {}
    for record in trainer.history:
        shown |= record
    names = [name for name in shown if name not in ("step", "pictures")]
    return [(name.replace("_", " "), number_text(shown[name], ".4g")) for name in names]


def _options(trainer: Trainer) -> dict[str, Any]:
    def weights(module: nn.Module) -> str:
        return f"{type(module).__name__}, {sum(each.numel() for each in module.parameters()):,} parameters"

    return {
        "n": trainer.window.n,
        "k": trainer.k,
        "latent width": trainer.window.latents.shape[1],
        "encoder": weights(trainer.encoder),
        "decoder": weights(trainer.decoder),
        "distance": repr(trainer.distance),
        "weighting": trainer.weighting,
        "weight": trainer.weight,
        "optimizer": str(optimizer_name(trainer.optimizer)),
        "reencode": trainer.reencode,
        "refresh": trainer.refresh,
        "root": trainer.root,
        "cuda_graph": trainer.graph is not None,
        "on_nonfinite": trainer.on_nonfinite,
        "steps skipped": trainer.steps_skipped,
    }
