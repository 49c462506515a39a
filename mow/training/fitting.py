"""A training that is looked at: what `Trainer.fit` measures beside the steps, and shows and keeps of it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mow.checks import flag, natural, positive
from mow.training.history import Callback, History, Record
from mow.training.passes import at_once, evaluating, taken_by
from mow.training.progress import shown
from mow.training.step import squared_errors
from mow.training.stream import Pictures, ShuffledStream

if TYPE_CHECKING:
    from mow.training.trainer import Trainer


def fit(
    trainer: Trainer,
    pictures: ShuffledStream | Pictures,
    steps: int,
    *,
    warm_up: bool,
    drop_last: bool,
    log_every: int,
    test: Pictures | None,
    test_every: int,
    callbacks: Callback | Sequence[Callback],
    progress: bool | None,
) -> History:
    """`Trainer.fit`; arguments and errors as there."""
    steps, log_every = natural("steps", steps), positive("log_every", log_every)
    test_every = positive("test_every", test_every)
    progress = None if progress is None else flag("progress", progress)
    told = list(callbacks) if isinstance(callbacks, Iterable) else [callbacks]
    for callback in told:
        if not callable(callback):
            raise TypeError(f"callbacks holds a {type(callback).__name__}; it must be callables of a record")
    held_out = None if test is None else ShuffledStream(test)

    def tested(step: int) -> bool:
        return held_out is not None and (step % test_every == 0 or step == steps)

    def measured(step: int) -> bool:
        return step % log_every == 0 or step == steps or tested(step)

    trainer.history.cut(trainer.steps_done)
    with shown(progress if trainer.exchange.first else False, steps, lambda: trainer.steps_done) as show:
        for result in trainer.run(pictures, steps, warm_up=warm_up, drop_last=drop_last, measured=measured):
            step = trainer.steps_done
            if not measured(step):
                continue
            record: Record = {"step": step, "pictures": trainer.pictures_seen}
            record |= {name: float(value) for name, value in result.items()}
            if held_out is not None and tested(step):
                record |= scores(trainer, held_out)
            trainer.history.add(record)
            for callback in (show, *told):
                callback(record)
    return trainer.history


def scores(trainer: Trainer, pictures: ShuffledStream) -> dict[str, float]:
    """How good a trainer's networks are on pictures that they were not trained on, in evaluation mode.

    No trace is left: what is drawn for it is not missing in the training.

    Returns:
        test_reconstruction: the mean over all pictures of the sum of squares of the error.
        test_distance: of the latents of the first n to the prior, by the trainer's distance without the logarithm, so
            that it compares with `distance`.
    """
    errors: list[Tensor] = []
    latents: list[Tensor] = []
    size = at_once(next(pictures.in_order(1)).shape[1:])
    with evaluating(trainer.encoder, trainer.decoder), torch.random.fork_rng():
        for piece in pictures.in_order(size):
            x = taken_by(trainer.encoder, piece)
            z = trainer.encoder(x)
            errors.append(squared_errors(trainer.decoder(z), x).double())
            latents.append(z[: max(0, trainer.window.n - sum(map(len, latents)))])
        distance = copy.deepcopy(trainer.distance).measure(torch.cat(latents))
    return {"test_reconstruction": float(torch.cat(errors).mean()), "test_distance": float(distance)}
