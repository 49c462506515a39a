"""Batches that do not fit: processed in pieces, with the gradient of the whole.

What is separable is accumulated: L = sum_j (n_j/N) mean_j for a mean over the rows, L = sum_j sum_j / count for a
masked sum, whatever the sizes n_j of the pieces. What is coupled, such as a distance over all latents, takes two
passes:

    z_j = E(x_j) without graph;    g = dF/dz over the whole z;    backward of <E(x_j), g_j>, piece by piece       (1)

Both are exact: peak memory follows the piece, the gradient the batch. The moving window (`mow.MovingWindow`) is the
one-pass form of (1), with stale latents; (1) is what it is tested against.

Source: accumulation, Piao et al., "Enabling Large Batch Size Training for DNN Models Beyond the Memory Limit" (2021),
here with exact weights; two passes, Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited
Setup" (2021).
"""

from __future__ import annotations

import inspect
import logging
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, Literal

import torch
from torch import Tensor

from mow.checks import expect, number, positive
from mow.neighbours.pieces import LISTENERS
from mow.training.buffers import Buffers, Called

log = logging.getLogger("mow")

MicroBatch = int | Literal["auto"]

FREE_SHARE = 0.5
"""How much of the free memory "auto" lets a piece fill with what it saves for its backward pass."""

_PROBES = (2, 4)  # rows of the two pieces that "auto" measures; not 1, which batch norm refuses


class BatchNormWarning(UserWarning):
    """Batch norm in training mode normalises each piece by itself: no accumulation gives the whole batch's gradient.

    `warnings.simplefilter("error", mow.neighbours.micro_batch.BatchNormWarning)` makes it an error.
    """


def accumulate(
    loss_fn: Callable[..., Tensor],
    *tensors: Tensor,
    micro_batch: MicroBatch = 8,
    reduction: Literal["mean", "sum"] = "mean",
    count: float | Tensor | None = None,
    device: torch.device | str | None = None,
    floor: int = 1,
) -> Tensor:
    """Forward and backward of a batch in pieces of `micro_batch` rows, with the gradient of the whole batch.

        >>> loss = mow.accumulate(lambda x: (decoder(encoder(x)) - x).square().mean(), x, micro_batch=2)

    As `loss_fn(*tensors).backward()` does, adds to the `.grad` of what the loss depends on, and writes the buffers of
    the modules that it calls once: every piece begins with those that the first began with, so that spectral norm takes
    one step for all of them and is exact. Batch norm in training mode normalises each piece by itself; its running
    statistics move once, by the mean over the pieces of theirs. Else what the first piece writes stays. On an error
    every gradient and buffer is as it was before.

    When memory runs out, starts again with pieces of half as many rows, says so in the log "mow", and gives what the
    smaller `micro_batch` would have given. Later calls of the same function with rows of the same shapes begin there.

    Args:
        loss_fn: takes a piece of each tensor, rows [n_j, ...], and returns a 0-d loss. It may be called again for the
            same rows. Batch norm in training mode raises a `BatchNormWarning`.
        tensors: the batch, N rows each, on the host or where they are needed.
        micro_batch: rows of a piece; the last one may have fewer. "auto" takes as many as free memory holds (see
            `FREE_SHARE`), from what a forward pass of two and of four rows saves.
        reduction: "mean" if loss_fn returns a mean over its rows, "sum" if a sum over its rows or over some of them.
        count: with "sum", what the sum over the whole batch is divided by, e.g. `mask.sum()`; None for 1.
        device: where the pieces are moved to; None leaves them where they are. From the host to a GPU, the next piece
            is copied while the current one is computed.
        floor: the fewest rows that pieces may shrink to when memory runs out.

    Returns:
        The loss of the whole batch: 0-d, detached, at least float32.

    Raises:
        TypeError, ValueError: a bad argument or loss, by name.
        What the device raises when memory runs out with `floor` rows.
    """
    expect(callable(loss_fn), "loss_fn", loss_fn, "a function")
    work = _Work(loss_fn, tensors, micro_batch, device, floor)
    weigh = _weighing(len(tensors[0]), reduction, count)

    def attempt(size: int) -> Tensor:
        total = None
        for pieces in work.once(work.pieces(size)):
            total = work.backward(weigh(_scalar("loss_fn", loss_fn(*pieces)), len(pieces[0])), total)
        assert total is not None  # there is a row
        return total

    return work.run(attempt, loss_fn)


