"""The moving window: the newest n latents, kept as constants for the distance of the next step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow.checks import positive
from mow.window.kept import Kept

RUNNING_PAIRS = 1 << 14
"""Pairs within the history from which on running sums are worth their bookkeeping, which a small window pays for."""


class Host:
    """`count` and `head` of a window as integers, and in which state of the buffers these were read or written.

    It holds on to the buffers that it knows, so that no other can be taken for one of them.
    """

    def __init__(self, present: int, position: int) -> None:
        self.present, self.position = present, position
        self.state: tuple[int, ...] | None = None
        self.latents: Tensor | None = None
        self.head: Tensor | None = None
        self.count: Any = None
        self.count_version = -1

    def agree(self, buffers: Mapping[str, Any]) -> None:
        """The integers are those of the buffers."""
        latents, head, count = buffers["latents"], buffers["head"], buffers["count"]
        self.latents, self.head, self.count, self.count_version = latents, head, count, count._version
        self.state = window_state(latents, head)

    def read_count(self, count: Tensor, n: int) -> None:
        self.present = _read("count", count, n, self.present)
        self.count, self.count_version = count, count._version

    def read_head(self, latents: Tensor, head: Tensor, n: int) -> None:
        self.position = _read("head", head, n - 1, self.position)
        self.latents, self.head, self.state = latents, head, window_state(latents, head)


def window_state(latents: Tensor, head: Tensor) -> tuple[int, ...]:
    return id(latents), latents._version, id(head), head._version


def _read(name: str, value: Tensor, most: int, on_meta: int) -> int:
    if value.is_meta:  # there is nothing to read, but it can be printed and moved
        return on_meta
    number = int(value)
    if not 0 <= number <= most:
        raise ValueError(out_of_range(name, number, most))
    return number


def out_of_range(name: str, number: int, most: int) -> str:
    return f"{name} is {number}; it must be from 0 to {most} (a window's buffers may be copied, not averaged)"


def checked_span(span: int | None, n: int) -> int:
    """How many rows of a window of n a measurement is over; None for all.

    Raises:
        TypeError, ValueError: it is no integer from 1 to n.
    """
    span = n if span is None else positive("span", span)
    if span > n:
        raise ValueError(f"span is {span}; it must be from 1 to the window's n = {n}")
    return span


def check_ages(ages: Sequence[int], present: int) -> None:
    """Raises ValueError for an age that none of so many rows has."""
    if ages and not 1 <= min(ages) <= max(ages) <= present:
        raise ValueError(f"ages is {list(ages)}; they must be from 1 to the {present} rows present")


def check_carried(count: int, rows: Tensor, dim: int) -> None:
    """Raises ValueError where rows are not so many, or not of this width."""
    if rows.shape != (count, dim):
        raise ValueError(f"rows has shape {list(rows.shape)}; it must be [{count}, {dim}], a row for each of the ages")


def move(latents: Tensor, matrix: Tensor, shift: Tensor) -> None:
    """Each row z to z + z matrix + shift, where it lies; computed in the map's dtype."""
    latents.add_((latents.to(matrix.dtype) @ matrix + shift).to(latents.dtype))


def extra_state(in_use: bool, span: int, n: int) -> Tensor:
    """What a state_dict has beside the buffers: whether something is kept with the rows, and a span that is not n."""
    return torch.tensor(in_use) if span == n else torch.tensor([int(in_use), span])


def of_extra_state(state: Tensor) -> tuple[bool, int | None]:
    in_use, *span = state.flatten().tolist()
    return bool(in_use), span[0] if span else None


