"""The processes of a distributed run: who this one is, which rows are its own, and what happens when one is lost."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

TIMEOUT = 300.0
"""Seconds after which a rank gives up waiting for another."""


class RankError(ConnectionError):
    """Another rank died, failed or did not answer in time; the message says what to do.

    >>> try:
    ...     history = trainer.fit(pictures, steps=3)
    ... except mow.distributed.RankError as error:
    ...     print(error)
    """


@dataclass(frozen=True)
class Ranks:
    """This process among those of a process group; a single one where torch.distributed was not initialised.

    >>> mow.distributed.Ranks(rank=1, size=3).counts(7)
    [3, 2, 2]
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    """None for all processes."""

    @classmethod
    def of(cls, group: dist.ProcessGroup | None = None) -> Ranks:
        """The ranks of a process group, None for all processes."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(group), dist.get_world_size(group), group)

    def counts(self, rows: int) -> list[int]:
        """How many of so many rows each rank takes: they differ by at most one, and no rank has more than rank 0."""
        edges = [-(-rows * rank // self.size) for rank in range(self.size + 1)]
        return [stop - start for start, stop in zip(edges[:-1], edges[1:], strict=True)]

    def share(self, rows: int) -> slice:
        """Which of so many rows are this rank's: `counts` in the order of the ranks."""
        return slice(-(-rows * self.rank // self.size), -(-rows * (self.rank + 1) // self.size))

    def sum(self, values: Tensor) -> Tensor:
        """The sum over the ranks, in place. One collective."""
        if self.size > 1:
            dist.all_reduce(values, group=self.group)
        return values

    def first(self, action: Callable[[], bytes]) -> bytes:
        """What rank 0's action returns, in every rank; where it raises, the others raise a RankError with its words."""
        if self.size == 1:
            return action()
        content, error = b"", None
        if self.rank == 0:
            try:
                content = action()
            except (OSError, ValueError, TypeError) as raised:
                content, error = str(raised).encode(), raised
        device = torch.device("cuda") if dist.get_backend(self.group) == "nccl" else torch.device("cpu")
        head = torch.tensor([len(content), error is not None], dtype=torch.int64, device=device)
        dist.broadcast(head, group=self.group, group_src=0)
        body = torch.frombuffer(bytearray(content or b"\0"), dtype=torch.uint8).to(device)
        body = body if self.rank == 0 else body.new_empty(max(1, int(head[0])))
        dist.broadcast(body, group=self.group, group_src=0)
        if error is not None:
            raise error
        content = body.cpu().numpy().tobytes()[: int(head[0])]
        if head[1]:
            raise RankError(f"rank 0: {content.decode()}")
        return content


@contextmanager
def lost_rank_errors(step: int) -> Iterator[None]:
    """Turns what a collective raises when a rank is lost into a RankError that says where and what to do."""
    try:
        yield
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        raise RankError(
            f"step {step} did not end: another rank died, failed or did not answer in time. Nothing was saved of it; "
            f"go on from the last checkpoint (--resume). ({_first_line(error)})"
        ) from error


@contextmanager
def process_group(timeout: float = TIMEOUT) -> Iterator[Ranks]:
    """The ranks that torchrun started, connected until the end of the block; a single one without torchrun.

        >>> with mow.distributed.process_group() as ranks:
        ...     print(ranks.rank, "of", ranks.size)
        0 of 1

    NCCL for tensors on GPUs, of which each process takes that of its local rank, and gloo for those on the CPU. Let go
    of trainers before the block ends: what refers to the group keeps gloo's threads, which may abort the process when
    it ends.

    Args:
        timeout: seconds after which a rank that waits for another gives up, > 0.

    Raises:
        ValueError: timeout is not > 0 and finite.
        RankError: the ranks did not find each other.
    """
    if not 0 < timeout < float("inf"):
        raise ValueError(f"timeout is {timeout!r}; it must be finite and > 0, in seconds")
    if "RANK" not in os.environ or dist.is_initialized():
        yield Ranks.of()
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        connect(timeout=timedelta(seconds=timeout))
    except (RuntimeError, ConnectionError) as error:
        raise RankError(f"the ranks did not find each other: {_first_line(error)}") from error
    yield Ranks.of()
    disconnect()  # not after an error, when ranks may wait for each other: see `leave`


def connect(*args: Any, **options: Any) -> None:
    """`init_process_group`, so that `disconnect` ends the group and its threads.

    A thread of gloo that waits for the interpreter while that ends is made to call std::terminate: the process aborts,
    its work done, and torchrun kills the others. DistributedDataParallel imports torch._dynamo, which keeps a group
    that was there before it for good; so it comes first.
    """
    importlib.import_module("torch._dynamo")
    dist.init_process_group(*args, **options)


def disconnect() -> None:
    """`destroy_process_group`, and the end of the group's threads if nothing refers to it but garbage."""
    gc.collect()
    dist.destroy_process_group()


def leave(code: int) -> None:
    """End this process at once if it is still in a group, as after an error, without the interpreter's own end.

    Its connections close, so the other ranks notice.
    """
    if dist.is_available() and dist.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _is_lost(error: RuntimeError) -> bool:
    """gloo raises plain RuntimeErrors, of which only the words tell."""
    words = ("gloo", "Connection", "Timed out", "timeout", "NCCL", "process group")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
