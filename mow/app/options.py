"""What decides how a run goes: each option is one field of `Options`, and `mow train` takes what stands there."""

from __future__ import annotations

import dataclasses
import math
import os
import shlex
import typing
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch

from mow import checks
from mow.app.architectures import ARCHITECTURES
from mow.app.autoencoders import MODELS
from mow.app.data import COLLECTIONS
from mow.app.optimizers import OPTIMIZERS, SCHEDULES
from mow.training.nonfinite import ON_NONFINITE
from mow.training.precision import Precision
from mow.training.trainer import default_learning_rate
from mow.training.weighting import WEIGHTINGS
from mow.window.priors import PRIORS

MODEL, DISTANCE, RUN = PANELS = ("Model and training", "Distance", "Run")
"""The panels of `mow train --help`, in their order."""


@dataclass(frozen=True)
class Range:
    """The values that an option takes; `words` say which, after "it must be"."""

    words: str
    holds: Callable[[Any], bool]


POSITIVE_COUNT = Range("at least 1", lambda value: value >= 1)
POSITIVE = Range("finite and > 0", lambda value: 0 < value < math.inf)
DECAY = Range("in [0, 1)", lambda value: 0 <= value < 1)


def one_of(names: Collection[str]) -> Range:
    return Range(f"one of {', '.join(names)}", lambda value: value in names)


@dataclass(frozen=True)
class About:
    """What is known of an option beside its name, its type and its default.

    help, panel: its words in `mow train --help`, and the panel that they stand in.
    choices: the words that it takes, where these are few: the command line lists them and takes no other.
    within: the values that it takes; where there are choices, these.
    of: another option and the choice of it that this one belongs to; beside another choice it keeps its default.
    spelling: on the command line, where that is not --name, and for a bool --name/--no-name.
    metavar: what stands in `mow train --help` for its value, where that is not its type.
    may_change: whether `--resume` takes another value.
    """

    help: str
    panel: str
    choices: tuple[str, ...] = ()
    within: Range | None = None
    of: tuple[str, str] | None = None
    spelling: str | None = None
    metavar: str | None = None
    may_change: bool = False

    def check(self, name: str, value: Any) -> None:
        """Raises ValueError, by name, for a value that is not `within`. None is left to what resolves it."""
        within = one_of(self.choices) if self.choices else self.within
        if within is not None and value is not None and not within.holds(value):
            raise ValueError(f"{name} is {value!r}; it must be {within.words}")


def option(default: Any, help: str, panel: str, *, choices: Iterable[str] = (), **more: Any) -> Any:
    """The field of an option; arguments as of `About`."""
    return dataclasses.field(default=default, metadata={"about": About(help, panel, tuple(choices), **more)})


def about(field: dataclasses.Field[Any]) -> About:
    """What was said of an option in its field."""
    return field.metadata["about"]


def flag(name: str) -> str:
    """An option's name as it is written on the command line."""
    return "--" + name.replace("_", "-")


_TITLES = ", ".join(f"{name}: {model.distance_title}" for name, model in MODELS.items())
_RESIZED = " or ".join(collection.title for collection in COLLECTIONS.values() if collection.size is not None)


