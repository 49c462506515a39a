"""The one table: every operation (a row, `mow_kernels/ops`) times every backend (a column, `mow_kernels/backends`).

`TABLE[op][backend]` is an `Implementation`, or the written reason why there is none.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from mow_kernels.reference.sums import Pairwise, Sliced
    from mow_kernels.running import Running

Options = dict[str, Any]
"""The options of a call by name, checked."""


class Newest:
    """The newest rows [count, D] of a ring, as the history of a gradient: `Ring.last`.

    What can reads them where they are; what cannot, a copy. They are those of the time when they are read.

        >>> past = mk.Ring(torch.randn(64, 8), torch.tensor(0)).last(63)
        >>> g_z, value = mk.gradient(mk.mmd, z, past)
        >>> past
        Newest(63 rows of [64, 8])

    Args:
        slots, head: of the ring.
        count: how many.
        copy: copy(count) -> these rows.
    """

    __slots__ = ("copy", "count", "head", "slots")

    def __init__(self, slots: Tensor, head: Tensor, count: int, copy: Callable[[int], Tensor]) -> None:
        self.slots, self.head, self.count, self.copy = slots, head, count, copy

    def __len__(self) -> int:
        return self.count

    def __repr__(self) -> str:
        return f"Newest({self.count} rows of {list(self.slots.shape)})"

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, D)."""
        return self.count, self.slots.shape[1]

    def rows(self) -> Tensor:
        """A copy of them, oldest first."""
        return self.copy(self.count)


class Call(NamedTuple):
    """A checked call of an op: what its implementations take, run(*arguments, **options)."""

    op: Op
    arguments: tuple[Any, ...]
    """Tensors: of a distance (current [k, D], history [h, D], prior [m, D] or None for N(0, I))."""
    options: Options


class Implementation(NamedTuple):
    """What one backend has for one op."""

    run: Callable[..., Any]
    device: str | None = None
    """The type of the device whose tensors it takes; None for any."""
    unsupported: Callable[..., str | None] | None = None
    """Takes the arguments of `run`; the reason why it cannot take them, though they are on such a device, or None."""
    only: tuple[str, tuple[str, ...]] | None = None
    """(an option, the values of it that there are kernels for), where it has values without."""
    gradient: Callable[..., tuple[Tensor, Tensor | None]] | None = None
    """A distance has gradient(measure, current, history, prior, **options) -> the gradient for current and, with
    `measure`, the value; neither has a graph."""
    ring: Callable[..., tuple[Tensor, Tensor | None]] | None = None
    """`gradient` with a `Newest` of the samples' dtype in the place of history, where it is read without a copy."""
    keeps_none: tuple[str, tuple[str, ...]] | None = None
    """(an option, the values of it for which this backend keeps nothing), where there are such."""
    running: tuple[Callable[..., tuple[Tensor, Tensor]], Callable[..., None]] | None = None
    """(fwd, push) over what a window can keep for the op, where this backend has kernels for it."""
    newest: bool = False
    """Whether fwd can also be over any number of the newest rows that are kept."""


@dataclass(frozen=True, eq=False)
class Op:
    """A row of the table: what is known of an operation beside its kernels."""

    name: str
    function: Callable[..., Any]
    """The public function, by which users name the op."""
    check: Callable[..., Call]
    """Takes all arguments of the public function (`defaults` has those of its options); raises what that raises."""
    reference: Callable[..., Any]
    """reference(*arguments, **options) of a checked call, in plain PyTorch: the definition of right."""
    draw: Callable[[Call], Call] | None = None
    """Replaces what a call leaves to chance by what is drawn for it; None where nothing is."""
    fake: Callable[..., Any] | None = None
    """The shapes of a native op's results from its arguments, for torch.compile; a distance needs none of its own."""

    defaults: Options = field(init=False)
    """The options of the public function that have a default, with it."""

    def __post_init__(self) -> None:
        parameters = inspect.signature(self.function).parameters.values()
        defaults = {each.name: each.default for each in parameters if each.kind is each.KEYWORD_ONLY}
        object.__setattr__(self, "defaults", defaults)  # the dataclass is frozen


