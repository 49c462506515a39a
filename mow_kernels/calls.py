"""What happens between a public function and a backend: the samples are checked, and one entry of the table is chosen.

The choice is made in plain Python from one setting and the arguments alone, so that torch.compile can trace through it
and guard on it.
"""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from mow_kernels import checks
from mow_kernels.reference.sums import Pairwise, Sliced
from mow_kernels.registry import (
    BACKENDS,
    CANDIDATES,
    OPS,
    PLACES,
    ROWS,
    TABLE,
    Call,
    DistanceOp,
    Implementation,
    Newest,
    Op,
)
from mow_kernels.settings import ENTERED, Setting


class use_backend(Setting):
    """Run the calls inside on one backend: "reference", "cpp", "triton", "cuda", or "auto" for the first that can.

        >>> with mk.use_backend("reference"):
        ...     value = mk.mmd(z, history)

    For this thread (more exactly, this context: see `contextvars`); outside, and on other threads, the environment
    variable MOW_BACKEND says which. A call that the backend cannot take raises with the reason.

    Raises:
        ValueError: the name is not a backend.
    """

    outside: ClassVar[str] = os.environ.get("MOW_BACKEND", "auto")

    def __init__(self, name: str) -> None:
        _check_backend("use_backend", name)
        super().__init__(name)


def samples(current: Tensor, history: Tensor | None, prior: Tensor | str) -> tuple[Tensor, Tensor, Tensor | None]:
    """The samples of a distance, checked, half types widened to float32.

    Returns:
        current [k, D] with k >= 1, history [h, D] with h = 0 for None, and prior [m, D] with m >= 1, or None for
        "normal". A batch of windows is current [B, k, D], and history and prior have 2 or 3 dimensions then.

    Raises:
        TypeError, ValueError: one of them is no such tensor, or they do not go together, by name.
    """
    drawn = None if isinstance(prior, str) and prior == "normal" else prior
    if prior is not None and _are_plain(current, history, drawn):
        past = current.new_empty(0, current.shape[1]) if history is None else history
        return current, past, drawn  # type: ignore[return-value]  # it was seen to be a tensor or None
    checked = checks.rows("current", current, batch=True)
    if checked.shape[-2] == 0:
        raise ValueError(f"current has shape {list(current.shape)}; it must have at least one row")
    past = checked.new_empty(0, checked.shape[-1]) if history is None else checks.companion("history", history, current)
    if isinstance(prior, str):
        checks.choice("prior", prior, ("normal",))
        return checked, past, None
    sample = checks.companion("prior", prior, current)
    if sample.shape[-2] == 0:
        raise ValueError(f"prior has shape {list(sample.shape)}; it must have at least one row")
    return checked, past, sample


def _are_plain(current: object, history: object, drawn: object) -> bool:
    """Whether `current` and its companions, None for none, are all right as they are; False says nothing.

    Takes half the time of asking for one after the other, which counts where the window is small.
    """
    if not isinstance(current, Tensor) or ENTERED["check_finite"] or checks.check_finite.outside:
        return False
    dtype, shape, device = current.dtype, current.shape, current.device
    if dtype not in checks.WIDE or len(shape) != 2 or 0 in shape:
        return False
    for other in (history, drawn):
        if other is None:
            continue
        if type(other) is not Tensor or other.dtype is not dtype or other.device != device or other.requires_grad:
            return False
        size = other.shape
        if len(size) != 2 or size[1] != shape[1] or (other is drawn and size[0] == 0):
            return False
    return True


def run(call: Call) -> Any:
    """What the selected implementation makes of a checked call; of a batch of windows [B]."""
    op, arguments, options = call if call.op.draw is None else call.op.draw(call)
    if arguments[0].dim() == 3 and isinstance(op, DistanceOp):
        return torch.stack([select(op, each, options).run(*each, **options) for each in _windows(arguments)])
    return select(op, arguments, options).run(*arguments, **options)