@dataclass(frozen=True)
class Options:
    """Everything that decides how a run goes; docs/options.md says where each default comes from."""

    model: str = option("cwae", f"{_TITLES}.", MODEL, choices=MODELS)
    data: str = option("fashion-mnist", f"{', '.join(COLLECTIONS)}, a folder of pictures, or an .npy/.npz file.", RUN)
    n: int = option(64, "Window size.", MODEL)
    k: int = option(1, "New elements a step; n is the classical method.", MODEL)
    steps: int = option(20_000, "Steps in all.", RUN, within=POSITIVE_COUNT, may_change=True)
    seed: int = option(0, "Of weights, order and draws.", RUN)
    architecture: str | None = option(
        None, f"{', '.join(ARCHITECTURES)} (default: by the data).", MODEL, within=one_of(ARCHITECTURES)
    )
    dim: int | None = option(None, "Latent width (default: the paper's for the data or the architecture).", MODEL)
    lr: float | None = option(None, "Learning rate (default: 2e-3 sqrt(k/64)).", MODEL, within=POSITIVE)
    optimizer: str = option("adam", "sgd is plain gradient descent.", MODEL, choices=OPTIMIZERS)
    schedule: str = option("constant", "Of the learning rate; cosine falls to 0 at --steps.", MODEL, choices=SCHEDULES)
    beta1: float = option(0.9, "Of Adam.", MODEL, within=DECAY, of=("optimizer", "adam"))
    beta2: float = option(0.999, "Of Adam.", MODEL, within=DECAY, of=("optimizer", "adam"))
    weight: float | None = option(None, "Lambda of the distance (default: 1 with --log or --root, else 10).", DISTANCE)
    weighting: str = option(
        "compensated", "How the distance stands to the reconstruction.", DISTANCE, choices=tuple(WEIGHTINGS)
    )
    log: bool | None = option(None, "Logarithm of it (default: for cwae).", DISTANCE)
    prior: str = option(
        "normal", "normal is N(0, I) in closed form; the others are sampled.", DISTANCE, choices=("normal", *PRIORS)
    )
    prior_window: bool = option(False, "Draw k prior rows a step, and keep the others.", DISTANCE)
    phi: str = option("exact", "For cwae.", DISTANCE, choices=("exact", "asymptotic"))
    directions: int = option(50, "For swae.", DISTANCE, within=POSITIVE_COUNT)
    keep_directions: int = option(1, "For so many steps, for swae.", DISTANCE, within=POSITIVE_COUNT)
    reencode: bool = option(True, "Push latents of the updated encoder, as the paper does.", MODEL)
    refresh: int | None = option(None, "Encode the whole window again every so many steps.", MODEL)
    adaptive: bool = option(False, "Measure over as many of the n as the encoder's drift allows.", MODEL)
    correct_drift: bool = option(False, "Carry the window's rows along with the encoder.", MODEL)
    warm_up: bool = option(True, "Fill the window before the first step, as the paper does.", MODEL)
    drop_last: bool = option(
        False, "Begin the next pass in place of a batch of less than k.", MODEL, spelling="--drop-last"
    )
    root: bool = option(False, "Root of the reconstruction, as the public code does.", MODEL)
    on_nonfinite: str | None = option(
        None,
        "At a loss that is NaN or infinite (default: stop; ignore with --cuda-graph).",
        MODEL,
        choices=ON_NONFINITE,
        may_change=True,
    )
    shard: bool = option(False, "Each rank of torchrun keeps its part of the window.", MODEL, spelling="--shard")
    size: int | None = option(None, f"Resize a folder's pictures, {_RESIZED} to this size.", RUN)
    data_dir: str | None = option(
        None, "Where the data set lies; else MOW_DATA and the usual places.", RUN, metavar="<path>"
    )
    download: bool = option(False, "Download the data set if it is nowhere.", RUN, spelling="--download")
    device: str | None = option(None, "Default: cuda if there is one, else cpu.", RUN)
    threads: int | None = option(
        None, "Of PyTorch on the CPU (default: 1 for small steps, else all cores).", RUN, within=POSITIVE_COUNT
    )
    cuda_graph: bool = option(False, "The whole step in one CUDA graph.", RUN)
    compile: bool = option(False, "The whole step by torch.compile, for small networks on a CPU.", RUN)
    precision: str = option(
        "fp32", "Of encoder and decoder; distance and errors are float32.", RUN, choices=get_args(Precision)
    )
    checkpointing: bool = option(
        False, "Keep less for the backward pass, and compute it again.", RUN, spelling="--checkpointing"
    )
    channels_last: bool = option(False, "Memory layout of the convolutions.", RUN, spelling="--channels-last")
    log_every: int = option(50, "Steps between logged lines.", RUN, within=POSITIVE_COUNT)
    evaluate_every: int = option(2000, "Steps between evaluations.", RUN, within=POSITIVE_COUNT)
    checkpoint_every: int = option(1000, "Steps between checkpoints.", RUN, within=POSITIVE_COUNT)

    def resolved(self) -> Options:
        """The options with every None that has a rule replaced by what the rule says, and paths made absolute.

        Raises:
            ValueError: an option out of range, by name. (What the trainer and the distance take is checked by them.)
        """
        plain = {name: value.item() for name, value in vars(self).items() if isinstance(value, np.generic)}
        plain |= {name: os.fspath(value) for name, value in vars(self).items() if isinstance(value, os.PathLike)}
        if plain:  # a checkpoint holds no NumPy numbers, and no paths
            return dataclasses.replace(self, **plain).resolved()
        self._check()
        collection = COLLECTIONS.get(self.data)
        own_architecture = "small" if collection is None else collection.architecture
        name = own_architecture if self.architecture is None else self.architecture
        architecture, path = ARCHITECTURES[name], Path(self.data).expanduser()
        if collection is None:
            dim, is_folder = architecture.dim, path.is_dir()
        else:
            dim, is_folder = collection.dim or ARCHITECTURES[own_architecture].dim, False
        own_size = architecture.shape[1] if architecture.shape and is_folder else None
        log = MODELS[self.model].log if self.log is None else self.log
        own_weight = 1.0 if log or self.root else 10.0  # either makes the distance weigh more as its gradient is
        return dataclasses.replace(
            self,
            architecture=name,
            size=own_size if self.size is None else self.size,
            data=str(path.resolve()) if collection is None and path.exists() else self.data,
            data_dir=None if self.data_dir is None else str(Path(self.data_dir).resolve()),
            dim=dim if self.dim is None else self.dim,
            lr=default_learning_rate(self.k) if self.lr is None else self.lr,
            weight=own_weight if self.weight is None else self.weight,
            log=log,
            device=_device(self.device),
        )

    def command(self, out: Path) -> str:
        """The command line that repeats a run with these options, resolved: every one that is not the default."""
        words = ["mow", "train"]
        defaults = Options(model=self.model, data=self.data, k=self.k).resolved()
        for field in dataclasses.fields(self):
            value, name = getattr(self, field.name), flag(field.name)
            if field.name in ("model", "data", "n", "k", "steps", "seed") or value != getattr(defaults, field.name):
                if isinstance(value, bool):
                    words.append(name if value else name.replace("--", "--no-", 1))
                else:
                    words += [name, str(value)]
        return shlex.join([*words, "--out", out.name])

    def _check(self) -> None:
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            _check_type(name, value)
            about(field).check(name, value)
            if (of := about(field).of) and getattr(self, of[0]) != of[1] and value != field.default:
                raise ValueError(f"{name} is {value} and {of[0]} {getattr(self, of[0])!r}; it is of {of[1]}")
        for name in ("refresh", "adaptive", "correct_drift"):
            if self.drop_last and (was := getattr(self, name)):
                raise ValueError(f"drop_last is True and {name} {was}, which reads whole passes again; use one")
        if self.cuda_graph and (self.precision == "fp16" or self.checkpointing):
            other = "checkpointing is True" if self.checkpointing else "precision is 'fp16'"
            raise ValueError(f"cuda_graph is True and {other}, which asks the host within a step; use one of the two")
        if self.compile and self.checkpointing:
            raise ValueError(
                "compile is True and checkpointing True, which a compiled step cannot do; use one of the two"
            )


def _check_type(name: str, value: Any) -> None:
    """Raises TypeError, by name, for a value of another kind than the option's; from Python there may be any."""
    kinds = typing.get_args(_KINDS[name]) or (_KINDS[name],)
    if value is None and type(None) in kinds:
        return
    if bool in kinds:
        checks.flag(name, value)
    elif int in kinds:
        checks.integer(name, value)
    elif float in kinds:
        checks.expect(isinstance(value, int | float) and not isinstance(value, bool), name, value, "a number")
    else:
        checks.expect(isinstance(value, str), name, value, "a str")


_KINDS = typing.get_type_hints(Options)

FIELDS = {field.name: field for field in dataclasses.fields(Options)}
"""The options by name."""

MAY_CHANGE = tuple(name for name, field in FIELDS.items() if about(field).may_change)
"""The options that may be others when a run goes on."""


def _device(name: str | None) -> str:
    """The device of that name, else the best that there is."""
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # PyTorch without CUDA asserts
        raise ValueError(f"device is {name!r}, which PyTorch cannot use here: {error}") from error
    return str(device)