def accumulate_coupled(
    encode: Callable[..., Tensor | Sequence[Tensor]],
    loss_fn: Callable[..., Tensor],
    *tensors: Tensor,
    separable: Callable[..., Tensor] | None = None,
    micro_batch: MicroBatch = 8,
    reduction: Literal["mean", "sum"] = "mean",
    count: float | Tensor | None = None,
    device: torch.device | str | None = None,
    floor: int = 1,
) -> Tensor:
    """`accumulate` for a loss that couples all rows, such as a distance over their latents: exact, by equation (1).

        >>> error = lambda z, x: (decoder(z) - x).square().mean()
        >>> loss = mow.accumulate_coupled(encoder, mow.MMD(), x, separable=error, micro_batch=2)
        >>> towers = lambda x, y: (encoder(x), encoder(y))
        >>> score = lambda z, w: (z @ w.T).logsumexp(1).mean()
        >>> loss = mow.accumulate_coupled(towers, score, x, x.flip(0), micro_batch=2)

    Each row is encoded twice; of the whole batch only the latents are held, without graph. The random numbers that
    `encode` draws from PyTorch's default generators (dropout, noise) are the same in both passes, and so are the
    buffers that it reads: the first pass leaves them, the second writes them once, as for `accumulate`. Batch norm in
    training mode normalises each piece by itself, so that the gradient is exact for what it computes, not that of the
    whole batch: a `BatchNormWarning` says so.

    Args:
        encode: takes a piece of each tensor and returns its latents, n_j rows, or a tuple of several tensors with n_j
            rows each.
        loss_fn: takes the latents of the whole batch, N rows, an argument for each tensor of a tuple, and returns a 0-d
            loss. What else it depends on, a learnt kernel for example, gets its gradient too.
        separable: takes a piece's latents (as loss_fn those of the batch) and the piece of each tensor, and returns a
            further 0-d loss as `loss_fn` of `accumulate` does; None for none.
        reduction, count: of `separable`, as for `accumulate`.
        tensors, micro_batch, device, floor: as for `accumulate`.

    Returns:
        The loss of loss_fn plus that of `separable`: 0-d, detached, at least float32.

    Raises:
        What `accumulate` raises; TypeError if encode returns neither a tensor nor a tuple of them; ValueError if it
        returns another number of rows, or no latents that need a gradient.
    """
    for name, function in (("encode", encode), ("loss_fn", loss_fn)):
        expect(callable(function), name, function, "a function")
    work = _Work(encode, tensors, micro_batch, device, floor)
    weigh = _weighing(len(tensors[0]), reduction, count)

    def attempt(size: int) -> Tensor:
        latents: list[tuple[Tensor, ...]] = []
        states = []
        buffers = work.called.follow()
        with torch.no_grad():
            for pieces in work.pieces(size):
                states.append(work.random_state())
                latents.append(_latents(encode(*pieces), len(pieces[0])))
                buffers.restore()
        z = [torch.cat(parts) for parts in zip(*latents, strict=True)]
        for each in z:
            each.requires_grad_(each.is_floating_point() or each.is_complex())
        del latents
        total = work.backward(_scalar("loss_fn", loss_fn(*z)))
        g_z = zip(*((torch.zeros_like(one) if one.grad is None else one.grad).split(size) for one in z), strict=True)

        after = work.random_state()
        for pieces, state, g_j in zip(work.once(work.pieces(size)), states, g_z, strict=True):
            work.set_random_state(state)
            z_j = _latents(encode(*pieces), len(pieces[0]))
            work.set_random_state(after)
            pulls = [(one * g).sum() for one, g in zip(z_j, g_j, strict=True) if one.requires_grad]
            if not pulls:
                raise ValueError("encode returned latents that require no grad; it must depend on parameters that do")
            pull = torch.stack(pulls).sum() if len(pulls) > 1 else pulls[0]
            if separable is None:
                work.backward(pull)
            else:
                loss = weigh(_scalar("separable", separable(*z_j, *pieces)), len(pieces[0]))
                total = total + loss.detach()
                work.backward(pull + loss)
            after = work.random_state()
        return total

    def forward(*pieces: Tensor) -> Any:
        z_j = _latents(encode(*pieces), len(pieces[0]))
        return z_j if separable is None else separable(*z_j, *pieces)

    return work.run(attempt, forward)


