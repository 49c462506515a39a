"""Distances over a moving window that is kept from step to step: only what its k new rows change is computed.

For sums over pairs each row of the window keeps the sum of the kernel over the rows newer than it. New rows add to the
sums of the older ones, and a row that leaves takes its sum along: nothing is subtracted, so nothing drifts and nothing
is rebuilt, and the newest h rows have their sum for every h: O(k n D) a step (csrc/cpu/running.cpp). For
sliced-Wasserstein on directions that stay, the projections are kept sorted (csrc/cpu/sorted_projections.cpp). Native.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mow_kernels import checks, functions, operators, reference, registry, tables

_SLOTS = 16
"""The native code takes slots in tiles of 2, 4, 8 or 16."""

_SPARE = 64
"""Norms that a tile of rows may look at beyond the last slot."""


class _Running:
    """A window of n rows and what is kept with it: what the classes below have in common."""

    def __init__(self, function: Callable[..., Tensor], n: int, dim: int, dtype: torch.dtype, options: dict[str, Any]):
        reason = unsupported(function, dtype)
        if reason is not None:
            raise ValueError(f"nothing can be kept: {reason}")
        for name, value in (("n", n), ("dim", dim)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be an integer >= 1")
        self._op, _, self._options = functions.check(function, torch.empty(2, dim, dtype=dtype), **options)
        self.n, self.dim, self.sampled, self.rows, self._head, self._dtype = n, dim, False, 0, 0, dtype
        self._pushes = 0
        self._evaluated: tuple[_Seen, ...] | None = None

    def distance(
        self,
        current: Tensor,
        prior: Tensor | None = None,
        *,
        samples: Callable[[], tuple[Tensor, Tensor | None]] | None = None,
    ) -> Tensor:
        """The distance over [the newest min(rows, n-k) rows; current], with a gradient for current.

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
        value = operators.run(current, self._checked_call(current, prior, samples))
        self._evaluated = _seen(current, prior)
        return value

    def gradient(self, current: Tensor, prior: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The gradient of `distance` for current [k, D], and the value 0-d, which costs little more, without a graph.

        Arguments and errors as there.
        """
        g_current, value = operators.gradient(True, current, self._checked_call(current, prior, None))
        self._evaluated = _seen(current, prior)
        return g_current, value  # type: ignore[return-value]  # it was asked for

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

    def _call(self, prior: Tensor | None, k: int, reference: Callable[..., Tensor]) -> operators.Call:
        """The measurement of k rows."""
        raise NotImplementedError

    def _append(self, rows: Tensor, prior: Tensor | None, evaluated: bool) -> None:
        """Write at the head; `evaluated` rows are those of the last measurement."""
        raise NotImplementedError

    def _checked_call(
        self,
        current: Tensor,
        prior: Tensor | None,
        samples: Callable[[], tuple[Tensor, Tensor | None]] | None,
    ) -> operators.Call:
        self._check("current", current, prior)
        k = current.shape[0]
        if k > self.n:
            raise ValueError(f"current has {k} rows; it must have at most n = {self.n}")
        if self._options.get("estimator") == "unbiased" and min(self.rows, self.n - k) + k == 1:
            raise ValueError("estimator is 'unbiased' and current has 1 row; it needs at least 2 (or 'biased')")
        return self._call(prior, k, self._differentiable(self._pushes, samples))

    def _check(self, name: str, value: object, prior: object) -> None:
        value = checks.rows(name, value)
        if value.shape[0] == 0 or value.shape[1] != self.dim:
            raise ValueError(f"{name} has shape {list(value.shape)}; it must be [k, {self.dim}] with k >= 1")
        if value.dtype != self._dtype or not value.is_cpu:
            raise ValueError(f"{name} is {value.dtype} on {value.device}; it must be {self._dtype} on the CPU")
        if (prior is not None) != self.sampled:
            allowed = f"{len(value)} rows of the prior" if self.sampled else "None: this is for N(0, I)"
            raise ValueError(f"prior is {'None' if prior is None else 'a sample'}; it must be {allowed}")
        if self.sampled:
            prior = checks.companion("prior", prior, value)
            if prior.shape != value.shape:
                raise ValueError(f"prior has shape {list(prior.shape)}; it must be {list(value.shape)}, as {name}")

    def _differentiable(
        self, pushes: int, samples: Callable[[], tuple[Tensor, Tensor | None]] | None
    ) -> Callable[..., Tensor]:
        def differentiable(current: Tensor, kept: Tensor, kept_prior: Tensor | None, **options: Any) -> Tensor:
            if samples is None or pushes != self._pushes:
                raise RuntimeError(
                    "a gradient from what a window keeps has no graph of its own; to differentiate it (create_graph), "
                    "do so before the next push and give distance() the samples"
                )
            return getattr(reference, self._op)(current, *samples(), **options)

        return differentiable


class RunningSums(_Running):
    """A window of n rows and the sums over the pairs within it, for `mow_kernels.mmd` or `cramer_wold`.

        sums = RunningSums(mk.mmd, 4096, 64)
        distance = sums.distance(z)         # over [the newest n-k rows; z], with a gradient for z [k, D]
        sums.push(z)

    The value and the gradient are those of the direct call up to rounding. A step takes O(k n D), `fill` O(h^2 D), and
    the window itself n (D + 1) numbers and 4n doubles; the direct call takes O(n^2 D).

    Against N(0, I), or against a prior sample that moves along: as many rows as the window has, of which those that
    came with the oldest rows leave with them. All that is twice as large then, and a step visits four times the pairs.

    Args:
        function: mow_kernels.mmd or mow_kernels.cramer_wold.
        n, dim: rows of the full window and their width D, >= 1.
        dtype: float32 or float64.
        sampled: whether rows of a prior sample come with the rows of the window; else the prior is N(0, I).
        options: of the function. cramer_wold needs its gamma as a number: the sums belong to one gamma.

    Raises:
        ValueError, TypeError: a bad argument, by name; no native library (`unsupported` says why).
    """

    def __init__(
        self,
        function: Callable[..., Tensor],
        n: int,
        dim: int,
        *,
        dtype: torch.dtype = torch.float32,
        sampled: bool = False,
        **options: Any,
    ) -> None:
        if function is functions.sliced_wasserstein:
            raise ValueError("function is sliced_wasserstein, which is no sum over pairs; SortedProjections are for it")
        if function is functions.cramer_wold and options.get("gamma") is None:
            raise ValueError("gamma is None; running sums belong to one gamma, which must be a number")
        super().__init__(function, n, dim, dtype, options)
        self.sampled = sampled
        self._fwd, self._push = operators.RUNNING[self._op]
        self._numbers: tuple[Any, ...]
        if self._op == "mmd":
            self._numbers = (tables.mmd(*(dim, dtype, *self._options.values(), not sampled)),)
        else:
            self._numbers = (tables.cramer_wold(dim, dtype, self._options["phi"]), self._options["gamma"])
        self._sums = self._zeros()
        self._prior_sums = self._zeros() if sampled else None

    def _zeros(self) -> Tensor:
        slots = -(-self.n // _SLOTS) * _SLOTS
        numbers = slots * self.dim + slots + _SPARE
        return torch.zeros(4 * slots + numbers // (8 // self._dtype.itemsize), dtype=torch.float64)

    def _call(self, prior: Tensor | None, k: int, reference: Callable[..., Tensor]) -> operators.Call:
        arguments = (prior, self.n, self._head, min(self.rows, self.n - k), *self._numbers)
        return operators.Call(self._fwd, None, self._sums, self._prior_sums, arguments, reference, self._options)

    def _append(self, rows: Tensor, prior: Tensor | None, evaluated: bool) -> None:
        older = min(self.rows, self.n - len(rows))
        self._push(self._sums, rows, self._prior_sums, prior, self.n, self._head, older, *self._numbers, evaluated)


class SortedProjections(_Running):
    """A window of n rows and its projections on directions that stay, sorted, for `mow_kernels.sliced_wasserstein`.

        kept = SortedProjections(4096, directions)      # [D, L]
        distance = kept.distance(z)                     # over [the newest n-k rows; z] to N(0, I)
        kept.push(z)

    The value and the gradient are those of the direct call up to rounding. A step takes O(n L) moves of numbers and
    O(k D L) for the projections of the new rows, and the window itself 3 n L numbers; the direct call projects and
    sorts all rows, O(n L (D + log^2 n)).

    Args:
        n: rows of the full window, >= 1.
        directions: [D, L], float32 or float64.

    Raises:
        ValueError, TypeError: a bad argument, by name; no native library (`unsupported` says why).
    """

    def __init__(self, n: int, directions: Tensor) -> None:
        if not isinstance(directions, Tensor) or directions.dim() != 2:
            raise ValueError("directions must be a tensor [D, L]")
        dim, dtype, options = directions.shape[0], directions.dtype, {"directions": directions, "p": 2.0}
        super().__init__(functions.sliced_wasserstein, n, dim, dtype, options)
        self._directions, self._version = directions, directions._version
        keys = torch.int32 if dtype == torch.float32 else torch.int64
        self._keys = torch.empty(3, directions.shape[1], n, dtype=keys)
        self._list = 0

    def are_on(self, directions: Tensor) -> bool:
        """Whether these are the directions, unchanged."""
        return directions is self._directions and directions._version == self._version

    def _call(self, prior: Tensor | None, k: int, reference: Callable[..., Tensor]) -> operators.Call:
        bins = tables.normal_bins(min(self.rows, self.n - k) + k)
        arguments = (self.n, self._head, self.rows, self._list, self._directions, bins)
        return operators.Call(operators.SORTED[0], None, self._keys, None, arguments, reference, self._options)

    def _append(self, rows: Tensor, prior: Tensor | None, evaluated: bool) -> None:
        operators.SORTED[1](self._keys, rows, self.n, self._head, self.rows, self._list, self._directions, evaluated)
        self._list = 1 - self._list


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


def _seen(current: Tensor, prior: Tensor | None) -> tuple[_Seen, ...]:
    return _Seen(current.detach(), current._version), _Seen(prior, 0 if prior is None else prior._version)


def unsupported(function: Callable[..., Tensor], dtype: torch.dtype = torch.float32) -> str | None:
    """The reason why nothing can be kept for a public function, or None."""
    if function not in (functions.mmd, functions.cramer_wold, functions.sliced_wasserstein):
        return "only mmd, cramer_wold and sliced_wasserstein have something to keep"
    if dtype not in (torch.float32, torch.float64):
        return f"the window is {dtype}, and they are kept for float32 and float64"
    if isinstance(operators.CPP, str):
        return operators.CPP
    return None if registry.allows("cpp") else "another backend than 'cpp' was asked for"
