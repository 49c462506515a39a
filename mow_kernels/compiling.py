"""What torch.compile is told of a function, without importing the compiler."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def constant_in_graphs(function: Callable[P, T]) -> Callable[P, T]:
    """torch.compile calls the function while it traces and takes the result for a constant.

    As `torch.compiler.assume_constant_result`, which imports the compiler: as long again as the import of PyTorch.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]  # where the compiler looks
    return function
