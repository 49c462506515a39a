"""Batches by core-sets or at random, as many as are wanted."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Generator, Tensor

import mow

FACTOR = 8
"""Candidates for each place in a batch of core-sets."""


def batches(features: Tensor, batch: int, choice: str, steps: int, random: Generator) -> Iterator[list[int]]:
    """The indices of so many batches, over as many epochs as that takes.

    features [N, D]; choice is "coreset" or "random".
    """
    sampler = mow.CoresetSampler(features, batch, factor=FACTOR if choice == "coreset" else 1, generator=random)
    done = 0
    while done < steps:
        for rows in sampler:
            if done == steps:
                return
            yield rows
            done += 1
