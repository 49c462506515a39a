"""Settings of the calling context: what one thread chooses, another does not see."""

from __future__ import annotations

import threading
from contextlib import ContextDecorator
from contextvars import ContextVar, Token
from typing import Any, ClassVar

from mow_kernels.compiling import constant_in_graphs

ENTERED: dict[str, list[Any]] = {}
"""`Setting.active` of each setting by its name, for what torch.compile traces: to PyTorch 2.11's compiler all that a
class has is constant, so that it would not see the choice change."""


class Setting(ContextDecorator):
    """A value for the calls inside a `with` block, or a function that it decorates, on this thread alone.

    A call asks `active` first, which is all that it pays for outside of such blocks. torch.compile guards on it, as
    `ENTERED` has it, and takes the value for a constant.
    """

    outside: ClassVar[Any]
    """The value where no block is entered."""

    active: ClassVar[list[Any]]
    """The values of all blocks that are entered at the moment, on any thread."""

    _here: ClassVar[ContextVar[Any]]

    def __init_subclass__(cls) -> None:
        cls._here, cls.active = ContextVar(cls.__name__), []
        ENTERED[cls.__name__] = cls.active

    def __init__(self, value: Any) -> None:
        self._value = value
        self._tokens: list[Token[Any]] = []

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._value!r})"

    def __enter__(self) -> None:
        self._tokens.append(self._here.set(self._value))
        with _LOCK:
            self.active.append(self._value)

    def __exit__(self, *error: object) -> None:
        with _LOCK:
            self.active.remove(self._value)
        self._here.reset(self._tokens.pop())

    def _recreate_cm(self) -> Setting:
        """For each call of a decorated function one of its own, as it may run on several threads."""
        return type(self)(self._value)

    @classmethod
    def here(cls) -> Any:
        """The value on this thread."""
        return _here(cls) if ENTERED[cls.__name__] else cls.outside


@constant_in_graphs
def _here(setting: type[Setting]) -> Any:
    return setting._here.get(setting.outside)


_LOCK = threading.Lock()
