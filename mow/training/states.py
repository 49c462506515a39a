"""A state is taken over as a whole or not at all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

State = dict[str, Any]


def take_over(state: State, load: Callable[[State], None], now: Callable[[], State]) -> None:
    """load(state); where that raises, what `now` gave before is loaded again, and the error goes on.

    Args:
        load: takes over what `now` gives, part by part.
        now: the state of this moment.
    """
    before = copy.deepcopy(now())
    try:
        load(state)
    except BaseException:
        load(before)
        raise
