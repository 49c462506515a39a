"""Argument checks that several modules share: every error names the argument, what it was, and what is allowed."""

from __future__ import annotations


def positive(name: str, value: int) -> int:
    """An integer >= 1.

    Raises:
        TypeError: no integer.
        ValueError: below 1.
    """
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer >= 1")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be >= 1")
    return value
