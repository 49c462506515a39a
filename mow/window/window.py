"""The moving window: the newest n latents, kept as constants for the distance of the next step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow.checks import positive
from mow.window.kept import Kept

RUNNING_PAIRS = 1 << 14
"""Pairs within the history from which on running sums are worth their bookkeeping, which a small window pays for."""


class MovingWindow(nn.Module):
    """The newest n latents, in buffers, so that `.to()`, `state_dict` and resuming just work.

        >>> window = mow.MovingWindow(n=64, dim=8)
        >>> window.fill(torch.randn(63, 8))
        >>> window.push(torch.randn(1, 8))
        >>> len(window), window.history(1).shape
        (64, torch.Size([63, 8]))

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
        self.n, self.dim = positive("n", n), positive("dim", dim)
        self.register_buffer("latents", torch.zeros(n, dim, dtype=dtype, device=device))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=device))
        self.present = 0  # count on the host, so that nothing waits for a device
        self._position = 0  # head on the host, as long as the window is in the state that `seen` tells
        self._kept = Kept()
        self.seen: tuple[int, ...] | None = self.state()
        """The state in which the window was when it was last looked at."""

    def __len__(self) -> int:
        return self.present

    def history(self, k: int) -> Tensor:
        """The newest min(len, n-k) rows, oldest first: what precedes k new elements. Empty when k >= n.

            window.history(len(z))          # what `distance(z, window)` puts before z

        Args:
            k: how many new elements the step has, >= 1.

        Returns:
            [h, dim], a copy.

        Raises:
            TypeError, ValueError: k is no integer >= 1.
        """
        if type(k) is not int or k < 1:
            positive("k", k)
        return self._newest(max(0, min(self.present, self.n - k)))

    def newest(self, rows: int) -> Tensor:
        """The newest rows [rows, dim], oldest first, a copy.

        Raises:
            ValueError: there are not so many.
        """
        if rows > self.present:
            raise ValueError(f"rows is {rows}; the window has {self.present}")
        return self._newest(rows)

    def push(self, z: Tensor) -> None:
        """Append rows, detached and copied, and drop the oldest beyond n.

        Args:
            z: [k, dim], k >= 1; of more than n rows the newest n.

        Raises:
            TypeError: z is not a floating-point tensor.
            ValueError: its shape or device does not fit, or it is not finite, which is looked at within
                `mow_kernels.check_finite()` alone; the window stays as it was.
        """
        self._check(z)
        z = z.detach()[-self.n :].to(self.latents.dtype)
        rows, before = len(z), self.present
        self.present = min(self.n, before + rows)
        if self.is_on_host:
            first = self._synchronise()
            if self._kept.in_use:
                self._kept.push(z)
            for part, rows_of in self._parts(first, rows):
                part.copy_(z[rows_of])
            self._position = (first + rows) % self.n
            self.head.fill_(self._position)
            if self.present != before:
                self.count.fill_(self.present)
            self.seen = self.state()
        else:
            if not torch.compiler.is_compiling():
                self._watch()
                if self._kept.in_use:
                    self._kept.push(z)
            self.latents[self._ring(self.head, rows)] = z
            self.head.add_(rows).remainder_(self.n)
            self.count.fill_(self.present)
            if not torch.compiler.is_compiling():
                self.seen = self.state()

    @torch.no_grad()
    def fill(self, z: Tensor) -> None:
        """Start afresh with these rows: step 1 of the paper, z = encoder(x) of n-k elements with the initial weights.

        Args and errors as for `push`.
        """
        self._check(z)
        self.head.zero_()
        self.present = 0
        self.push(z)

    @property
    def is_small(self) -> bool:
        """Whether it would cost more than it saves to keep something for a distance."""
        return self.present**2 < RUNNING_PAIRS

    @property
    def is_on_host(self) -> bool:
        """Whether slots may be computed as integers: a compiler or a CUDA graph would take them for constants."""
        return self.latents.is_cpu and not torch.compiler.is_compiling()

    @property
    def kept(self) -> Kept:
        """What is kept with the rows for distances. Set up anew after a change other than by `push`; one through
        `.data` cannot be noticed."""
        if self.is_on_host:
            self._synchronise()
        elif not torch.compiler.is_compiling():
            self._watch()
        return self._kept

    @property
    def first_slot(self) -> int:
        """The slot of the ring in which the oldest row lies. On a device this waits for it."""
        return ((self._synchronise() if self.is_on_host else int(self.head)) - self.present) % self.n

    def state(self) -> tuple[int, ...]:
        """Differs after every change of the latents or of where they stand."""
        latents, head = self.latents, self.head
        return id(latents), latents._version, id(head), head._version

    def get_extra_state(self) -> Tensor:
        """Whether something is kept, for the state_dict: a resumed training then goes on with the same bits."""
        return torch.tensor(bool(self._kept.following))

    def set_extra_state(self, state: Tensor) -> None:
        self._kept.forget(begin_at_once=bool(state))

    def extra_repr(self) -> str:
        return f"n={self.n}, dim={self.dim}, present={self.present}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        latents = state_dict.get(prefix + "latents")
        if latents is not None and latents.shape != self.latents.shape:
            errors: list[str] = rest[-1]  # what load_state_dict raises; nothing has been copied yet
            errors.append(f"latents has shape {list(latents.shape)}; this window's is {list(self.latents.shape)}")
            return
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self.present, self._position, self.seen = int(self.count), int(self.head), self.state()

    def _newest(self, rows: int) -> Tensor:
        if self.is_on_host:
            first = self._synchronise() - rows
            return torch.cat([part for part, _ in self._parts(first % self.n, rows)])
        return self.latents[self._ring(self.head - rows, rows)]

    def _ring(self, start: Tensor, rows: int) -> Tensor:
        return (start + torch.arange(rows, device=self.latents.device)) % self.n

    def _parts(self, first: int, rows: int) -> list[tuple[Tensor, slice]]:
        """The latents of so many rows from slot `first` on, in one piece or in two, and which of the rows each has."""
        latents, before = self.latents, self.n - first
        if rows <= before:
            return [(latents[first : first + rows], slice(None))]
        return [(latents[first:], slice(before)), (latents[: rows - before], slice(before, None))]

    def _synchronise(self) -> int:
        """head on the host; forgets what is kept if the window was changed by other means than a push."""
        state = self.state()
        if self.seen != state:
            self._kept.forget()
            self._position, self.seen = int(self.head), state
        return self._position

    def _watch(self) -> None:
        """The same where only the device knows the head, which is not waited for."""
        state = self.state()
        if self.seen != state:
            self._kept.forget()
            self.seen = state

    def __getstate__(self) -> dict[str, Any]:
        """Copies begin with nothing kept."""
        return {**self.__dict__, "_kept": Kept(), "seen": None}

    def _check(self, z: Tensor) -> None:
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError(f"z is {getattr(z, 'dtype', type(z).__name__)}; it must be a floating-point tensor")
        if z.dim() != 2 or z.shape[1] != self.dim or len(z) == 0:
            raise ValueError(f"z has shape {list(z.shape)}; it must be [k, {self.dim}] with k >= 1")
        if mk.check_finite.enabled and not torch.isfinite(z).all():
            raise ValueError("z holds NaN or infinite values; they must be finite")
        if z.device != self.latents.device:
            raise ValueError(f"z is on {z.device} and the window on {self.latents.device}; they must be on one device")