def _windows(arguments: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """The arguments of each window of a batch."""
    each = (itertools.repeat(x) if x is None or x.dim() == 2 else x.unbind() for x in arguments)
    return list(zip(*each, strict=False))  # as many as current has


def select(op: Op, arguments: tuple[Any, ...], options: dict[str, Any]) -> Implementation:
    """The implementation that runs a checked call.

    Raises:
        ValueError: the wanted backend is unknown or cannot run this call, with the reason.
    """
    wanted = use_backend.here() if ENTERED["use_backend"] else use_backend.outside
    if wanted == "auto":
        device = "cpu" if arguments[0].is_cpu else arguments[0].device.type  # the latter makes a string, in 3 us
        for implementation in CANDIDATES[op.name, device if device in PLACES else None]:
            if why_not_there(implementation, arguments, options) is None:
                return implementation
    _check_backend("MOW_BACKEND", wanted)
    entry = TABLE[op.name][wanted]
    reason = _why_not(entry, arguments, options)
    if reason is not None:
        raise ValueError(f"backend {wanted!r} cannot run this {op.name}: {reason}")
    return entry  # type: ignore[return-value]  # a str is its reason


def _why_not(entry: Implementation | str, arguments: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    """The reason why an entry of the table cannot run a call, or None."""
    if isinstance(entry, str):
        return entry
    device = arguments[0].device
    if entry.device not in (None, device.type):
        return f"it runs on {PLACES[entry.device]} and the tensors are on {device}"
    return why_not_there(entry, arguments, options)


def why_not_there(entry: Implementation, arguments: tuple[Any, ...], options: dict[str, Any]) -> str | None:
    """The same of one that takes tensors on such a device."""
    if entry.only is not None and options[entry.only[0]] not in entry.only[1]:
        return f"it has no {entry.only[0]} {options[entry.only[0]]!r}"
    return None if entry.unsupported is None else entry.unsupported(*arguments, **options)


@dataclass(frozen=True)
class Explanation:
    """Where a call would run, and why not elsewhere.

    >>> explanation = mk.explain(mk.cramer_wold, torch.randn(64, 8))
    >>> explanation.op, explanation.backend in explanation.reasons
    ('cramer_wold', False)
    """

    op: str
    backend: str | None
    """The backend that would run the call; None when the wanted one cannot."""
    reasons: dict[str, str]
    """Every other backend -> why it does not run the call."""

    def __str__(self) -> str:
        head = f"{self.op} runs on {self.backend!r}" if self.backend else f"{self.op} cannot run"
        return "\n".join([head, *(f"  not {backend!r}: {reason}" for backend, reason in self.reasons.items())])


def explain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Explanation:
    """Where a call of a public function would run. Checks the arguments; runs nothing and draws nothing.

        >>> print(mk.explain(mk.cramer_wold, torch.randn(64, 8)))
        cramer_wold runs on ...

    Returns:
        `.backend`, `.reasons` (every other backend -> why not), and a readable str().

    Raises:
        ValueError: not one of the public functions.
        What the call itself would raise for its arguments.
    """
    op = row(function)
    bound = inspect.signature(function).bind(*args, **kwargs)
    bound.apply_defaults()
    _, arguments, options = op.check(*bound.args, **bound.kwargs)
    if isinstance(op, DistanceOp) and arguments[0].dim() == 3:
        arguments = _windows(arguments)[0]
    try:
        chosen = select(op, arguments, options)
    except ValueError:
        _check_backend("MOW_BACKEND", use_backend.here())
        chosen = None
    entries, wanted = TABLE[op.name], use_backend.here()
    name = next((backend for backend, entry in entries.items() if entry is chosen), None)
    passed_over = f"{name!r} comes first" if wanted == "auto" else f"{wanted!r} was asked for"
    reasons = {
        backend: _why_not(entry, arguments, options) or passed_over
        for backend, entry in entries.items()
        if backend != name
    }
    return Explanation(op.name, name, reasons)


def gradient(
    function: Callable[..., Tensor],
    current: Tensor,
    history: Tensor | Newest | None = None,
    prior: Tensor | str = "normal",
    *,
    measure: bool = False,
    **options: Any,
) -> tuple[Tensor, Tensor | None]:
    """The gradient of a distance for current, without autograd, and with `measure` the value that it belongs to.

        >>> g_z, value = mk.gradient(mk.mmd, z, history, measure=True)
        >>> torch.autograd.backward((z,), (g_z,))        # hands it to autograd

    The same bits as by autograd. The gradient alone visits only what depends on current: of a sum over pairs
    O(k (n + m) D), where the value takes O((n + m)^2 D); of a sliced distance the ranks of the k rows, not the sorted
    window (the backend "reference" computes the value as well).

    Args:
        function: mmd, cramer_wold, sliced_wasserstein, or another whose row is in the table.
        current, history, prior, options: of that function; history may also be a `Ring.last`, read where it is.
        measure: compute the value, too.

    Returns:
        [k, D], float32 for half inputs, else of current's dtype, and 0-d or None; neither has a graph. Of a batch of
        windows [B, k, D] and [B]. A gradient of many rows is small: scale it first, then cast it to a half type
        (autograd does that by itself).

    Raises:
        ValueError: function is none of them.
        What the function itself raises.
    """
    op = distance_row(function)
    ring = None
    if isinstance(history, Newest):
        ring = history if _is_read_in_place(history, current) else None
        history = history.rows() if ring is None else history.slots[: history.count]  # of their form
    call = op.check(current, history, prior, **(op.defaults | options))
    op_, arguments, checked = call if op.draw is None else op.draw(call)
    if ring is not None:
        implementation, (x, _, sample) = select(op_, arguments, checked), arguments
        if implementation.ring is not None:
            return implementation.ring(measure, x, ring, sample, **checked)
        arguments = x, ring.rows(), sample
    if arguments[0].dim() == 3:
        gradients, values = zip(*(_gradient(op_, measure, each, checked) for each in _windows(arguments)), strict=True)
        return torch.stack(gradients), torch.stack(values) if measure else None
    return _gradient(op_, measure, arguments, checked)


def _is_read_in_place(history: Newest, current: object) -> bool:
    """Whether rows of a ring can do without a copy before the samples are checked; none is looked at then."""
    dtype = history.slots.dtype
    plain = isinstance(current, Tensor) and current.dim() == 2 and current.dtype is dtype and dtype in checks.WIDE
    return plain and not (ENTERED["check_finite"] or checks.check_finite.outside or torch.compiler.is_compiling())


def _gradient(op: Op, measure: bool, arguments: tuple[Any, ...], options: dict[str, Any]) -> tuple[Tensor, Any]:
    """That of one window."""
    return select(op, arguments, options).gradient(measure, *arguments, **options)  # type: ignore[misc]  # it has one


def differentiable(
    function: Callable[..., Tensor],
    current: Tensor,
    history: Tensor | None = None,
    prior: Tensor | str = "normal",
    **options: Any,
) -> Tensor:
    """A distance by the reference, differentiable for all its samples and as often as wanted.

        >>> v = torch.randn(4, z.shape[1], requires_grad=True)
        >>> value = mk.differentiable(mk.mmd, z, history, v)        # history and prior may require a gradient
        >>> (g_z,) = torch.autograd.grad(value, z, create_graph=True)
        >>> (g_v,) = torch.autograd.grad(g_z.square().sum(), v)

    The same value as by the function, in plain PyTorch: it takes the memory of all pairs. For derivatives across the
    samples and beyond the second; the function itself is for the first.

    Args:
        function: mmd, cramer_wold, sliced_wasserstein, or another whose row is in the table.
        current, history, prior, options: of that function.

    Returns:
        0-d, or [B] of a batch of windows.

    Raises:
        ValueError: function is none of them.
        What the function itself raises, but for a history or prior that requires grad.
    """
    op = distance_row(function)
    past, sample = (each.detach() if isinstance(each, Tensor) else each for each in (history, prior))
    call = op.check(current, past, sample, **(op.defaults | options))
    op_, arguments, checked = call if op.draw is None else op.draw(call)
    attached = tuple(
        given.to(rows.dtype) if isinstance(given, Tensor) else rows
        for given, rows in zip((current, history, prior), arguments, strict=True)
    )
    if attached[0].dim() == 3:
        return torch.stack([op_.reference(*window, **checked) for window in _windows(attached)])
    value: Tensor = op_.reference(*attached, **checked)
    return value


def to_normal(function: Callable[..., Tensor], like: Tensor, n: int, **options: Any) -> Pairwise | Sliced:
    """What the distance of n rows to N(0, I) is made of, for who spreads the rows over several places.

        >>> pairs = mk.to_normal(mk.mmd, z, 64)
        >>> total = pairs.between(z, history)        # 2 * pairs.pair * total is its part of the value

    Args:
        function: of a distance whose row says so.
        like: any tensor of the rows' width, dtype and device.
        n: rows in all, >= 1.
        options: of that function; directions that are a number are drawn.

    Raises:
        ValueError: function has no such row; and what the function itself raises for its options.
    """
    op = distance_row(function)
    if op.to_normal is None:
        raise ValueError(f"function is {op.name}, of which it is not known what its value to N(0, I) is made of")
    rows = like.new_empty(1, like.shape[-1]).expand(max(2, n), -1)  # what is checked of one row, does not count here
    call = op.check(rows, None, "normal", **(op.defaults | options))
    checked = (call if op.draw is None else op.draw(call)).options
    return op.to_normal(n, rows.shape[1], **checked)


def row(function: Callable[..., Any]) -> Op:
    """The row of a public function.

    Raises:
        ValueError: it has none.
    """
    op = ROWS.get(function) if callable(function) else None
    if op is None:
        raise ValueError(f"function is {function!r}; it must be {_names(Op)} of mow_kernels")
    return op


def distance_row(function: Callable[..., Tensor]) -> DistanceOp:
    """The row of the public function of a distance: all that is known of it beside its kernels.

        >>> mk.distance_row(mk.mmd).name
        'mmd'

    Raises:
        ValueError: it is none.
    """
    op = ROWS.get(function) if callable(function) else None
    if not isinstance(op, DistanceOp):
        raise ValueError(f"function is {function!r}; it must be {_names(DistanceOp)} of mow_kernels")
    return op


def _names(kind: type[Op]) -> str:
    *names, last = (name for name, op in OPS.items() if isinstance(op, kind))
    return f"{', '.join(names)} or {last}"


def _check_backend(argument: str, name: str) -> None:
    if name != "auto" and name not in BACKENDS:
        allowed = ", ".join(map(repr, (*BACKENDS, "auto")))
        raise ValueError(f"{argument} is {name!r}; it must be one of {allowed}")