class _Work:
    """What both functions share: the pieces, the gradients set aside, and beginning again when memory runs out."""

    limits: dict[Hashable, int] = {}
    """Function and shapes of a row -> the rows that memory has held, where it once ran out."""
    row_bytes: dict[Hashable, float] = {}
    """Function and shapes of a row -> what a row saves for the backward pass, as "auto" has measured it."""

    def __init__(
        self,
        function: Callable[..., Any],
        tensors: Sequence[Tensor],
        micro_batch: MicroBatch,
        device: torch.device | str | None,
        floor: int,
    ) -> None:
        _check_tensors(tensors)
        self.floor = positive("floor", floor)
        if micro_batch != "auto":
            micro_batch = positive("micro_batch", micro_batch)
            if micro_batch < self.floor:
                raise ValueError(f"micro_batch is {micro_batch} and floor {floor}; it must be at least that")
        self.tensors, self.micro_batch, self.rows = tensors, micro_batch, len(tensors[0])
        self.device = None if device is None else torch.device(device)
        places = {tensor.device for tensor in tensors}
        from_host = self.device is not None and self.device.type == "cuda" and places == {torch.device("cpu")}
        self.copies = torch.cuda.Stream(self.device) if from_host else None
        self.gpus = range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0)
        self.several = False
        self.key = (
            _identity(function),
            self.device,
            *((tensor.device, tensor.dtype, tensor.shape[1:]) for tensor in tensors),
        )
        self.set_aside: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.called = Called()

    def run(self, attempt: Callable[[int], Tensor], forward: Callable[..., Any]) -> Tensor:
        """attempt(rows of a piece), with fewer rows when memory runs out, and all gradients or none.

        forward: of a piece, for "auto" to measure.
        """
        with self.called:
            return self._run(attempt, forward)

    def _run(self, attempt: Callable[[int], Tensor], forward: Callable[..., Any]) -> Tensor:
        buffers = self.called.follow()
        with buffers:
            wanted = self._fitting(forward) if self.micro_batch == "auto" else self.micro_batch
        size = min(wanted, self.rows, self.limits.get(self.key, self.rows))
        state, marks = self.random_state(), [(listener, listener.mark()) for listener in LISTENERS]
        while True:
            try:
                total = attempt(size)
                self._add_set_aside()
                return total
            except BaseException as error:
                self._restore()
                buffers.restore()
                for listener, mark in marks:
                    listener.rewind(mark)
                if size <= self.floor or not _is_out_of_memory(error):
                    raise
            smaller = max(self.floor, size // 2)  # past the except clause, which keeps the failed graph alive
            log.warning(
                "out of memory with micro_batch=%d: beginning this batch of %d again with %d. The result is the same; "
                "gradients were restored. Later calls begin with %d.",
                *(size, self.rows, smaller, smaller),
            )
            size = self.limits[self.key] = smaller
            self.set_random_state(state)

    def pieces(self, size: int) -> Iterator[list[Tensor]]:
        """The tensors in pieces, on the device.

        The host runs ahead of a GPU: while that computes, the next piece is pinned and copied, and no more than one.
        """
        self.several = size < self.rows
        under_way: deque[torch.cuda.Event] = deque()
        for start in range(0, self.rows, size):
            pieces = [tensor[start : start + size] for tensor in self.tensors]
            if self.copies is None:
                yield pieces if self.device is None else [piece.to(self.device) for piece in pieces]
                continue
            if len(under_way) == 2:
                under_way.popleft().synchronize()
            compute = torch.cuda.current_stream(self.device)
            with torch.cuda.stream(self.copies):
                pinned = (piece if piece.is_pinned() else piece.pin_memory() for piece in pieces)
                pieces = [piece.to(self.device, non_blocking=True) for piece in pinned]
            compute.wait_stream(self.copies)
            for piece in pieces:
                piece.record_stream(compute)  # its memory is not for the next copy before compute is done with it
            yield pieces
            under_way.append(compute.record_event())

    def once(self, pieces: Iterator[list[Tensor]]) -> Iterator[list[Tensor]]:
        """The pieces, between whose passes the buffers of all modules go back to where the first began: each normalises
        its weights alike, and all write them once. What stays is written by the first piece, but batch norm's
        statistics, which are the mean over the rows of all pieces."""
        before, done = self.called.follow(), 0
        after: Buffers | None = None
        for piece in pieces:
            if after is not None:
                before.restore()
            yield piece
            done += len(piece[0])
            for listener in LISTENERS:
                listener.piece(len(piece[0]))
            if after is None:
                after = before.again()
            else:
                after.restore_but_for_statistics(len(piece[0]) / done)
                after = before.again()

    def backward(self, loss: Tensor, total: Tensor | None = None) -> Tensor:
        """Backward of a piece's share; the total so far with it, detached and at least float32."""
        batch_norm = False
        for node in _graph(loss):
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) not in self.set_aside:
                self.set_aside[id(leaf)], leaf.grad = (leaf, leaf.grad), None
            batch_norm = batch_norm or _is_batch_norm(node)
        if batch_norm and self.several:
            warnings.warn(
                "batch norm in training mode normalises each piece by itself, so the gradient is not that of the whole "
                "batch: use group or layer norm, or put the batch norm into eval mode",
                BatchNormWarning,
                stacklevel=6,
            )
        loss.backward()
        value = loss.detach().to(torch.promote_types(loss.dtype, torch.float32))
        return value if total is None else total + value

    def random_state(self) -> list[Tensor]:
        return [torch.random.get_rng_state(), *map(torch.cuda.get_rng_state, self.gpus)]

    def set_random_state(self, state: list[Tensor]) -> None:
        torch.random.set_rng_state(state[0])
        for gpu, its in zip(self.gpus, state[1:], strict=True):
            torch.cuda.set_rng_state(its, gpu)

    def _restore(self) -> None:
        for leaf, gradient in self.set_aside.values():
            leaf.grad = gradient
        self.set_aside.clear()

    def _add_set_aside(self) -> None:
        for leaf, gradient in self.set_aside.values():
            if gradient is not None:
                if leaf.grad is not None:
                    gradient.add_(leaf.grad)
                leaf.grad = gradient
        self.set_aside.clear()

    def _fitting(self, forward: Callable[..., Any]) -> int:
        """How many rows may save what fills the share of the free memory."""
        few, more = _PROBES
        if self.rows <= more:
            return self.rows
        if self.key not in self.row_bytes:
            state = self.random_state()
            saved = [_saved_bytes(forward, next(self.pieces(rows))) for rows in (few, more)]
            self.set_random_state(state)
            self.row_bytes[self.key] = (saved[1] - saved[0]) / (more - few)
        a_row, free = self.row_bytes[self.key], _free_memory(self.device or self.tensors[0].device)
        size = self.rows if a_row <= 0 else max(self.floor, int(FREE_SHARE * free / a_row))
        log.info("micro_batch='auto': %d rows, %.3g MiB a row, %.0f MiB free", size, a_row / 2**20, free / 2**20)
        return size


