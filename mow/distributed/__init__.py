"""The moving window over several processes (torch.distributed): gather latents, train, shard the window.

Source: docs/distributed.md, which derives the factors and says what a step costs.
"""

from mow.distributed.exchange import RankExchange
from mow.distributed.gathering import Gathering, gather
from mow.distributed.ranks import RankError, Ranks, process_group
from mow.distributed.sharded_window import ShardedWindow
from mow.distributed.trainer import DistributedTrainer

__all__ = [
    "DistributedTrainer",
    "Gathering",
    "RankError",
    "RankExchange",
    "Ranks",
    "ShardedWindow",
    "gather",
    "process_group",
]
