"""How the reconstruction error and the distance are scaled against each other: a row of a table for each way.

>>> from mow.training.weighting import WEIGHTINGS
>>> {name: (row.divisor(2), row.scale(64, 2)) for name, row in WEIGHTINGS.items()}
{'reference': (2, 1.0), 'paper': (1, 1.0), 'compensated': (2, 32.0)}
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

ROOT_FLOOR = 1e-6
"""Below it the root's slope stays what it is there: a picture met to the bit has a gradient of 0, not of NaN."""


@dataclass(frozen=True)
class Weighting:
    """A way to form the cost R + weight * s * T(F) of a step with k new elements and n rows present.

    k and n count the rows of all processes.
    """

    divisor: Callable[[int], float]
    """What the sum of the k reconstruction errors is divided by, from k, which gives R."""
    scale: Callable[[int, int], float]
    """The scale s, from n and k."""
    root: bool = True
    """Whether the square root of R may be taken in its place; it makes sense of a mean."""

    def reconstruction(self, total: Tensor, k: int, root: bool) -> Tensor:
        """R, from the sum of all k errors. 0-d -> 0-d."""
        reduced = over(total, self.divisor(k))
        return reduced.sqrt() if root else reduced

    def slope(self, errors: Tensor, reconstruction: Tensor, k: int, root: bool) -> Tensor:
        """dR / d error for some of the k errors, from R. [<= k] -> [<= k]."""
        divisor = self.divisor(k)
        if root:
            return over(torch.ones_like(errors) / (2 * reconstruction.clamp(min=ROOT_FLOOR)), divisor)
        return torch.full_like(errors, 1 / divisor)


def over(value: Tensor, divisor: float) -> Tensor:
    """The quotient, which for 1 is the value itself: on a GPU every division is a launch."""
    return value if divisor == 1 else value / divisor


WEIGHTINGS: dict[str, Weighting] = {
    "reference": Weighting(divisor=lambda k: k, scale=lambda n, k: 1.0),
    "paper": Weighting(divisor=lambda k: 1, scale=lambda n, k: 1.0, root=False),
    "compensated": Weighting(divisor=lambda k: k, scale=lambda n, k: n / k),
}
"""The weightings by name; what each means stands in the docstring of `mow.Trainer`."""