def _weighing(rows: int, reduction: str, count: float | Tensor | None) -> Callable[[Tensor, int], Tensor]:
    """The share of a piece in the loss of the whole batch, from its loss and its rows."""
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction is {reduction!r}; it must be 'mean' or 'sum'")
    if count is None:
        return lambda loss, here: loss * (here / rows) if reduction == "mean" else loss
    if reduction == "mean":
        raise ValueError(f"count is {count!r} and reduction 'mean'; it goes with 'sum'")
    if isinstance(count, Tensor):
        if count.dim() != 0 or count.requires_grad:
            raise ValueError(f"count has shape {list(count.shape)}; it must be 0-d and without gradient")
    else:
        count = number("count", count, above=0)
    return lambda loss, here: loss / count


def _identity(function: Callable[..., Any]) -> Hashable:
    """The same for a lambda that is made anew at each step, different for two modules, and keeps nothing alive."""
    function = inspect.unwrap(function)
    if isinstance(function, FunctionType):
        return function.__code__
    return getattr(function, "__code__", None), weakref.ref(getattr(function, "__self__", function))


def _check_tensors(tensors: Sequence[Tensor]) -> None:
    if not tensors:
        raise TypeError("tensors is empty; at least one tensor [N, ...] must follow the functions")
    for i, tensor in enumerate(tensors):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"tensors[{i}] is {type(tensor).__name__}; it must be a tensor [N, ...]")
        if tensor.dim() == 0 or len(tensor) == 0 or len(tensor) != len(tensors[0]):
            raise ValueError(f"tensors[{i}] has shape {list(tensor.shape)}; all must have the same N >= 1 rows")
        if tensor.requires_grad and not tensor.is_leaf:
            raise ValueError(
                f"tensors[{i}] is part of a graph, which the first piece would free; detach it, or compute it in the "
                "function that takes the pieces"
            )


