"""What a window keeps for the distances that are measured at every step: running sums or sorted projections."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor

from mow_kernels import RunningSums, SortedProjections

if TYPE_CHECKING:
    from mow.window.prior_window import PriorWindow

Samples = Callable[[], tuple[Tensor, Tensor | None]]
"""The history and the prior of a measurement, see `RunningSums.distance`."""


class SumsWithPrior:
    """Running sums against a `PriorWindow`, which they ask for new rows with each measurement."""

    def __init__(self, sums: RunningSums, prior: PriorWindow) -> None:
        self._sums, self._prior = sums, prior
        self._fresh: Tensor | None = None
        self._drawn: object = prior.state()

    @property
    def in_step(self) -> bool:
        """Whether each row of the prior came with a row of the window."""
        return self._fresh is None and self._drawn == self._prior.state()

    def distance(self, z: Tensor, *, samples: Samples) -> Tensor:
        """`RunningSums.distance` with new rows."""
        return self._sums.distance(z, self._advance(len(z)), samples=samples)

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`RunningSums.gradient` with new rows."""
        return self._sums.gradient(z, self._advance(len(z)))

    def push(self, rows: Tensor) -> None:
        """`RunningSums.push` with the rows that were drawn for the last measurement."""
        fresh, self._fresh = self._fresh, None
        if fresh is not None and len(fresh) == len(rows):
            self._sums.push(rows, fresh)
        else:
            self._drawn = None

    def _advance(self, k: int) -> Tensor:
        self._fresh = self._prior.advance(k)
        self._drawn = self._prior.state()
        return self._fresh


Running = RunningSums | SortedProjections | SumsWithPrior


class KeptSums:
    """They begin with the second of two steps that measure the same distance, so that a measurement now and then does
    not set up what nobody uses, and end with a push before which it was not measured."""

    def __init__(self) -> None:
        self.forget()

    def forget(self, begin_at_once: bool = False) -> None:
        """What a window that was changed by other means than a push has to do.

        Args:
            begin_at_once: with the first step, as what was saved between two steps did not have to begin again.
        """
        self._sums: dict[Any, Running] = {}
        self._measured: set[Any] = set()
        self._measured_before: set[Any] = set()
        self._begin_at_once = begin_at_once

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._sums)

    def measure(
        self, key: Any, set_up: Callable[[], Running], still_fits: Callable[[Any], bool] = lambda sums: True
    ) -> Running | None:
        """The sums for the distance that key stands for, if they have begun; anew if they do not fit any more."""
        self._measured.add(key)
        sums = self._sums.get(key)
        if self.will_be_there(key) and (sums is None or not still_fits(sums)):
            sums = self._sums[key] = set_up()
        return sums

    def will_be_there(self, key: Any) -> bool:
        """Whether `measure` would give sums."""
        return key in self._sums or key in self._measured_before or self._begin_at_once

    def push(self, rows: Tensor) -> None:
        """To be told of every push."""
        if self._sums or self._measured or self._begin_at_once:
            self._sums = {key: sums for key, sums in self._sums.items() if key in self._measured}
            self._measured_before, self._measured = self._measured, set()
            self._begin_at_once = False
            for sums in self._sums.values():
                sums.push(rows)
