"""The sizes at which launchers change from one way to another: estimates, which the environment sets for measuring."""

from __future__ import annotations

import os


def threshold(variable: str, otherwise: int) -> int:
    """The integer in an environment variable, read when the launcher is imported, or what holds without it.

    Raises:
        ValueError: it is no integer >= 0.
    """
    given = os.environ.get(variable)
    if given is None:
        return otherwise
    if not given.isdecimal():
        raise ValueError(f"{variable} is {given!r}; it must be an integer >= 0")
    return int(given)
