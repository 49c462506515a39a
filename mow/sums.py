"""Which running sums a window keeps: those of the distances that are measured at every step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from mow_kernels import RunningSums


class KeptSums:
    """They begin with the second of two steps that measure the same distance, so that a measurement now and then does
    not set up what nobody uses, and end with a push before which it was not measured."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """What a window that was changed by other means than a push has to do."""
        self._sums: dict[Any, RunningSums] = {}
        self._measured: set[Any] = set()
        self._measured_before: set[Any] = set()

    def measure(self, key: Any, set_up: Callable[[], RunningSums]) -> RunningSums | None:
        """The sums for the distance that key stands for, if they have begun."""
        self._measured.add(key)
        if key not in self._sums and key in self._measured_before:
            self._sums[key] = set_up()
        return self._sums.get(key)

    def will_be_there(self, key: Any) -> bool:
        """Whether `measure` would give sums."""
        return key in self._sums or key in self._measured_before

    def push(self, rows: Tensor) -> None:
        """To be told of every push."""
        if self._sums or self._measured:
            self._sums = {key: sums for key, sums in self._sums.items() if key in self._measured}
            self._measured_before, self._measured = self._measured, set()
            for sums in self._sums.values():
                sums.push(rows)
