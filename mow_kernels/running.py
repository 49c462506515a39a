"""Distances over a moving window that is kept from step to step: only what its k new rows change is computed.

For sums over pairs each row of the window keeps the sum of the kernel over the rows newer than it. New rows add to the
sums of the older ones, and a row that leaves takes its sum along: nothing is subtracted, so nothing drifts and nothing
is rebuilt, and the newest h rows have their sum for every h: O(k n D) a step (csrc/cpu/running.cpp). What another
distance can keep stands in the file of its op; its row says so.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mow_kernels import autograd, checks
from mow_kernels.autograd import Launch
from mow_kernels.calls import distance_row, use_backend, why_not_there
from mow_kernels.registry import TABLE, DistanceOp, Options

_SLOTS = 16
"""The native code takes slots in tiles of 2, 4, 8 or 16."""

_SPARE = 64
"""Norms that a tile of rows may look at beyond the last slot."""

Samples = Callable[[], tuple[Tensor, Tensor | None]]
"""Gives the other rows [h, D] of a measurement and all of the prior's [h + k, D], or None for N(0, I)."""


class Differentiable(Protocol):
    """A reference of a `Launch`."""

    def __call__(self, current: Tensor, history: None, prior: None, **options: Any) -> Tensor: ...


class Running:
    """A window of n rows and what is kept with it for one distance: what `begin_running` gives.

        >>> running = mk.begin_running(mk.cramer_wold, 64, 8)
        >>> running.push(torch.randn(64, 8))

    Args:
        op: the row of the distance.
        n, dim: rows of the full window and their width D, >= 1.
        dtype: float32 or float64.
        options: of the distance, unchecked.
        sampled: whether rows of a prior sample come with the rows of the window; else the prior is N(0, I).
        device: of the window, and of all rows.

    Raises:
        ValueError, TypeError: a bad argument, by name; nothing can be kept (`why_not_running` says why).
    """

    def __init__(
        self,
        op: DistanceOp,
        n: int,
        dim: int,
        dtype: torch.dtype,
        options: Options,
        *,
        sampled: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        n, dim = (checks.integer(name, value, " >= 1") for name, value in (("n", n), ("dim", dim)))
        for name, value in (("n", n), ("dim", dim)):
            if value < 1:
                raise ValueError(f"{name} is {value!r}; it must be an integer >= 1")
        like = torch.empty(2, dim, dtype=dtype, device=device)
        self._kernels = functools.partial(_kernels, op, like, sampled, op.defaults | options)
        kernels = self._kernels()
        if isinstance(kernels, str):
            raise ValueError(f"nothing can be kept: {kernels}")
        self._op, (self._fwd, self._push), self._options = op, *kernels
        self._alone = op.alone(self._options)
        self.n, self.dim, self.sampled, self.rows, self._head, self._dtype = n, dim, sampled, 0, 0, dtype
        self.span = n
        """How many of the newest rows a measurement is over, new ones included."""
        self._device, self._on_cpu = like.device, like.is_cpu
        self._pushes = 0
        self._evaluated: tuple[_Seen, ...] | None = None

    def __repr__(self) -> str:
        options = "".join(
            f", {name}={value!r}" for name, value in self._options.items() if value != self._op.defaults.get(name)
        )
        sampled = ", sampled=True" if self.sampled else ""
        return f"{type(self).__name__}({self._op.name}, {self.n}, {self.dim}{sampled}{options}; rows={self.rows})"

    def distance(self, current: Tensor, prior: Tensor | None = None, *, samples: Samples | None = None) -> Tensor:
        """The distance over [the newest min(rows, span-k) rows; current], with a gradient for current; span is n unless
        `measure_over` has said otherwise.

        Args:
            current: [k, D], 1 <= k <= n.
            prior: [k, D], the new rows of a sampled prior.
            samples: gives the other rows [h, D] and all of the prior's [h + k, D] (or None), in case the gradient is to
                be differentiated itself (create_graph), which goes through the reference; None makes that an error.

        Returns:
            0-d, of the dtype of the window.

        Raises:
            TypeError, ValueError: a bad argument, by name; "unbiased" with one row in all.
        """
        value = autograd.value(current, self._checked_launch(current, prior, samples))
        self._evaluated = _seen(current, prior)
        return value

    def gradient(self, current: Tensor, prior: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The gradient of `distance` for current [k, D], and the value 0-d, which costs little more, without a graph.

        Arguments and errors as there.
        """
        g_current, value = autograd.gradient(True, current, self._checked_launch(current, prior, None))
        self._evaluated = _seen(current, prior)
        return g_current, value  # type: ignore[return-value]  # it was asked for

    def measure_over(self, span: int) -> None:
        """Measure over so many of the newest rows from now on, 1 <= span <= n, new ones included (all of these where
        they are more); the others stay.

        Raises:
            TypeError, ValueError: span is no such integer, or what is kept is for the whole window alone.
        """
        span = checks.integer("span", span, f" from 1 to n = {self.n}")
        if not 1 <= span <= self.n:
            raise ValueError(f"span is {span}; it must be from 1 to n = {self.n}")
        if span < self.n and isinstance(reason := self._kernels(newest=True), str):
            raise ValueError(f"span is {span} and n {self.n}; it must be n: {reason}")
        self.span = span

    def push(self, rows: Tensor, prior: Tensor | None = None) -> None:
        """Append rows [k, D], k >= 1, and as many of a sampled prior; of more than n the newest n.

        Those that were measured last cost no second pass over the window.

        Raises:
            TypeError, ValueError: a bad argument, by name; nothing has changed.
        """
        self._check("rows", rows, prior)
        rows, prior = rows.detach()[-self.n :], None if prior is None else prior[-self.n :]
        k = rows.shape[0]
        evaluated = self._evaluated is not None and all(map(_Seen.still, self._evaluated, (rows, prior)))
        self._append(rows, prior, evaluated)
        self._head, self.rows = (self._head + k) % self.n, min(self.n, self.rows + k)
        self._pushes, self._evaluated = self._pushes + 1, None

    def fill(self, rows: Tensor, first: int = 0, prior: Tensor | None = None) -> None:
        """Start afresh, from slot `first` of the ring on, with rows [h, D] and as many of a sampled prior.

        The same rows from the same slot give the same bits as pushes that ended up there.

        Raises:
            TypeError, ValueError: as for `push`.
        """
        if not (rows.dim() == 2 and rows.shape[0] == 0):
            self._check("rows", rows, prior)
        self.rows, self._head, self._evaluated = 0, first % self.n, None
        if rows.shape[0]:
            self.push(rows, prior)

    def serves(self, options: Options) -> bool:
        """Whether what is kept is for these options, of which those that `Keeps.may_change` names have changed."""
        return True

    def _launch(self, prior: Tensor | None, k: int, reference: Differentiable) -> Launch:
        """The measurement of k rows."""
        raise NotImplementedError

    def _append(self, rows: Tensor, prior: Tensor | None, evaluated: bool) -> None:
        """Write at the head; `evaluated` rows are those of the last measurement."""
        raise NotImplementedError

    def _checked_launch(self, current: Tensor, prior: Tensor | None, samples: Samples | None) -> Launch:
        self._check("current", current, prior)
        k = current.shape[0]
        if k > self.n:
            raise ValueError(f"current has {k} rows; it must have at most n = {self.n}")
        if self._alone is not None and k == 1 and (self.rows == 0 or self.span == 1):
            raise ValueError(self._alone)
        return self._launch(prior, k, self._differentiable(self._pushes, samples))

    def _check(self, name: str, value: Tensor, prior: Tensor | None) -> None:
        for rows in (value, prior) if self.sampled else (value,):
            if not (
                isinstance(rows, Tensor)
                and rows.dtype is self._dtype
                and (rows.is_cpu if self._on_cpu else rows.device == self._device)
                and rows.dim() == 2
                and rows.shape[0] == value.shape[0] > 0
                and rows.shape[1] == self.dim
            ):
                break
        else:
            looked_at = checks.check_finite.active or checks.check_finite.outside
            if not looked_at and (prior is None or (self.sampled and not prior.requires_grad)):
                return
        self._refuse(name, value, prior)

    def _refuse(self, name: str, value: object, prior: object) -> None:
        """Raises what is wrong with rows that are not plain; they may be right all the same."""
        dtype = getattr(value, "dtype", None)
        value = checks.rows(name, value)
        if value.shape[0] == 0 or value.shape[1] != self.dim:
            raise ValueError(f"{name} has shape {list(value.shape)}; it must be [k, {self.dim}] with k >= 1")
        if dtype != self._dtype or value.device != self._device:
            place = "the CPU" if self._on_cpu else self._device
            raise ValueError(f"{name} is {dtype} on {value.device}; it must be {self._dtype} on {place}")
        if (prior is not None) != self.sampled:
            allowed = f"{len(value)} rows of the prior" if self.sampled else "None: this is for N(0, I)"
            raise ValueError(f"prior is {'None' if prior is None else 'a sample'}; it must be {allowed}")
        if self.sampled:
            if getattr(prior, "dtype", dtype) != dtype:  # as `companion` does not see, since half types go with float32
                raise TypeError(f"prior has dtype {prior.dtype}; it must be {dtype}")  # type: ignore[attr-defined]
            prior = checks.companion("prior", prior, value)
            if prior.shape != value.shape:
                raise ValueError(f"prior has shape {list(prior.shape)}; it must be {list(value.shape)}, as {name}")

    def _differentiable(self, pushes: int, samples: Samples | None) -> Differentiable:
        def differentiable(current: Tensor, history: None, prior: None, **options: Any) -> Tensor:
            if samples is None or pushes != self._pushes:
                raise RuntimeError(
                    "a gradient from what a window keeps has no graph of its own; to differentiate it (create_graph), "
                    "do so before the next push and give distance() the samples"
                )
            return self._op.reference(current, *samples(), **options)

        return differentiable


class RunningSums(Running):
    """A window of n rows and the sums over the pairs within it, for a distance that is a sum over pairs.

        >>> sums = mk.RunningSums(mk.mmd, 4096, 8)
        >>> value = sums.distance(z)        # over [the newest n-k rows; z], with a gradient for z [k, D]
        >>> sums.push(z)

    The value and the gradient are those of the direct call up to rounding. A step takes O(k n D), `fill` O(h^2 D), and
    the window itself n (D + 1) numbers and 4n doubles; the direct call takes O(n^2 D).

    Against N(0, I), or against a prior sample that moves along: as many rows as the window has, of which those that
    came with the oldest rows leave with them. All that is twice as large then, and a step visits four times the pairs.

    Args:
        function: mow_kernels.mmd or mow_kernels.cramer_wold.
        n, dim: rows of the full window and their width D, >= 1.
        dtype: float32 or float64.
        sampled: whether rows of a prior sample come with the rows of the window; else the prior is N(0, I).
        device: of the window, and of all rows: the CPU, or a GPU for which the backend "cuda" was built.
        options: of the function. cramer_wold needs its gamma as a number: the sums belong to one gamma.

    Raises:
        ValueError, TypeError: a bad argument, by name; no native library (`why_not_running` says why).
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        n: int,
        dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        sampled: bool = False,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        op = distance_row(function)
        if op.keeps is None or op.keeps.begin != RunningSums.begin:
            raise ValueError(f"function is {op.name}, which is no sum over pairs that can be kept")
        super().__init__(op, n, dim, dtype, options, sampled=sampled, device=device)
        assert op.fused_arguments is not None  # it has kernels
        self._numbers = op.fused_arguments(torch.empty(0, dim, dtype=dtype), n, not sampled, self._options)
        self._sums = self._zeros()
        self._prior_sums = self._zeros() if sampled else None
        self._visited = 0

    @classmethod
    def begin(cls, op: DistanceOp, n: int, like: Tensor, sampled: bool, options: Options) -> Running:
        """See `Keeps.begin`."""
        return cls(op.function, n, like.shape[-1], dtype=like.dtype, sampled=sampled, device=like.device, **options)

    def _zeros(self) -> Tensor:
        slots = -(-self.n // _SLOTS) * _SLOTS
        numbers = slots * self.dim + slots + _SPARE
        return torch.zeros(4 * slots + numbers // (8 // self._dtype.itemsize), dtype=torch.float64, device=self._device)

    def _launch(self, prior: Tensor | None, k: int, reference: Differentiable) -> Launch:
        self._visited = max(0, min(self.rows, self.span - k))
        arguments = (prior, self.n, self._head, self._visited, *self._numbers)
        return Launch(
            self._measure,
            None,
            self._sums,
            self._prior_sums,
            lambda *_: arguments,
            reference,
            self._options,
            stays=False,
        )

    def _measure(self, current: Tensor, sums: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
        return self._fwd(sums, current, *rest)

    def _append(self, rows: Tensor, prior: Tensor | None, evaluated: bool) -> None:
        older = min(self.rows, self.n - len(rows))
        evaluated = evaluated and older == self._visited
        self._push(self._sums, rows, self._prior_sums, prior, self.n, self._head, older, *self._numbers, evaluated)


class _Seen(NamedTuple):
    """Rows as they were when they were measured."""

    rows: Tensor | None
    version: int

    def still(self, rows: Tensor | None) -> bool:
        """Whether these are the same rows, unchanged."""
        seen = self.rows
        if seen is None or rows is None:
            return seen is rows
        return (
            rows.data_ptr() == seen.data_ptr()
            and rows.shape == seen.shape
            and rows.stride() == seen.stride()
            and rows._version == self.version
        )


def _seen(current: Tensor, prior: Tensor | None) -> tuple[_Seen, ...] | None:
    """What may come to be pushed; rows under a transform are no rows."""
    if autograd.transformed_by_func():
        return None
    return _Seen(current.detach(), current._version), _Seen(prior, 0 if prior is None else prior._version)


def begin_running(
    function: Callable[..., Tensor],
    n: int,
    dim: int,
    *,
    rows: int | None = None,
    dtype: torch.dtype = torch.float32,
    sampled: bool = False,
    device: torch.device | str = "cpu",
    **options: Any,
) -> Running:
    """What an empty window of n rows can keep for a distance, by the row of that.

        >>> running = mk.begin_running(mk.cramer_wold, 4096, 8)

    Args:
        function: of mow_kernels, e.g. mmd.
        n, dim, dtype, sampled, device: as for `RunningSums`.
        rows: of a measurement, for options that follow from their number; None for n.
        options: of the function; directions as a tensor.

    Raises:
        ValueError, TypeError: a bad argument, by name; nothing can be kept, with the reason (`why_not_running`).
    """
    op = distance_row(function)
    if op.keeps is None:
        raise ValueError(f"nothing can be kept: {_NOTHING.format(op.name)}")
    options = op.keeps.of_rows(op.defaults | options, n if rows is None else rows)
    return op.keeps.begin(op, n, torch.empty(0, dim, dtype=dtype, device=device), sampled, options)


def why_not_running(
    function: Callable[..., Tensor],
    like: Tensor,
    *,
    sampled: bool = False,
    rows: int | None = None,
    newest: bool = False,
    **options: Any,
) -> str | None:
    """The reason why nothing can be kept for a distance over a window, or None.

        >>> mk.why_not_running(mk.mmd, torch.empty(1, 8, dtype=torch.float16))
        'the window is torch.float16, and they are kept for float32 and float64'

    Args:
        function, sampled, options: as for `begin_running`.
        like: any tensor of the window's width [..., D], dtype and device.
        rows: of a measurement, for options that follow from their number; None for many.
        newest: whether it shall be measured over fewer than all the rows of the window (`Running.measure_over`).

    Raises:
        ValueError: function is no distance; and what the function raises for its options.
    """
    op = distance_row(function)
    options = op.defaults | options
    if op.keeps is not None:
        options = op.keeps.of_rows(options, 2 if rows is None else rows)
    kernels = _kernels(op, like.new_empty(1, like.shape[-1]).expand(2, -1), sampled, options, newest)
    return kernels if isinstance(kernels, str) else None


_NOTHING = "{} has nothing to keep"


def _kernels(
    op: DistanceOp, like: Tensor, sampled: bool, options: Options, newest: bool = False
) -> tuple[tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., None]], Options] | str:
    """The kernels of the first wanted backend that keeps something for two rows like these, and the checked options; or
    the reason why there are none. `newest`: it has to be measured over any number of the newest rows."""
    if op.keeps is None:
        return _NOTHING.format(op.name)
    if like.dtype not in checks.WIDE:
        return f"the window is {like.dtype}, and they are kept for float32 and float64"
    reason = op.keeps.why_not(sampled, options)
    if reason is not None:
        return reason
    options = op.check(like, None, like if sampled else "normal", **options).options
    reason = "no backend keeps something for it"
    for backend, entry in TABLE[op.name].items():
        if use_backend.here() not in ("auto", backend):
            reason = "another backend was asked for than one that keeps something"
        elif isinstance(entry, str):
            reason = entry
        elif entry.running is not None and entry.device == like.device.type:
            unsupported = why_not_there(entry, (like, like[:0], like if sampled else None), options)
            if entry.keeps_none is not None and options[entry.keeps_none[0]] in entry.keeps_none[1]:
                unsupported = f"it keeps nothing for {entry.keeps_none[0]} {options[entry.keeps_none[0]]!r}"
            if unsupported is None and newest and not entry.newest:
                unsupported = f"what it keeps for {op.name} is for the whole window alone"
            if unsupported is None:
                return entry.running, options
            reason = f"backend {backend!r} cannot: {unsupported}"
    return reason
