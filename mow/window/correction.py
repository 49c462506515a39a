"""Old rows carried along with the encoder: from a few that are encoded again, how all of them have moved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mow.checks import positive
from mow.naming import named

if TYPE_CHECKING:
    from mow.distributed.sharded_window import ShardedWindow
    from mow.window.window import MovingWindow

ROWS_PER_COORDINATE = 4
"""Rows that are encoded again at a time, over the latent width D: (1) has D + 1 numbers for each coordinate."""

GOLDEN = 0.6180339887498949
"""The golden ratio, whose multiples fall evenly between two integers, however many: each row has its turn."""


class DriftCorrection:
    r"""Carries the rows of a window along with the encoder, so that a long window is as young as a short one.

        >>> trainer = mow.Trainer(encoder, decoder, mow.CramerWold(), window, correction=mow.DriftCorrection())

    or in a loop of your own, every `correction.every` steps, with the pictures whose latents are in the window:

        >>> correction, window = mow.DriftCorrection(rows=32), mow.MovingWindow(512, 8)
        >>> window.fill(torch.randn(512, 8))
        >>> ages = correction.ages(window, look=0)        # age 1 is that of the row that was pushed last
        >>> z = 0.9 * window.at(ages) + 0.1               # encoder(pictures of these ages): it has moved since
        >>> correction.correct(window, ages, z)
        >>> bool(correction.left < 0.1 * correction.moved)
        True

    With few new elements a step, most rows of a window lie where older weights have put them. Much of how they have
    moved since is common to all: a shift, a scale, a turn. It is measured: every so many steps some pictures of the
    window are encoded again without a gradient, of ages that lie evenly over it, and the least squares fit

        z_now - z = (z - m) A + b,        |A|^2 weighing as D rows of the latents' variance,                        (1)

    moves every row of the window; those that were encoded again are what they are now. m is the mean of those rows. The
    pairs of z_now and z stand for the same pictures, so that what is corrected is the encoder and not the sample.

    Nothing is drawn, and nothing kept from one time to the next but `moved` and `left`, to be read; they are its state.

    Args:
        every: steps from one correction to the next, >= 1.
        rows: to encode again each time, >= 2; None for 4 D. As many as are there, where that is less.

    Raises:
        TypeError, ValueError: a bad argument, by name.

    Source: ours. A shift of stored features by those of the current data is known from continual learning ("Semantic
    Drift Compensation", Yu et al., 2020), scale and shift of a memory of embeddings from metric learning ("Adaptive
    Cross Batch Normalization", Ajanthan et al., 2023).
    """

    def __init__(self, *, every: int = 8, rows: int | None = None) -> None:
        self.every, self.rows = positive("every", every), None if rows is None else positive("rows", rows)
        if self.rows == 1:
            raise ValueError("rows is 1; it must be at least 2")
        self.moved: Tensor | None = None
        """The mean square of a coordinate by which the rows that were encoded again were off, 0-d."""
        self.left: Tensor | None = None
        """What (1) leaves of it."""

    def __repr__(self) -> str:
        return named(self, every=self.every, rows=self.rows)

    def ages(self, window: MovingWindow | ShardedWindow, look: int) -> list[int]:
        """The ages of the rows to encode again the look-th time: evenly over those present, others each time."""
        present = len(window)
        count = min(self.rows or ROWS_PER_COORDINATE * window.dim, present)
        return [1 + int((i + GOLDEN * look % 1) * present / count) for i in range(count)]

    @torch.no_grad()
    def correct(self, window: MovingWindow | ShardedWindow, ages: Sequence[int], z: Tensor) -> None:
        """Move the rows of the window.

        Args:
            window: whose rows they are.
            ages: of `ages`, at least one.
            z: [len(ages), D], what the encoder makes today of the pictures whose rows these are; finite.
        """
        wide = torch.promote_types(window.latents.dtype, torch.float32)
        old, z = window.at(ages).to(wide), z.detach().to(wide)
        moved, mean = z - old, old.mean(0)
        centred, shift = old - mean, moved.mean(0)
        dim = window.dim
        own = centred.T @ centred
        ridge = own.diagonal().mean() * (dim / len(ages)) + torch.finfo(wide).tiny
        own.diagonal().add_(ridge)
        matrix = torch.linalg.solve(own, centred.T @ (moved - shift))
        window.carry(matrix, shift - mean @ matrix, ages, z)
        self.moved, self.left = moved.square().mean(), (moved - shift - centred @ matrix).square().mean()

    def state_dict(self) -> dict[str, Tensor | None]:
        """What was found last."""
        return {"moved": self.moved, "left": self.left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave.

        Raises:
            KeyError: it is no such state.
        """
        self.moved, self.left = state["moved"], state["left"]
