"""The moving window: the newest n latents, kept as constants for the distance of the next step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class MovingWindow(nn.Module):
    """The newest n latents, in buffers, so that `.to()`, `state_dict` and resuming just work.

    Fill it with the latents of n-k elements (step 1 of the paper), or let it grow from empty; after each optimiser
    step, push the k new ones. `len(window)` rows are present.

    Args:
        n: window size, >= 1: the rows that a distance sees, k new ones included.
        dim: latent width D, >= 1.
        dtype, device: of the latents; PyTorch's defaults.

    Raises:
        ValueError, TypeError: n or dim is not a positive integer.

    Source: "One-element Batch Training by Moving Window" (2019), section 3.
    """

    latents: Tensor
    """[n, dim], a ring: the rows present end just before `head`."""
    head: Tensor
    """0-d int64, the row that the next push writes first. A tensor, for torch.compile and CUDA graphs."""
    count: Tensor
    """0-d int64, the rows present."""

    def __init__(
        self, n: int, dim: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.n, self.dim = _positive("n", n), _positive("dim", dim)
        self.register_buffer("latents", torch.zeros(n, dim, dtype=dtype, device=device))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=device))
        self._length = 0  # count on the host, so that len() never waits for a device

    def __len__(self) -> int:
        return self._length

    def history(self, k: int) -> Tensor:
        """The newest min(len, n-k) rows, oldest first: what precedes k new elements. Empty when k >= n.

        Args:
            k: how many new elements the step has, >= 1.

        Returns:
            [h, dim], a copy.
        """
        rows = max(0, min(self._length, self.n - _positive("k", k)))
        return self.latents[self._ring(self.head - rows, rows)]

    @torch.no_grad()
    def push(self, z: Tensor) -> None:
        """Append rows, detached and copied, and drop the oldest beyond n.

        Args:
            z: [k, dim], k >= 1; of more than n rows the newest n.

        Raises:
            TypeError: z is not a floating-point tensor.
            ValueError: its shape or device does not fit; the window stays as it was.
        """
        self._check(z)
        z = z[-self.n :]
        self.latents[self._ring(self.head, len(z))] = z.to(self.latents.dtype)
        self.head.add_(len(z)).remainder_(self.n)
        self._length = min(self.n, self._length + len(z))
        self.count.fill_(self._length)

    @torch.no_grad()
    def fill(self, z: Tensor) -> None:
        """Start afresh with these rows: step 1 of the paper, z = encoder(x) of n-k elements with the initial weights.

        Args and errors as for `push`.
        """
        self._check(z)
        self.head.zero_()
        self._length = 0
        self.push(z)

    def extra_repr(self) -> str:
        return f"n={self.n}, dim={self.dim}, present={self._length}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        latents = state_dict.get(prefix + "latents")
        if latents is not None and latents.shape != self.latents.shape:
            errors: list[str] = rest[-1]  # what load_state_dict raises; nothing has been copied yet
            errors.append(f"latents has shape {list(latents.shape)}; this window's is {list(self.latents.shape)}")
            return
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._length = int(self.count)

    def _ring(self, start: Tensor, rows: int) -> Tensor:
        return (start + torch.arange(rows, device=self.latents.device)) % self.n

    def _check(self, z: Tensor) -> None:
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError(f"z is {getattr(z, 'dtype', type(z).__name__)}; it must be a floating-point tensor")
        if z.dim() != 2 or z.shape[1] != self.dim or len(z) == 0:
            raise ValueError(f"z has shape {list(z.shape)}; it must be [k, {self.dim}] with k >= 1")
        if z.device != self.latents.device:
            raise ValueError(f"z is on {z.device} and the window on {self.latents.device}; they must be on one device")


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is {value!r}; it must be an integer >= 1")
    if value < 1:
        raise ValueError(f"{name} is {value}; it must be >= 1")
    return value
