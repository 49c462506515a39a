"""What a step exchanges with the other ranks; docs/distributed.md derives the factors."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mow.checks import integer
from mow.distributed.gathering import Gathering, gather
from mow.distributed.ranks import Ranks, lost_rank_errors
from mow.distributed.sharded_window import ShardedWindow
from mow.naming import named
from mow.training.exchange import Exchange
from mow.window.distances import Distance
from mow.window.window import MovingWindow


class RankExchange(Exchange):
    """The exchange of one of several ranks, each of which has a share of the new elements; all make the same calls.

        >>> trainer = mow.distributed.DistributedTrainer(encoder, decoder, mow.CramerWold(), window, k=4)
        >>> trainer.exchange.share(4)        # of one process
        slice(0, 4, None)

    A step has one collective beside DistributedDataParallel's averaging of the gradients: latents alone are gathered,
    while the decoder works. A latent that was encoded again is pushed with the gathering of the next step.

    Args:
        encoder, decoder: as in every rank; their weights become rank 0's.
        k: new elements a step over all ranks, at least one for each; the shares differ by at most one.
        group: the process group, None for all processes.

    Raises:
        ValueError: k is smaller than the number of ranks.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module, k: int, group: dist.ProcessGroup | None) -> None:
        self.ranks, k = Ranks.of(group), integer("k", k)
        self.first = self.ranks.rank == 0
        if k < self.ranks.size:
            raise ValueError(f"k is {k} and there are {self.ranks.size} ranks; each needs at least one of the k")
        self._capacity = self.ranks.counts(k)[0]
        networks = _Networks(encoder, decoder)
        self._flag = networks.flag
        self._networks: nn.Module = networks
        if self.ranks.size > 1:
            self._networks = DistributedDataParallel(networks, process_group=group)
        self._encoded_again: tuple[Tensor, Sequence[int]] | None = None
        """This rank's latents that are not in the window yet, and how many each rank has."""

    def __repr__(self) -> str:
        return named(self, rank=self.ranks.rank, ranks=self.ranks.size)

    _gathering: Gathering
    _counts: Sequence[int]
    """How many new elements each rank has in this step."""

    def encode(self, encoder: nn.Module, x: Tensor, total: int | None) -> Tensor:
        z: Tensor = self._networks(encoder, x)
        again = [] if self._encoded_again is None else [self._encoded_again]
        self._gathering = gather(
            *(rows for rows, _ in again),
            z.detach(),
            capacity=self._capacity,
            counts=[*(counts for _, counts in again), None if total is None else self.ranks.counts(total)],
            group=self.ranks.group,
        )
        return z

    def receive(self, z: Tensor, window: MovingWindow) -> Tensor:
        *again, rows = self._gathering.wait()
        self._counts = self._gathering.counts[-1]
        self._encoded_again = None
        for encoded_again in again:
            self.enter(encoded_again, window)
        return rows

    def gradient(
        self, distance: Distance, rows: Tensor, window: MovingWindow | ShardedWindow, measure: bool
    ) -> tuple[Tensor, Tensor | None]:
        if isinstance(window, ShardedWindow):
            g_rows, value = window.gradient(distance, rows, measure=measure)
        else:
            g_rows, value = distance.gradient(rows, window, measure=measure)
        return g_rows.split(list(self._counts))[self.ranks.rank], value

    def sum(self, value: Tensor) -> Tensor:
        return self.ranks.sum(value.clone())

    def backward(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor], health: Tensor) -> Tensor:
        """The gradients are averaged, so each counts as often as there are ranks. The flag's rides with them, and is
        NaN in every rank once it is in one."""
        self._flag.grad = None
        everything = (*(self.ranks.size * gradient for gradient in gradients), 0 * health.to(self._flag))
        torch.autograd.backward((*tensors, self._flag), everything)
        return health if self._flag.grad is None else self._flag.grad

    def push(self, z: Tensor, window: MovingWindow) -> None:
        self._encoded_again = z, self._counts

    def agreed(self, error: Tensor, distance: Tensor) -> Tensor:
        total, distances = self.ranks.sum(torch.stack([error.double(), distance.double()]))
        mean = distances / self.ranks.size
        if not torch.isclose(mean, distance.double(), rtol=1e-4, atol=1e-6, equal_nan=True):
            raise RuntimeError(
                f"the distance is {float(distance)} in rank {self.ranks.rank} and {float(mean)} in the mean of the "
                "ranks: their windows, seeds or random states have parted (give distance and prior their generators)"
            )
        return total.to(error.dtype)

    def settle(self, window: MovingWindow) -> None:
        """What would have travelled with the next step's latents."""
        if self._encoded_again is not None:
            (rows, counts), self._encoded_again = self._encoded_again, None
            self.enter(self._all(rows, counts), window)

    def gather(self, z: Tensor, total: int) -> Tensor:
        return self._all(z, self.ranks.counts(total))

    def share(self, total: int) -> slice:
        return self.ranks.share(total)

    def count(self, x: Tensor) -> int:
        return sum(self._counts)

    def guard(self, step: int) -> AbstractContextManager[None]:
        return lost_rank_errors(step)

    def _all(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all ranks, of which each knows how many there are."""
        (gathered,) = gather(rows, capacity=max(counts), counts=[counts], group=self.ranks.group).wait()
        return gathered


class _Networks(nn.Module):
    """What DistributedDataParallel wraps: one reducer for both networks and the flag of `RankExchange.backward`.

    A forward pass makes the reducer ready to average the gradients of all parameters, the decoder's too, which works
    when the latents are on their way.
    """

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.flag = nn.Parameter(torch.zeros_like(next(encoder.parameters()).flatten()[0]))

    def forward(self, encoder: nn.Module, x: Tensor) -> Tensor:
        latents: Tensor = encoder(x)
        return latents
