"""The distances as their callers see them: a decorator turns the check of their arguments into the call."""

from __future__ import annotations

from typing import Any

import griffe


class Distances(griffe.Extension):
    def on_function_instance(self, *, func: griffe.Function, **_: Any) -> None:
        if any(decorator.callable_path.endswith("_distance") for decorator in func.decorators):
            func.returns = griffe.ExprName("Tensor", parent=func.parent)
