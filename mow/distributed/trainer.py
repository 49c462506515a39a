"""The trainer over several processes: the same steps as one process takes with all the new elements."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn

from mow.distributed.exchange import RankExchange
from mow.distributed.sharded_window import ShardedWindow
from mow.training.trainer import Trainer
from mow.window.distances import Distance
from mow.window.window import MovingWindow


class DistributedTrainer(Trainer):
    """`Trainer` over the ranks of torch.distributed: each encodes and decodes its share of the k new elements.

        >>> with mow.distributed.process_group():        # what torchrun says, or one process
        ...     trainer = mow.distributed.DistributedTrainer(encoder, decoder, mow.CramerWold(), window, k=4)
        ...     history = trainer.fit(pictures, steps=3)        # all pictures in every rank: each reads its share

    The weights are those of a single process with the same k, data and seed, whatever the number of ranks, up to
    rounding; docs/distributed.md derives it, and `RankExchange` says what a step sends.

    Every rank makes the same calls. Where a distance or a prior draws random numbers, the random states of the ranks
    must agree: begin with the same seed, and give both a generator if the model draws as well (dropout). Batch norm
    sees the rank's own elements; `torch.nn.SyncBatchNorm` sees all.

    `step` takes this rank's elements, which may be none, and besides what it raises in one process RankError when
    another rank is lost, RuntimeError when the ranks measured different distances.

    Args:
        window: a `MovingWindow`, the same in every rank, or a `ShardedWindow`.
        k: new elements a step over all ranks, W <= k <= n; the ranks' shares differ by at most one.
        group: the process group, None for all processes.
        The others are those of `Trainer`, without cuda_graph. Weights and distance begin as rank 0's.

    Raises:
        TypeError, ValueError: a bad argument, by name.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        distance: Distance,
        window: MovingWindow | ShardedWindow,
        *,
        k: int = 1,
        group: dist.ProcessGroup | None = None,
        **options: Any,
    ) -> None:
        exchange = RankExchange(encoder, decoder, k, group)
        super().__init__(encoder, decoder, distance, window, k=k, exchange=exchange, **options)  # type: ignore[arg-type]  # either window
        if exchange.ranks.size > 1:
            for buffer in distance.buffers():
                dist.broadcast(buffer, group=group, group_src=0)
