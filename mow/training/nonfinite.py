"""What a training does with a value that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from mow.window.window import MovingWindow

ON_NONFINITE = ("stop", "skip", "ignore")


def admits(on_nonfinite: str, health: Tensor, message: Callable[[], str]) -> bool:
    """Whether a step may be taken, which it may if this 0-d tensor is finite. "ignore" does not look at it, which a GPU
    would have to be waited for.

    Raises:
        FloatingPointError: with this message, if it is not finite and on_nonfinite is "stop".
    """
    if on_nonfinite == "ignore" or math.isfinite(health):
        return True
    if on_nonfinite == "stop":
        raise FloatingPointError(message())
    return False


class FiniteRows:
    """Which rows may enter a window: those that are finite in its dtype, which may be narrower than theirs.

    Args:
        on_nonfinite: "stop" raises where one is not, "skip" leaves it out and counts it in `left_out`, "ignore" takes
            all and does not look.

    Raises:
        ValueError: another word.
    """

    def __init__(self, on_nonfinite: str) -> None:
        if on_nonfinite not in ON_NONFINITE:
            raise ValueError(
                f"on_nonfinite is {on_nonfinite!r}; it must be one of {', '.join(map(repr, ON_NONFINITE))}"
            )
        self.on_nonfinite, self.left_out = on_nonfinite, 0

    def __call__(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Of rows [K, D] those that may enter a window of this dtype.

        Raises:
            FloatingPointError: one is not finite and on_nonfinite is "stop".
        """
        if self.on_nonfinite == "ignore":
            return rows
        kept = rows if rows.dtype is dtype else rows.to(dtype)
        if math.isfinite(kept.sum()):  # as it nearly always is, so this is all that a step pays for
            return rows
        finite = kept.isfinite().all(1)
        left_out = len(rows) - int(finite.sum())
        if left_out and self.on_nonfinite == "stop":
            raise FloatingPointError(
                f"{left_out} of {len(rows)} latents for the window are not finite; the window is as it was, the "
                "weights are those that gave them (on_nonfinite='skip' would leave such latents out)"
            )
        self.left_out += left_out
        return rows[finite]

    def push(self, rows: Tensor, window: MovingWindow) -> None:
        """Those of rows [K, D] that may enter a window, into it; raises as a call does."""
        rows = self(rows, window.latents.dtype)
        if rows.shape[0]:
            window.push(rows)

    def fill(self, rows: Tensor, window: MovingWindow) -> None:
        """`push` into a window that starts afresh with them; without any it stays as it was."""
        rows = self(rows, window.latents.dtype)
        if rows.shape[0]:
            window.fill(rows)