@dataclass(frozen=True, eq=False)
class Keeps:
    """What a window can keep for a distance from step to step (`mow_kernels.running`).

    >>> mk.distance_row(mk.mmd).keeps.why_not(False, {"kernel": "energy"}) is None
    True
    """

    begin: Callable[[DistanceOp, int, Tensor, bool, Options], Running]
    """begin(op, n, like, sampled, options) of an empty window of n rows of like's width [..., D], type and device;
    sampled says that rows of a prior sample come along."""
    suffix: str
    """Its kernels are the native ops NAME_SUFFIX_fwd and NAME_SUFFIX_push."""
    why_not: Callable[[bool, Options], str | None] = lambda sampled, options: None
    """why_not(sampled, options): the reason why nothing can be kept for such a distance, or None."""
    of_rows: Callable[[Options, int], Options] = lambda options, rows: options
    """of_rows(options, rows): with what None leaves to the number of rows present as a number."""
    follow_rows: tuple[str, ...] = ()
    """The options for which None means that they follow from the number of rows present."""
    may_change: tuple[str, ...] = ()
    """Options that may change from step to step; `Running.serves` says whether what is kept is still for them."""


@dataclass(frozen=True, eq=False)
class DistanceOp(Op):
    """The row of a distance between [history; current] and a prior.

    >>> mk.distance_row(mk.cramer_wold).name
    'cramer_wold'
    """

    fused_arguments: Callable[[Tensor, int, bool, Options], tuple[Any, ...]] | None = None
    """fused_arguments(like, n, normal, options): how the options travel to the native ops, what follows (current,
    history, prior) there; like has current's width, dtype and device, n is the number of rows, normal the prior's."""
    to_normal: Callable[..., Pairwise | Sliced] | None = None
    """to_normal(n, dim, **options): what the value to N(0, I) needs, for a window that is spread over several ranks."""
    alone: Callable[[Options], str | None] = lambda options: None
    """The reason why a window of a single row has no distance with such options, or None."""
    of_one: Callable[[Tensor, Tensor | str, Options], Tensor] | None = None
    """of_one(current [1, D], prior, options): what a growing window measures of its first row all the same."""
    keeps: Keeps | None = None


class Backend(Protocol):
    """A column of the table: a module of `mow_kernels/backends`, or any object with these."""

    NAME: str

    def implementation(self, op: Op) -> Implementation | str:
        """What it has for an op, or the reason why it has nothing."""


TABLE: dict[str, dict[str, Implementation | str]] = {}
"""op -> backend -> implementation or reason; the backends in the order in which "auto" tries them."""

OPS: dict[str, Op] = {}
"""Every row by name."""

ROWS: dict[Callable[..., Any], Op] = {}
"""Every row by its public function."""

BACKENDS: dict[str, Backend] = {}
"""Every column by name, in the order in which "auto" tries them."""

PLACES = {"cpu": "the CPU", "cuda": "GPUs"}

CANDIDATES: dict[tuple[str, str | None], list[Implementation]] = {}
"""(op, type of a device, None for one that is not among `PLACES`) -> the implementations that may take its tensors, in
the order of "auto"."""


def add_op(op: Op) -> None:
    """A row more: `op` on every backend. One of the same name is replaced."""
    OPS[op.name] = op
    _multiply()


def add_backend(backend: Backend, before: str | None = None) -> None:
    """A column more, tried by "auto" before the one of that name, or last. One of the same name is replaced.

    Raises:
        ValueError: there is no backend `before`.
    """
    if before is not None and before not in BACKENDS:
        raise ValueError(f"before is {before!r}; it must be one of {', '.join(map(repr, BACKENDS))}")
    columns = [column for column in BACKENDS.values() if column.NAME != backend.NAME]
    names = [column.NAME for column in columns]
    columns.insert(len(names) if before is None else names.index(before), backend)
    BACKENDS.clear()
    BACKENDS.update((column.NAME, column) for column in columns)
    _multiply()


def remove(name: str) -> None:
    """A row or a column less, such as a test adds."""
    OPS.pop(name, None)
    BACKENDS.pop(name, None)
    _multiply()


def _multiply() -> None:
    ROWS.clear()
    ROWS.update((op.function, op) for op in OPS.values())
    TABLE.clear()
    TABLE.update({name: {at: column.implementation(op) for at, column in BACKENDS.items()} for name, op in OPS.items()})
    CANDIDATES.clear()
    for name, row in TABLE.items():
        for device in (None, *PLACES):
            CANDIDATES[name, device] = [
                entry for entry in row.values() if not isinstance(entry, str) and entry.device in (None, device)
            ]
