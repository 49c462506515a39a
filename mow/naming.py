"""How objects say what they are."""

from __future__ import annotations

from torch import Tensor
from torch.optim import Optimizer


class Word(str):
    """Text that stands in a repr as it is."""


def named(owner: object, **parts: object) -> str:
    """The repr of an object from its parts, on one line: a tensor is its shape, a float has four digits.

    >>> named(ValueError(), rows=torch.zeros(3, 2), rate=0.00012345, name="it")
    "ValueError(rows=[3, 2], rate=0.0001234, name='it')"
    """
    return f"{type(owner).__name__}({', '.join(f'{name}={_part(value)}' for name, value in parts.items())})"


def optimizer_name(optimizer: Optimizer) -> Word:
    """An optimiser with its learning rate, without its many other options."""
    return Word(f"{type(optimizer).__name__}(lr={float(optimizer.param_groups[0]['lr']):.4g})")


def _part(value: object) -> str:
    if isinstance(value, Word):
        return value
    if isinstance(value, Tensor):
        return str(list(value.shape))
    if isinstance(value, tuple):
        return f"({', '.join(map(_part, value))})"
    text = f"{value:.4g}" if isinstance(value, float) else repr(value)
    return " ".join(text.split()).replace("( ", "(").replace(" )", ")")  # modules within modules take several lines
