"""What a step exchanges with the other processes of a training. Here there is one process, and nothing is exchanged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from mow.window.distances import Distance
from mow.window.window import MovingWindow


class Exchange:
    """The exchange of one process. `mow.distributed.RankExchange` is that of several, with the same methods.

    Rows enter the window by `enter` alone. A step calls `encode`, `receive`, `gradient` and `backward` in this order,
    then `push` if it encodes again.
    """

    accepted: Callable[[Tensor, torch.dtype], Tensor] = staticmethod(lambda rows, dtype: rows)
    """Which of some rows may enter a window of a dtype, maybe none; or raises: `mow.training.nonfinite.FiniteRows`."""

    first: bool = True
    """Whether this process is the one that writes and shows."""

    def enter(self, rows: Tensor, window: MovingWindow) -> None:
        """Rows of all processes [K, D] into the window, as far as they are `accepted`."""
        rows = self.accepted(rows, window.latents.dtype)
        if rows.shape[0]:
            window.push(rows)

    def encode(self, encoder: nn.Module, x: Tensor, total: int | None) -> Tensor:
        """The latents of this process's new elements, which are on their way to the others from now on.

        Args:
            encoder: from [k, ...] to latents [k, D].
            x: [k, ...], the new elements.
            total: those of all processes, None where that is not known.
        """
        latents: Tensor = encoder(x)
        return latents

    def receive(self, z: Tensor, window: MovingWindow) -> Tensor:
        """The latents of all processes [K, D], in the order of the data, from this one's; the window is up to date."""
        return z

    def gradient(
        self, distance: Distance, rows: Tensor, window: MovingWindow, measure: bool
    ) -> tuple[Tensor, Tensor | None]:
        """What `Distance.gradient` gives over the window and all rows, but the gradient for this process's rows."""
        return distance.gradient(rows, window, measure=measure)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a 0-d tensor over the processes."""
        return value

    def backward(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor], health: Tensor) -> Tensor:
        """Back-propagate these gradients at these tensors. The parameters' gradients are then those of all processes.

        Returns:
            0-d, finite only if `health`, 0-d, is so in every process.
        """
        torch.autograd.backward(tensors, gradients)
        return health

    def push(self, z: Tensor, window: MovingWindow) -> None:
        """Latents of this process's new elements into the window, by the next `receive` or `settle`."""
        self.enter(z, window)

    def agreed(self, error: Tensor, distance: Tensor) -> Tensor:
        """The sum of the errors over the processes, which must have measured one distance.

        Raises:
            RuntimeError: they have not.
        """
        return error

    def settle(self, window: MovingWindow) -> None:
        """Bring the window up to date."""

    def gather(self, z: Tensor, total: int) -> Tensor:
        """What `receive` does, of this process's `share` of any number of rows."""
        return z

    def share(self, total: int) -> slice:
        """Which of so many elements are this process's."""
        return slice(total)

    def count(self, x: Tensor) -> int:
        """How many new elements all processes had in the last step, of which this one had x."""
        return x.shape[0]

    def guard(self, step: int) -> AbstractContextManager[None]:
        """Around all that is exchanged in a step: another process may be lost."""
        return nullcontext()
