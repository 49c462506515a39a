"""Distances over a moving window at O(k n D) a step: only the pairs with its k new rows are visited.

Each row of the window keeps the sum of the kernel over the rows newer than it. New rows add to the sums of the older
ones, and a row that leaves takes its sum along: nothing is subtracted, so nothing drifts and nothing is rebuilt, and
the newest h rows have their sum for every h. Native only (csrc/cpu/running.cpp).
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


class RunningSums:
    """A window of n rows and the sums over the pairs within it, for `mow_kernels.mmd` or `cramer_wold`.

        sums = RunningSums(mk.mmd, 4096, 64)
        distance = sums.distance(z)         # over [the newest n-k rows; z], with a gradient for z [k, D]
        sums.push(z)

    The value and the gradient are those of the direct call up to rounding. A step takes O(k n D) and the window itself
    n (D + 1) numbers and 4n doubles; the direct call takes O(n^2 D).

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
        reason = unsupported(function, dtype)
        if reason is not None:
            raise ValueError(f"there are no such running sums: {reason}")
        for name, value in (("n", n), ("dim", dim)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}; it must be an integer >= 1")
        if function is functions.cramer_wold and options.get("gamma") is None:
            raise ValueError("gamma is None; running sums belong to one gamma, which must be a number")
        call = functions.check(function, torch.empty(2, dim, dtype=dtype), **options)
        self.n, self.dim, self.sampled, self.rows, self._head, self._dtype = n, dim, sampled, 0, 0, dtype
        self._op, self._options = call.op, call.options
        self._fwd, self._push = operators.RUNNING[call.op]
        if call.op == "mmd":
            self._numbers: tuple[Any, ...] = (tables.mmd(dim, dtype, *call.options.values(), not sampled),)
        else:
            self._numbers = (tables.cramer_wold(dim, dtype, call.options["phi"]), call.options["gamma"])
        self._sums = self._zeros()
        self._prior_sums = self._zeros() if sampled else None
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
            0-d, of the dtype of the sums.

        Raises:
            TypeError, ValueError: a bad argument, by name; "unbiased" with one row in all.
        """
        value = operators.run(current, self._call(current, prior, samples))
        self._evaluated = _seen(current, prior)
        return value

    def gradient(self, current: Tensor, prior: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The gradient of `distance` for current [k, D], and the value 0-d, which costs nothing more, without a graph.

        Arguments and errors as there.
        """
        g_current, value = operators.gradient(True, current, self._call(current, prior, None))
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
        kept = min(self.rows, self.n - k)
        evaluated = self._evaluated is not None and all(map(_Seen.still, self._evaluated, (rows, prior)))
        self._push(self._sums, rows, self._prior_sums, prior, self.n, self._head, kept, *self._numbers, evaluated)
        self._head, self.rows = (self._head + k) % self.n, kept + k
        self._pushes, self._evaluated = self._pushes + 1, None

    def fill(self, rows: Tensor, first: int = 0, prior: Tensor | None = None) -> None:
        """Start afresh, from slot `first` of the ring on, with rows [h, D] and as many of a sampled prior. O(h^2 D).

        The same rows from the same slot give the same bits as pushes that ended up there.

        Raises:
            TypeError, ValueError: as for `push`.
        """
        if not (rows.dim() == 2 and rows.shape[0] == 0):
            self._check("rows", rows, prior)
        self.rows, self._head, self._evaluated = 0, first % self.n, None
        if rows.shape[0]:
            self.push(rows, prior)

    def _zeros(self) -> Tensor:
        slots = -(-self.n // _SLOTS) * _SLOTS
        numbers = slots * self.dim + slots + _SPARE
        return torch.zeros(4 * slots + numbers // (8 // self._dtype.itemsize), dtype=torch.float64)

    def _call(
        self,
        current: Tensor,
        prior: Tensor | None,
        samples: Callable[[], tuple[Tensor, Tensor | None]] | None,
    ) -> operators.Call:
        self._check("current", current, prior)
        k = current.shape[0]
        rows = min(self.rows, self.n - k)
        if rows < 0:
            raise ValueError(f"current has {k} rows; it must have at most n = {self.n}")
        if self._options.get("estimator") == "unbiased" and rows + k == 1:
            raise ValueError("estimator is 'unbiased' and current has 1 row; it needs at least 2 (or 'biased')")
        return operators.Call(
            self._fwd,
            None,
            self._sums,
            self._prior_sums,
            (prior, self.n, self._head, rows, *self._numbers),
            self._differentiable(self._pushes, samples),
            self._options,
        )

    def _check(self, name: str, value: object, prior: object) -> None:
        value = checks.rows(name, value)
        if value.shape[0] == 0 or value.shape[1] != self.dim:
            raise ValueError(f"{name} has shape {list(value.shape)}; it must be [k, {self.dim}] with k >= 1")
        if value.dtype != self._dtype or not value.is_cpu:
            raise ValueError(f"{name} is {value.dtype} on {value.device}; it must be {self._dtype} on the CPU")
        if (prior is not None) != self.sampled:
            allowed = f"{len(value)} rows of the prior" if self.sampled else "None: these sums are for N(0, I)"
            raise ValueError(f"prior is {'None' if prior is None else 'a sample'}; it must be {allowed}")
        if self.sampled and checks.companion("prior", prior, value).shape != value.shape:
            raise ValueError(f"prior has shape {list(prior.shape)}; it must be {list(value.shape)}, as {name}")  # type: ignore[attr-defined]

    def _differentiable(
        self, pushes: int, samples: Callable[[], tuple[Tensor, Tensor | None]] | None
    ) -> Callable[..., Tensor]:
        def differentiable(current: Tensor, sums: Tensor, prior_sums: Tensor | None, **options: Any) -> Tensor:
            if samples is None or pushes != self._pushes:
                raise RuntimeError(
                    "a gradient from running sums has no graph of its own; to differentiate it (create_graph), "
                    "do so before the next push and give distance() the samples"
                )
            return getattr(reference, self._op)(current, *samples(), **options)

        return differentiable


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
    """The reason why there are no running sums for a public function, or None."""
    if function not in (functions.mmd, functions.cramer_wold):
        return "only mmd and cramer_wold are sums over pairs"
    if dtype not in (torch.float32, torch.float64):
        return f"the window is {dtype}, and they are kept for float32 and float64"
    if isinstance(operators.CPP, str):
        return operators.CPP
    return None if registry.allows("cpp") else "another backend than 'cpp' was asked for"
