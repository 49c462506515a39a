"""What a window keeps for the distances that are measured over it at every step: running sums or sorted projections."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

import mow_kernels as mk

if TYPE_CHECKING:
    from mow.window.priors import PriorWindow
    from mow.window.window import MovingWindow

Samples = Callable[[], tuple[Tensor, Tensor | None]]
"""The history and the prior of a measurement, see `mow_kernels.Running.distance`."""


class Following:
    """A running distance that follows a window, and a `PriorWindow` if there is one, from which it asks new rows.

    Args:
        window: which it follows.
        begin: makes the running distance from the rows that are present.
        prior: what is measured against; None for N(0, I).
    """

    def __init__(self, window: MovingWindow, begin: Callable[[], mk.Running], prior: PriorWindow | None) -> None:
        self._window, self._begin, self._prior = window, begin, prior
        self._fresh: Tensor | None = None
        self._seen: tuple[Tensor | None, int] = None, 0  # the prior's rows as they were when it was last in step
        self._restart()

    def distance(self, z: Tensor, samples: Samples) -> Tensor:
        """`mow_kernels.Running.distance`, with new rows of the prior."""
        fresh = self._ready(z)
        unchanged = functools.partial(self._unchanged, samples, self._window.host.state, self._seen)
        return self.running.distance(z, fresh, samples=unchanged)

    def gradient(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """`mow_kernels.Running.gradient`, with new rows of the prior."""
        fresh = self._ready(z)
        return self.running.gradient(z, fresh)

    def push(self, rows: Tensor) -> None:
        """Follow a push of the window, with the prior rows that were drawn for the last measurement."""
        fresh, self._fresh = self._fresh, None
        if self._prior is None or (fresh is not None and len(fresh) == len(rows)):
            self.running.push(rows, fresh)
        else:
            self._seen = None, 0

    def refill(self) -> None:
        """Follow rows that have moved where they lie, in the memory that there is: a CUDA graph reads it."""
        _fill(self.running, self._window, self._prior)

    def _unchanged(self, samples: Samples, seen: object, seen_prior: tuple[Tensor | None, int]) -> Any:
        """What the samples are, which are read again: they have to be those that were measured."""
        latents, version = seen_prior
        if self._window.state() != seen or (latents is not None and latents._version != version):
            raise RuntimeError(
                "the window or its prior was changed since this distance was measured; to differentiate its gradient "
                "(create_graph), do so before"
            )
        return samples()

    def _restart(self) -> None:
        self.running, self._fresh = self._begin(), None
        if self._prior is not None:
            self._seen = self._prior.latents, self._prior.latents._version

    def _ready(self, z: Tensor) -> Tensor | None:
        """For a measurement over the window's span; gives new rows of the prior. Where not each of its rows has come
        with one of the window, all begins anew: it was advanced for somebody else, or for a measurement after which
        nothing was pushed."""
        prior = self._prior
        if prior is None:
            if self.running.span != self._window.span:
                self.running.measure_over(self._window.span)
            return None
        latents = prior.latents
        if self._fresh is not None or self._seen[0] is not latents or self._seen[1] != latents._version:
            self._restart()
        if self.running.span != self._window.span:
            self.running.measure_over(self._window.span)
        self._fresh = prior.advance(z.shape[0])
        self._seen = latents, latents._version
        return self._fresh


class Kept:
    """What a window keeps for distances, as their rows in `mow_kernels` say; to be asked at every measurement.

    It begins with the second of two steps that measure the same distance, so that a measurement now and then does not
    set up what nobody uses, and ends with a push before which it was not measured. What follows from the number of rows
    begins anew when the window's span changes.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self, begin_at_once: bool = False) -> None:
        """What a window that was changed by other means than a push has to do.

        Args:
            begin_at_once: with the first step, as what was saved between two steps did not have to begin again.
        """
        self.following: dict[_Key, Following] = {}
        self._measured: set[_Key] = set()
        self._measured_before: set[Hashable] = set()
        self._begin_at_once = begin_at_once
        self.in_use = begin_at_once

    def push(self, rows: Tensor) -> None:
        """To be told of every push of the window while it is `in_use`."""
        self.following = {key: kept for key, kept in self.following.items() if key in self._measured}
        self._measured_before, self._measured = {distance for distance, *_ in self._measured}, set()
        self.in_use = bool(self._measured_before)
        self._begin_at_once = False
        for kept in self.following.values():
            kept.push(rows)

    def refill(self) -> None:
        """To be told where all rows have moved, and lie where they lay."""
        for kept in self.following.values():
            kept.refill()

    def find(
        self, window: MovingWindow, op: mk.DistanceOp, z: Tensor, prior: PriorWindow | None, options: dict[str, Any]
    ) -> Following | None:
        """What is kept for a distance that is measured now, if there is something; to be asked at each measurement.

        Args:
            window: whose it is, whose `kept` has just been asked for.
            op, options: the distance, by its row and the options of its function.
            z: the new elements [k, D].
            prior: what is measured against; None for N(0, I).
        """
        if op.keeps is None:
            return None
        rows, full = _rows(window, len(z))
        key = _key(op.keeps, op, z, prior, options, rows, window.span < window.n)
        following = self.following.get(key)
        if following is not None and (not op.keeps.may_change or following.running.serves(options)):
            self._measured.add(key)
            return following
        if _why_never(window, op, z, prior, options, rows) is not None:
            return None
        self._measured.add(key)
        self.in_use = True
        if following is None and not self._begins(key, full):
            return None
        begin = functools.partial(_begin, window, op, z.dtype, prior, options, rows)
        self.following[key] = Following(window, begin, prior)
        return self.following[key]

    def why_not(
        self, window: MovingWindow, op: mk.DistanceOp, z: Tensor, prior: PriorWindow | None, options: dict[str, Any]
    ) -> str | None:
        """The reason why `find` would give nothing, or None; arguments as there, and nothing is counted."""
        rows, full = _rows(window, len(z))
        reason = _why_never(window, op, z, prior, options, rows)
        if reason is None and op.keeps is not None:
            key = _key(op.keeps, op, z, prior, options, rows, window.span < window.n)
            if key not in self.following and not self._begins(key, full):
                return "they begin with the second step that measures this distance"
        return reason

    def _begins(self, key: _Key, full: bool) -> bool:
        """Of what follows the number of rows nothing is kept while that grows with every step."""
        follows_rows = key[1] is not None
        return (key[0] in self._measured_before or self._begin_at_once) and (full or not follows_rows)


