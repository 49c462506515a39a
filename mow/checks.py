"""Argument checks that several modules share: every error names the argument, what it was, and what is allowed."""

from __future__ import annotations

from torch import Tensor

import mow_kernels as mk

flag, integer, number = mk.checks.flag, mk.checks.integer, mk.checks.number


def positive(name: str, value: object) -> int:
    """An integer >= 1.

    Raises:
        TypeError: no integer.
        ValueError: below 1.
    """
    return _at_least(1, name, value)


def natural(name: str, value: object) -> int:
    """An integer >= 0; raises as `positive` does."""
    return _at_least(0, name, value)


def _at_least(least: int, name: str, value: object) -> int:
    checked = integer(name, value, f" >= {least}")
    if checked < least:
        raise ValueError(f"{name} is {checked}; it must be >= {least}")
    return checked


def expect(right: bool, name: str, value: object, allowed: str) -> None:
    """That an argument is of the right kind: an object, not its class and not a name for it.

    Raises:
        TypeError: it is not.
    """
    if not right:
        was = f"the class {value.__name__}" if isinstance(value, type) else f"of type {type(value).__name__}"
        raise TypeError(f"{name} is {was}; it must be {allowed}")


def output(name: str, value: object, dims: int | None, form: str) -> Tensor:
    """What a network of the user's gives, where it is a tensor of so many dimensions, or of any for None.

    Raises:
        TypeError: no tensor; the message has the line that takes one out of a tuple or a dict.
        ValueError: a tensor of another form.
    """
    if not isinstance(value, Tensor):
        keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, tuple | list) else []
        was = f"a {type(value).__name__}" + (f" of {', '.join(map(repr, keys))}" if keys else "")
        hook = f"{name}.register_forward_hook(lambda module, inputs, output: output[{next(iter(keys), 0)!r}])"
        line = f", e.g. by the line {hook}" if keys else ""
        raise TypeError(f"the {name} gives {was}; it must give {form}{line}")
    if dims is not None and value.dim() != dims:
        line = f"{name} = torch.nn.Sequential({name}, torch.nn.Flatten())"
        hint = f", e.g. by the line {line}" if value.dim() > dims else ""
        raise ValueError(f"the {name} gives shape {list(value.shape)}; it must give {form}{hint}")
    return value
