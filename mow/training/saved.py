"""A trainer in a file, from which its training goes on with the same bits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from mow.training import checkpoint
from mow.training.history import History
from mow.training.states import State
from mow.window.distances import Distance
from mow.window.priors import generators_of
from mow.window.window import MovingWindow

if TYPE_CHECKING:
    from mow.training.trainer import Trainer

_Trainer = TypeVar("_Trainer", bound="Trainer")

OPTIONS = ("k", "weight", "weighting", "reencode", "refresh", "root", "on_nonfinite")
"""Arguments of a trainer that stand in its file and are its own again."""

ENTRIES = ("options", "kinds", "trainer", "stream", "history", "random", "generators")
"""What the file holds."""


def state_of(trainer: Trainer) -> State:
    """Everything that the next step depends on, but for the data."""
    device = trainer.window.latents.device
    state = {
        "options": {name: getattr(trainer, name) for name in OPTIONS},
        "kinds": _kinds(trainer.distance, trainer),
        "trainer": trainer.state_dict(),
        "stream": trainer.position,
        "history": trainer.history.records,
        "random": torch.get_rng_state(),
        "generators": [generator.get_state() for generator in generators_of(trainer.distance)],
    }
    return {**state, "random_cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def load(
    cls: type[_Trainer],
    path: Path,
    encoder: nn.Module,
    decoder: nn.Module,
    distance: Distance,
    window: MovingWindow | None,
    options: dict[str, Any],
) -> _Trainer:
    """`Trainer.load`; arguments and errors as there."""
    state = checkpoint.load(path, ENTRIES)
    if window is None:
        latents = state["trainer"]["window"]["latents"]
        device = next((each.device for each in encoder.parameters()), None)
        window = MovingWindow(*latents.shape, dtype=latents.dtype, device=device)
    trainer = cls(encoder, decoder, distance, window, **{**state["options"], **options})
    for name, was in state["kinds"].items():
        if (now := _kinds(distance, trainer)[name]) != was:
            raise ValueError(f"{name} is {now}; {path} was written with {was}")
    generators = list(generators_of(distance))
    if len(generators) != len(state["generators"]):
        raise ValueError(
            f"distance draws from {len(generators)} generators of its own; in {path} it has {len(state['generators'])}"
        )
    trainer.load_state_dict(state["trainer"])
    trainer.history, trainer.position = History(state["history"]), state["stream"]
    for generator, was in zip(generators, state["generators"], strict=True):
        generator.set_state(was)
    torch.set_rng_state(state["random"])
    if window.latents.is_cuda and "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"], window.latents.device)
    return trainer


def _kinds(distance: Distance, trainer: Trainer) -> dict[str, str]:
    """What a state fits without being right: a distance, an optimiser, a scheduler or a rule of another kind."""
    said = re.sub(r" at 0x[0-9a-f]+", "", " ".join(repr(distance).split()))
    return {
        "distance": said,
        "optimizer": type(trainer.optimizer).__name__,
        "scheduler": "None" if trainer.scheduler is None else type(trainer.scheduler).__name__,
        "adaptive": repr(trainer.adaptive),
        "correction": repr(trainer.correction),
    }
