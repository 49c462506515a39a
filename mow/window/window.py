"""The moving window: the newest n latents, kept as constants for the distance of the next step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow.checks import positive
from mow.window.kept import KeptSums, Running, SumsWithPrior
from mow_kernels import running

if TYPE_CHECKING:
    from mow.window.prior_window import PriorWindow

_CHANGING = ("directions", "generator")

RUNNING_PAIRS = 1 << 14
"""Pairs within the history from which on running sums are worth their bookkeeping, which a small window pays for."""


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
        self.n, self.dim = positive("n", n), positive("dim", dim)
        self.register_buffer("latents", torch.zeros(n, dim, dtype=dtype, device=device))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=device))
        self._length = 0  # count on the host, so that len() never waits for a device
        self._position = 0  # head on the host, as long as the window is in the state that _seen tells
        self._sums = KeptSums()
        self._seen = self.state()

    def __len__(self) -> int:
        return self._length

    def history(self, k: int) -> Tensor:
        """The newest min(len, n-k) rows, oldest first: what precedes k new elements. Empty when k >= n.

        Args:
            k: how many new elements the step has, >= 1.

        Returns:
            [h, dim], a copy.
        """
        return self._newest(max(0, min(self._length, self.n - positive("k", k))))

    def push(self, z: Tensor) -> None:
        """Append rows, detached and copied, and drop the oldest beyond n.

        Args:
            z: [k, dim], k >= 1; of more than n rows the newest n.

        Raises:
            TypeError: z is not a floating-point tensor.
            ValueError: its shape or device does not fit; the window stays as it was.
        """
        self._check(z)
        z = z.detach()[-self.n :]
        rows, before = len(z), self._length
        self._length = min(self.n, before + rows)
        if self._on_host():
            first = self._synchronise()
            self._sums.push(z)
            for part, rows_of in self._parts(first, rows):
                part.copy_(z[rows_of])
            self._position = (first + rows) % self.n
            self.head.fill_(self._position)
            if self._length != before:
                self.count.fill_(self._length)
            self._seen = self.state()
        else:
            self.latents[self._ring(self.head, rows)] = z.to(self.latents.dtype)
            self.head.add_(rows).remainder_(self.n)
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

    @property
    def is_small(self) -> bool:
        """Whether running sums would cost more than they save."""
        return self._length**2 < RUNNING_PAIRS

    def running(
        self, function: Callable[..., Tensor], dtype: torch.dtype, prior: PriorWindow | None = None, **options: Any
    ) -> Running | None:
        """The running sums of a distance of `mow_kernels`, or its sorted projections, if there are any.

        To be asked at each measurement: they begin with the second. A window that was changed other than by `push` sets
        them up anew; a change through `.data` cannot be noticed.

        Args:
            function, options: of `mow_kernels`; the directions of sliced_wasserstein as a tensor.
            dtype: of the new elements.
            prior: what it is measured against; None for N(0, I).
        """
        if self._has_no_sums(function, dtype, prior, options):
            return None
        first = self._synchronise() - self._length

        rows = self._length

        def sorted_projections() -> Running:
            kept = mk.SortedProjections(self.n, options["directions"])
            kept.fill(self._newest(rows), first)
            return kept

        def sums() -> Running:
            kept = mk.RunningSums(function, self.n, self.dim, dtype=dtype, sampled=prior is not None, **options)
            kept.fill(self._newest(rows), first, None if prior is None else prior.newest(rows))
            return kept if prior is None else SumsWithPrior(kept, prior)

        key = _key(function, prior, options)
        if function is mk.sliced_wasserstein:
            return self._sums.measure(key, sorted_projections, lambda kept: kept.are_on(options["directions"]))
        return self._sums.measure(key, sums, lambda kept: prior is None or kept.in_step)

    def why_not_running(
        self, function: Callable[..., Tensor], dtype: torch.dtype, prior: PriorWindow | None = None, **options: Any
    ) -> str | None:
        """The reason why `running` would give none at the next measurement, or None; arguments as there."""
        reason = self._has_no_sums(function, dtype, prior, options)
        if reason is None:
            self._synchronise()
            if not self._sums.will_be_there(_key(function, prior, options)):
                return "they begin with the second step that measures this distance"
        return reason

    def _has_no_sums(
        self, function: Callable[..., Tensor], dtype: torch.dtype, prior: PriorWindow | None, options: dict[str, Any]
    ) -> str | None:
        if self.is_small:
            return f"a window of {self._length} rows is as quick without"
        if not self._on_host():
            return f"the window is on {self.latents.device}, or torch.compile traces it"
        reason = running.unsupported(function, dtype)
        if reason is None and dtype != self.latents.dtype:
            return f"the window is {self.latents.dtype}"
        if reason is None and function is mk.sliced_wasserstein:
            if prior is not None:
                return "sliced-Wasserstein has none against a sample"
            if not isinstance(options["directions"], Tensor):
                return "the directions are drawn afresh at each step (keep=... keeps them)"
        return reason

    def state(self) -> tuple[int, ...]:
        """Differs after every change of the latents or of where they stand."""
        latents, head = self.latents, self.head
        return id(latents), latents._version, id(head), head._version

    def get_extra_state(self) -> Tensor:
        """Of the state_dict: whether there are running sums, so that a resumed training goes on with the same bits."""
        return torch.tensor(bool(self._sums))

    def set_extra_state(self, state: Tensor) -> None:
        self._sums.forget(begin_at_once=bool(state))

    def extra_repr(self) -> str:
        return f"n={self.n}, dim={self.dim}, present={self._length}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        latents = state_dict.get(prefix + "latents")
        if latents is not None and latents.shape != self.latents.shape:
            errors: list[str] = rest[-1]  # what load_state_dict raises; nothing has been copied yet
            errors.append(f"latents has shape {list(latents.shape)}; this window's is {list(self.latents.shape)}")
            return
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._length, self._position, self._seen = int(self.count), int(self.head), self.state()

    def _newest(self, rows: int) -> Tensor:
        if self._on_host():
            first = self._synchronise() - rows
            return torch.cat([part for part, _ in self._parts(first % self.n, rows)])
        return self.latents[self._ring(self.head - rows, rows)]

    def _ring(self, start: Tensor, rows: int) -> Tensor:
        return (start + torch.arange(rows, device=self.latents.device)) % self.n

    def _on_host(self) -> bool:
        """Whether slots may be computed as integers: a compiler or a CUDA graph would take them for constants."""
        return self.latents.is_cpu and not torch.compiler.is_compiling()

    def _parts(self, first: int, rows: int) -> list[tuple[Tensor, slice]]:
        """The latents of so many rows from slot `first` on, in one piece or in two, and which of the rows each has."""
        latents, before = self.latents, self.n - first
        if rows <= before:
            return [(latents[first : first + rows], slice(None))]
        return [(latents[first:], slice(before)), (latents[: rows - before], slice(before, None))]

    def _synchronise(self) -> int:
        """head on the host; forgets the running sums if the window was changed by other means than a push."""
        state = self.state()
        if self._seen != state:
            self._sums.forget()
            self._position, self._seen = int(self.head), state
        return self._position

    def __getstate__(self) -> dict[str, Any]:
        """Copies begin without running sums."""
        return {**self.__dict__, "_sums": KeptSums(), "_seen": None}

    def _check(self, z: Tensor) -> None:
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError(f"z is {getattr(z, 'dtype', type(z).__name__)}; it must be a floating-point tensor")
        if z.dim() != 2 or z.shape[1] != self.dim or len(z) == 0:
            raise ValueError(f"z has shape {list(z.shape)}; it must be [k, {self.dim}] with k >= 1")
        if z.device != self.latents.device:
            raise ValueError(f"z is on {z.device} and the window on {self.latents.device}; they must be on one device")


def _key(function: Callable[..., Tensor], prior: PriorWindow | None, options: dict[str, Any]) -> tuple[Any, ...]:
    """What tells what is kept for one distance from what is for another; directions may change."""
    return function, id(prior), *sorted((name, value) for name, value in options.items() if name not in _CHANGING)
