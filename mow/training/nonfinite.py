"""What a training does with a value that is not finite."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

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
