"""Argument checks: every error names the argument, what it was, and what is allowed.

>>> mk.checks.number("height", 2, above=0)
2.0
>>> mk.checks.integer("k", 0.5)
Traceback (most recent call last):
TypeError: k ...
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable
from numbers import Real
from typing import ClassVar

import torch
from torch import Tensor

from mow_kernels.settings import Setting

WIDE = (torch.float32, torch.float64)
HALVES = (torch.float16, torch.bfloat16)
DTYPES = (*WIDE, *HALVES)


class check_finite(Setting):
    """Make the calls inside raise a ValueError on NaN or infinite input, or with `enabled` False not look for it.

        >>> with mk.check_finite():
        ...     value = mk.mmd(z, history)

    It takes a pass over the data and a host synchronisation for each call, hence is off by default. For this thread;
    outside, and on other threads, the environment variable MOW_CHECK_FINITE=1 turns it on.
    """

    outside: ClassVar[bool] = os.environ.get("MOW_CHECK_FINITE", "0") not in ("", "0")

    def __init__(self, enabled: bool = True) -> None:
        super().__init__(enabled)


def rows(name: str, value: object, *, batch: bool = False) -> Tensor:
    """A floating-point tensor [rows, D] with D >= 1, half types widened to float32; with `batch` also [B, rows, D].

    Raises:
        TypeError: not a tensor, or of another dtype.
        ValueError: of another rank or without columns; when checked, NaN or infinite.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} is {type(value).__name__}; it must be a tensor [rows, D]")
    if value.dtype not in DTYPES:
        raise TypeError(f"{name} has dtype {value.dtype}; it must be float16, bfloat16, float32 or float64")
    if value.dim() not in ((2, 3) if batch else (2,)) or value.shape[-1] == 0 or len(value) == 0 < value.dim() - 2:
        also = ", or [B, rows, D] with B >= 1 for a batch of windows" if batch else ""
        raise ValueError(f"{name} has shape {list(value.shape)}; it must be [rows, D] with D >= 1{also}")
    if check_finite.here() and not torch.isfinite(value).all():
        raise ValueError(f"{name} holds NaN or infinite values; they must be finite")
    return value.float() if value.dtype in HALVES else value


def companion(name: str, value: object, current: Tensor) -> Tensor:
    """Further rows that belong to `current`: same dtype once half types are widened, device and width, no gradient.
    Of a batch of windows [B, k, D] they belong to all, [rows, D], or to each its own, [B, rows, D].

    Raises:
        TypeError: not a tensor, or of another dtype than current.
        ValueError: another rank, width, number of windows or device, or it requires grad.
    """
    alike(name, value, current)
    checked, dim = rows(name, value, batch=current.dim() == 3), current.shape[-1]
    if checked.shape[-1] != dim:
        raise ValueError(f"{name} has shape {list(checked.shape)}; its width must be current's, D = {dim}")
    if checked.dim() == 3 and len(checked) != len(current):
        raise ValueError(
            f"{name} has shape {list(checked.shape)}; it must have as many windows as current: {len(current)}"
        )
    constant(name, checked, current)
    return checked


def choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    """Raises ValueError unless value is one of the allowed strings."""
    if value not in allowed:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, allowed))}")


def integer(name: str, value: object, allowed: str = "") -> int:
    """An integer as Python has them, from any that has one meaning, NumPy's included, but no bool.

    Raises:
        TypeError: no integer; `allowed` stands after "an integer" in its message.
    """
    if type(value) is int:
        return value
    try:
        if not isinstance(value, bool) and getattr(value, "dtype", None) != torch.bool:
            return operator.index(value)  # type: ignore[arg-type]  # raises a TypeError where it has none
    except TypeError:
        pass
    raise TypeError(f"{name} is {value!r}; it must be an integer{allowed}")


def flag(name: str, value: object) -> bool:
    """A bool as Python has it, NumPy's included; what is merely true or false, such as "no", is none.

    Raises:
        TypeError: no bool.
    """
    if type(value).__name__ not in ("bool", "bool_"):  # NumPy's have either name, by its version
        raise TypeError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def number(name: str, value: object, *, above: float = -math.inf, at_least: float = -math.inf) -> float:
    """A finite number as Python has them, greater than `above` and not less than `at_least`; NumPy's included, no bool.

    Raises:
        TypeError: not a real number.
        ValueError: out of bounds.
    """
    plain = type(value) is float or type(value) is int  # as nearly always; to ask for Real takes a microsecond
    if not plain and (isinstance(value, bool) or not isinstance(value, Real)):
        raise TypeError(f"{name} is {value!r}; it must be a number {_bounds(above, at_least)}")
    converted = float(value)  # type: ignore[arg-type]  # it was seen to be a number
    if not (math.isfinite(converted) and converted > above and converted >= at_least):
        raise ValueError(f"{name} is {value!r}; it must be finite and {_bounds(above, at_least)}")
    return converted


def _bounds(above: float, at_least: float) -> str:
    return f"> {above:g}" if above > -math.inf else f">= {at_least:g}"


def positive_numbers(name: str, value: Iterable[float]) -> tuple[float, ...]:
    """One or more finite positive numbers.

    Raises:
        TypeError: not an iterable of real numbers.
        ValueError: empty, or one of them not positive and finite.
    """
    if isinstance(value, (str, Tensor)) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {value!r}; it must be a sequence of positive numbers")
    checked = tuple(number(f"{name}[{i}]", each, above=0) for i, each in enumerate(value))
    if not checked:
        raise ValueError(f"{name} is empty; it must hold at least one positive number")
    return checked


def alike(name: str, value: object, current: Tensor) -> None:
    """Raises TypeError for a tensor of another dtype than current; half types go with float32."""
    if isinstance(value, Tensor) and widened(value.dtype) != widened(current.dtype):
        raise TypeError(f"{name} has dtype {value.dtype} and current {current.dtype}; they must be equal")


def widened(dtype: torch.dtype) -> torch.dtype:
    """float32 for a half type, in which sums would lose their digits; any other stays."""
    return torch.float32 if dtype in HALVES else dtype


def constant(name: str, value: Tensor, current: Tensor) -> None:
    """Raises ValueError unless value is on current's device and needs no gradient."""
    if value.device != current.device:
        raise ValueError(f"{name} is on {value.device} and current on {current.device}; they must be on one device")
    if value.requires_grad:
        raise ValueError(
            f"{name} requires grad, but only current receives a gradient: pass {name}.detach() "
            "(for a gradient to both samples, call twice with the roles exchanged)"
        )