class MovingWindow(nn.Module):
    """The newest n latents, in buffers, so that `.to()`, `state_dict` and resuming just work.

        >>> window = mow.MovingWindow(n=64, dim=8)
        >>> window.fill(torch.randn(63, 8))
        >>> window.push(torch.randn(1, 8))
        >>> len(window), window.history(1).shape
        (64, torch.Size([63, 8]))

    Fill it with the latents of n-k elements (step 1 of the paper), or let it grow from empty; after each optimiser
    step, push the k new ones. `len(window)` rows are present.

    What it holds is what its buffers say, whoever wrote them: `load_state_dict`, DistributedDataParallel's broadcast,
    `torch.func.functional_call`, a copy in place. (Within a function that torch.compile has traced, a change from
    outside is seen after the next look at the window from outside of it, e.g. `len(window)`.) They may be copied, not
    averaged: rows of two steps in one slot of the ring have no mean. `AveragedModel` leaves buffers as they are unless
    it is told otherwise (use_buffers=True, which is Lightning's default for its `WeightAveraging`).

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
        if not (dtype is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point)):
            raise TypeError(f"dtype is {dtype!r}; it must be a floating-point torch.dtype or None")
        self.register_buffer("latents", torch.zeros(n, dim, dtype=dtype, device=device))
        self.register_buffer("head", torch.zeros((), dtype=torch.int64, device=device))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64, device=device))
        self.span = self.n
        """How many of the newest rows a measurement is over, new ones included: `measure_over`."""
        self._kept = Kept()
        self.host = Host(0, 0)
        """What the buffers said when they were last looked at, for what looks right after `present` or `kept` did."""
        self.host.agree(self._buffers)

    @property
    def present(self) -> int:
        """`count` on the host: a device is waited for only after another than this window has written it.

        Raises:
            ValueError: it is no number of rows.
        """
        host = self.host
        if not torch.compiler.is_compiling():
            count: Any = self._buffers["count"]  # not by nn.Module's slow attributes: it is asked four times a step
            if count is not host.count or count._version != host.count_version:
                host.read_count(count, self.n)
                self._kept.forget()
        return host.present

    def __len__(self) -> int:
        return self.present

    def history(self, k: int) -> Tensor:
        """The newest min(len, span-k) rows, oldest first: what precedes k new elements. Empty when k >= span.

        span is n unless `measure_over` has said otherwise.

            window.history(len(z))          # what `distance(z, window)` puts before z

        Args:
            k: how many new elements the step has, >= 1.

        Returns:
            [h, dim], a copy.

        Raises:
            TypeError, ValueError: k is no integer >= 1.
        """
        if type(k) is not int or k < 1:
            k = positive("k", k)
        return self._newest(max(0, min(self.present, self.span - k)))

    def past(self, k: int) -> Tensor | mk.Newest:
        """`history(k)` for `mow_kernels.gradient`: on a device no copy, but where the rows are."""
        rows = max(0, min(self.present, self.span - k))
        if rows == 0 or self.is_on_host or torch.compiler.is_compiling():
            return self._newest(rows)
        return mk.Ring(self.latents, self.head).last(rows)

    def newest(self, rows: int) -> Tensor:
        """The newest rows [rows, dim], oldest first, a copy.

        Raises:
            ValueError: there are not so many.
        """
        if rows > self.present:
            raise ValueError(f"rows is {rows}; the window has {self.present}")
        return self._newest(rows)

    def at(self, ages: Sequence[int]) -> Tensor:
        """The rows of these ages [len(ages), dim], a copy: age 1 is the newest row, age `len(window)` the oldest.

            >>> window.fill(torch.randn(63, 8))
            >>> window.at([1, 63]).shape
            torch.Size([2, 8])

        Raises:
            ValueError: there are none of such an age.
        """
        return self.latents[self._slots(ages)]

    def measure_over(self, span: int | None) -> None:
        """Measure over so many of the newest rows from now on, new ones included; None for all n. The others stay.

            >>> window.fill(torch.randn(63, 8))
            >>> window.measure_over(32)
            >>> window.history(1).shape
            torch.Size([31, 8])

        It is part of the state_dict, and the n of all that follows from the number of rows: gamma, 1/n, the weighting's
        n/k. With k > span new rows a measurement is over these.

        Args:
            span: from 1 to n.

        Raises:
            TypeError, ValueError: it is no such integer.
        """
        self.span = checked_span(span, self.n)

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
        self._append(self._own(z), self.present)

    @torch.no_grad()
    def fill(self, z: Tensor) -> None:
        """Start afresh with these rows: step 1 of the paper, z = encoder(x) of n-k elements with the initial weights.

        Args and errors as for `push`.
        """
        self._check(z)
        self.head.zero_()
        self.count.zero_()
        self._append(self._own(z), 0)

    @torch.no_grad()
    def carry(self, matrix: Tensor, shift: Tensor, ages: Sequence[int], rows: Tensor) -> None:
        """Move all rows where they lie, each row z to z + z matrix + shift, and put others in place of some.

            >>> window.fill(torch.zeros(63, 8))
            >>> window.carry(torch.eye(8), torch.ones(8), [1], torch.full((1, 8), 2.0))
            >>> window.newest(2)[:, 0].tolist()
            [1.0, 2.0]

        What is kept with the rows is set up anew at once.

        Args:
            matrix, shift: [dim, dim], [dim].
            ages: of the rows to be replaced, as of `at`; none twice.
            rows: [len(ages), dim], finite.

        Raises:
            ValueError: there are none of such an age, or not so many rows; the window stays as it was.
        """
        slots = self._slots(ages)
        check_carried(len(ages), rows, self.dim)
        in_use, latents = self.kept.in_use, self.latents
        move(latents, matrix, shift)
        latents[slots] = rows.to(latents.dtype)
        self.host.agree(self._buffers)
        if in_use:
            self._kept.refill()

    @property
    def is_small(self) -> bool:
        """Whether it would cost more than it saves to keep something for a distance."""
        present = self.present
        return (present if present < self.span else self.span) ** 2 < RUNNING_PAIRS

    @property
    def is_on_host(self) -> bool:
        """Whether slots may be computed as integers: a compiler or a CUDA graph would take them for constants."""
        return not torch.compiler.is_compiling() and self._buffers["latents"].is_cpu  # type: ignore[union-attr]  # it is there

    @property
    def kept(self) -> Kept:
        """What is kept with the rows for distances. Set up anew after a change other than by `push`; one through
        `.data` cannot be noticed."""
        if self.is_on_host:
            if self.present:
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
        return window_state(self.latents, self.head)

    def get_extra_state(self) -> Tensor:
        """Whether something is kept from the next step on, for the state_dict: a resumed training then goes on with the
        same bits. And the span, where it is not n."""
        return extra_state(self._kept.in_use, self.span, self.n)

    def set_extra_state(self, state: Tensor) -> None:
        if self.present:  # the buffers come first: the next look at others would forget this again
            self._synchronise()
        begin_at_once, span = of_extra_state(state)
        self.measure_over(span)
        self._kept.forget(begin_at_once=begin_at_once)

    def extra_repr(self) -> str:
        span = "" if self.span == self.n else f", span={self.span}"
        return f"n={self.n}, dim={self.dim}, present={self.present}{span}"

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        latents = state_dict.get(prefix + "latents")
        errors: list[str] = rest[-1]  # what load_state_dict raises; nothing has been copied yet
        if latents is not None and latents.shape != self.latents.shape:
            errors.append(f"latents has shape {list(latents.shape)}; this window's is {list(self.latents.shape)}")
            return
        for name, most in (("count", self.n), ("head", self.n - 1)):
            value = state_dict.get(prefix + name)
            if value is not None and not value.is_meta and not 0 <= int(value) <= most:
                errors.append(out_of_range(name, int(value), most))
                return
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def _slots(self, ages: Sequence[int]) -> Tensor:
        """Where the rows of these ages lie."""
        check_ages(ages, self.present)
        return (self.head - torch.tensor(ages, dtype=torch.int64, device=self.latents.device)) % self.n

    def _newest(self, rows: int) -> Tensor:
        if self.is_on_host:
            first = self._synchronise() - rows
            return torch.cat([part for part, _ in self._parts(first % self.n, rows)])
        return mk.Ring(self.latents, self.head).newest(rows)

    def _parts(self, first: int, rows: int) -> list[tuple[Tensor, slice]]:
        """The latents of so many rows from slot `first` on, in one piece or in two, and which of the rows each has."""
        latents, before = self.latents, self.n - first
        if rows <= before:
            return [(latents[first : first + rows], slice(None))]
        return [(latents[first:], slice(before)), (latents[: rows - before], slice(before, None))]

    def _own(self, z: Tensor) -> Tensor:
        """The rows of z that a window of this size and dtype takes."""
        z = z.detach()
        return (z if z.shape[0] <= self.n else z[-self.n :]).to(self.latents.dtype)

    def _append(self, z: Tensor, before: int) -> None:
        """`push` of rows of the window's dtype, at most n of them, after the `before` that are present."""
        rows, host = z.shape[0], self.host
        present = min(self.n, before + rows)
        if self.is_on_host:
            first = self._synchronise()
            if self._kept.in_use:
                self._kept.push(z)
            parts = self._parts(first, rows)
            for part, rows_of in parts:
                part.copy_(z if len(parts) == 1 else z[rows_of])
            host.position = (first + rows) % self.n
            self.head.fill_(host.position)
        else:
            if not torch.compiler.is_compiling():
                self._watch()
                if self._kept.in_use:
                    self._kept.push(z)
            mk.Ring(self.latents, self.head).push(z)
        if present != before:
            self.count.fill_(present)
        host.present = present
        if not torch.compiler.is_compiling():
            host.agree(self._buffers)

    def _synchronise(self) -> int:
        """head on the host; forgets what is kept if the window was changed by other means than a push."""
        host, buffers = self.host, self._buffers
        latents: Any = buffers["latents"]
        head: Any = buffers["head"]
        if host.state != window_state(latents, head):
            self._kept.forget()
            host.read_head(latents, head, self.n)
        return host.position

    def _watch(self) -> None:
        """The same where only the device knows the head, which is not waited for."""
        state = self.state()
        if self.host.state != state:
            self._kept.forget()
            self.host.state = state

    def __getstate__(self) -> dict[str, Any]:
        """Copies begin with nothing kept, and read their buffers."""
        return {**self.__dict__, "_kept": Kept(), "host": Host(0, 0)}

    def _check(self, z: Tensor) -> None:
        if not isinstance(z, Tensor) or not z.is_floating_point():
            raise TypeError(f"z is {getattr(z, 'dtype', type(z).__name__)}; it must be a floating-point tensor")
        if z.dim() != 2 or z.shape[1] != self.dim or z.shape[0] == 0:
            raise ValueError(f"z has shape {list(z.shape)}; it must be [k, {self.dim}], k >= 1 and dim = {self.dim}")
        looked_at = mk.check_finite.here() if mk.check_finite.active else mk.check_finite.outside
        if looked_at and not torch.isfinite(z).all():
            raise ValueError("z holds NaN or infinite values; they must be finite")
        if z.device != self.latents.device:
            raise ValueError(f"z is on {z.device} and the window on {self.latents.device}; they must be on one device")
