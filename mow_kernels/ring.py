"""A ring of rows on a device, whose head the host does not know: one launch each for what a window does with it."""

from __future__ import annotations

import torch
from torch import Tensor

from mow_kernels import architectures, checks, native
from mow_kernels.registry import Newest


class Ring:
    """The rows of a window, and what writes and reads them where they are.

        >>> slots, head = torch.zeros(4, 2), torch.tensor(3)
        >>> ring = mk.Ring(slots, head)
        >>> ring.push(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        >>> head, ring.newest(2)
        (tensor(1), tensor([[1., 2.],
                [3., 4.]]))

    Nothing waits for the device, so a CUDA graph can capture it, and its replay goes on where the last one ended. In
    float32 and float64 on a CUDA device each is one launch, of PyTorch's own four to six.

    Args:
        slots: [n, D], written in place.
        head: 0-d int64 on the same device, the slot that is written next.

    Raises:
        TypeError: one of them is no such tensor, by name.
    """

    def __init__(self, slots: Tensor, head: Tensor) -> None:
        right = isinstance(slots, Tensor) and isinstance(head, Tensor) and slots.dim() == 2 and head.dim() == 0
        if not (right and slots.dtype in checks.DTYPES and head.dtype is torch.int64):  # one is made at each push
            raise TypeError(
                f"slots is {_form(slots)} and head {_form(head)}; they must be floating-point rows [n, D] and int64 []"
            )
        self._slots, self._head = slots, head

    def __repr__(self) -> str:
        return f"Ring(slots={list(self._slots.shape)}, device={str(self._slots.device)!r})"

    def newest(self, count: int) -> Tensor:
        """The newest rows [count, D], oldest first, a copy; count <= n."""
        if fused(self._slots):
            rows: Tensor = torch.ops.mow_kernels.ring_newest(self._slots, self._head, count)
            return rows
        return self._slots[self._at(self._head - count, count)]

    def last(self, count: int) -> Newest:
        """The newest rows [count, D], where they are: the history of a `gradient`, 1 <= count <= n."""
        return Newest(self._slots, self._head, count, self.newest)

    def push(self, rows: Tensor) -> None:
        """Write rows [k, D] of the slots' dtype, k <= n, and move the head."""
        if fused(self._slots):
            torch.ops.mow_kernels.ring_push(self._slots, self._head, rows)
            torch.autograd.graph.increment_version([self._slots, self._head])  # as what PyTorch writes in place does
            return
        self._slots[self._at(self._head, len(rows))] = rows
        self._head.add_(len(rows)).remainder_(len(self._slots))

    def _at(self, start: Tensor, rows: int) -> Tensor:
        return (start + torch.arange(rows, device=self._slots.device)) % len(self._slots)


def _form(value: object) -> str:
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def fused(slots: Tensor) -> bool:
    """Whether the native library has kernels for such rows."""
    if torch.compiler.is_compiling() or not slots.is_cuda or slots.dtype not in (torch.float32, torch.float64):
        return False
    return native.has("ring_push", "cuda") and architectures.uncovered(slots.device) is None