_Key = tuple[Hashable, int | None, bool]
"""What tells what is kept for one distance from what is for another: the distance; the rows of a measurement, where an
option of it follows from their number; and whether these are fewer than the window has."""


def _key(
    keeps: mk.Keeps,
    op: mk.DistanceOp,
    z: Tensor,
    prior: PriorWindow | None,
    options: dict[str, Any],
    rows: int,
    newest: bool,
) -> _Key:
    fixed = tuple([value for name, value in options.items() if name not in keeps.may_change])
    follows = [name for name in keeps.follow_rows if options[name] is None]
    backend = mk.use_backend.here() if mk.use_backend.active else mk.use_backend.outside
    return (op.name, backend, z.dtype, id(prior), fixed), rows if follows else None, newest


def _rows(window: MovingWindow, k: int) -> tuple[int, bool]:
    """How many rows a measurement of k new ones is over, and whether the window has all that it could be."""
    present, older = window.host.present, max(0, window.span - k)
    return k + min(present, older), present >= older


def _begin(
    window: MovingWindow,
    op: mk.DistanceOp,
    dtype: torch.dtype,
    prior: PriorWindow | None,
    options: dict[str, Any],
    rows: int,
) -> mk.Running:
    """What a window with the rows that it has now has to keep for a distance."""
    running = mk.begin_running(
        op.function,
        window.n,
        window.dim,
        rows=rows,
        dtype=dtype,
        sampled=prior is not None,
        device=window.latents.device,
        **options,
    )
    _fill(running, window, prior)
    return running


def _fill(running: mk.Running, window: MovingWindow, prior: PriorWindow | None) -> None:
    present = window.host.present
    running.fill(window.newest(present), window.first_slot, None if prior is None else prior.newest(present))


def _why_never(
    window: MovingWindow,
    op: mk.DistanceOp,
    z: Tensor,
    prior: PriorWindow | None,
    options: dict[str, Any],
    rows: int,
) -> str | None:
    """The reason why nothing can be kept for a distance over this window, or None."""
    if window.is_small:
        return f"a window of {window.host.present} rows is as quick without"
    if torch.compiler.is_compiling():
        return "torch.compile traces it"
    if z.dtype != window.latents.dtype:
        return f"the window is {window.latents.dtype}"
    newest = window.span < window.n
    return mk.why_not_running(
        op.function, window.latents, sampled=prior is not None, rows=rows, newest=newest, **options
    )