def _scalar(name: str, loss: object) -> Tensor:
    if not isinstance(loss, Tensor):
        raise TypeError(f"{name} returned {type(loss).__name__}; it must return a 0-d tensor")
    if loss.dim() != 0:
        raise ValueError(f"{name} returned shape {list(loss.shape)}; it must return a 0-d tensor")
    if not loss.requires_grad:
        raise ValueError(f"{name} returned a loss that requires no grad; it must depend on what does")
    return loss


def _latents(z: object, rows: int) -> tuple[Tensor, ...]:
    found = tuple(z) if isinstance(z, tuple | list) else (z,)
    for one in found or (None,):
        if not isinstance(one, Tensor):
            inside = "" if one is z else f" with a {type(one).__name__}" if found else " without any"
            raise TypeError(
                f"encode returned {type(z).__name__}{inside}; it must return a tensor, or a tuple of tensors"
            )
        if one.dim() == 0 or len(one) != rows:
            raise ValueError(f"encode returned shape {list(one.shape)} for {rows} rows; it must return as many")
    return found


def _graph(loss: Tensor) -> Iterator[Any]:
    """Every node that backward visits."""
    found = [torch.autograd.graph.get_gradient_edge(loss).node]
    seen = set(found)
    while found:
        node = found.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                found.append(following)


def _is_batch_norm(node: Any) -> bool:
    """Whether it normalises over rows; instance norm is batch norm of a single row of N times the channels."""
    if "BatchNorm" not in node.name() or not getattr(node, "_saved_training", False):
        return False
    return node._input_metadata[0].shape[0] > 1 or node._saved_running_mean is not None


def _saved_bytes(forward: Callable[..., Any], pieces: Sequence[Tensor]) -> int:
    """What a forward pass saves for its backward pass, everything once."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        kept = forward(*pieces)  # alive, or what comes later might be given the same memory
    del kept
    return sum(sizes.values())


def _free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device.

    Raises:
        ValueError: it does not say.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    try:
        if device.type != "cpu":
            raise OSError
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration):
        raise ValueError(f"micro_batch is 'auto', but {device} does not say how much memory is free here") from None
    try:  # a container may have less
        limit, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        statistics = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):
        return free
    return max(0, min(free, limit - used + int(statistics.get("inactive_file", 0))))


_CGROUP = Path("/sys/fs/cgroup")


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "allocate memory" in str(error)  # the CPU's allocator
