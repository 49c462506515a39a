"""Fashion-MNIST with one class held out of training: how well is it told from the rest, with and without core-sets?

Two detectors. "memory": the distance of a picture's random projection to the nearest of a bank of training pictures,
the bank a core-set or chosen at random. "auto-encoder": the reconstruction error of a Cramer-Wold auto-encoder, its
batches core-sets of eight times as many candidates or chosen at random, as many steps for both.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from statistics import mean
from typing import Any

import torch
from torch import Tensor

import mow
import mow_kernels as mk
from mow.app import data, models
from mow.app.data import PictureData
from mow.training import passes
from mow.training.stream import to_unit_range

CLASSES, SEEDS = range(10), range(3)
DIM, BANKS = 32, (64, 512, 4096)
BATCH, FACTOR, STEPS, LATENTS = 64, 8, 600, 8


def average_precision(scores: Tensor, positive: Tensor) -> float:
    """Area under the precision-recall curve: the mean over the positive ones of the precision down to each.

    scores [N], higher is more anomalous; positive bool [N].
    """
    order = scores.argsort(descending=True, stable=True)
    hits = positive[order].double()
    precision = hits.cumsum(0) / torch.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / hits.sum())


def memory(source: PictureData, held_out: int, seed: int) -> dict[str, float]:
    """AUPRC of each bank size, of a core-set and of a random choice."""
    random = torch.Generator().manual_seed(seed)
    normal = source.train[_labels(source.train_labels) != held_out]
    both = mow.random_projection(torch.cat([normal, source.test]), DIM, generator=random)
    features, test = both[: len(normal)], both[len(normal) :]
    positive = _labels(source.test_labels) == held_out
    largest = min(BANKS[-1], len(features))
    choices = {
        "coreset": mk.k_center(features, largest, generator=random).indices,
        "random": torch.randperm(len(features), generator=random)[:largest],
    }
    return {
        f"{name} {size}": average_precision(torch.cdist(test, features[chosen[:size]]).min(1).values, positive)
        for name, chosen in choices.items()
        for size in BANKS
    }


def auto_encoder(source: PictureData, held_out: int, seed: int, steps: int = STEPS) -> dict[str, float]:
    """AUPRC and seconds a step, with batches by core-sets and with plain ones."""
    normal = source.train[_labels(source.train_labels) != held_out]
    features = mow.random_projection(normal, DIM, generator=torch.Generator().manual_seed(seed))
    positive = _labels(source.test_labels) == held_out
    found = {}
    for name, factor in (("coreset", FACTOR), ("random", 1)):
        torch.manual_seed(seed)
        encoder, decoder = (make(normal.shape[1:], LATENTS) for make in (models.mlp_encoder, models.mlp_decoder))
        window = mow.MovingWindow(BATCH, LATENTS)
        trainer = mow.Trainer(encoder, decoder, mow.CramerWold(log=True), window, k=BATCH, optimizer=_adam)
        sampler = mow.CoresetSampler(features, BATCH, factor=factor, generator=torch.Generator().manual_seed(seed))
        began = time.perf_counter()
        for batch, _ in zip(_endless(sampler), range(steps), strict=False):
            trainer.step(to_unit_range(normal[batch]))
        seconds = time.perf_counter() - began
        error = passes.reconstruct(encoder, decoder, source.test) - to_unit_range(source.test)
        found[name] = average_precision(error.square().flatten(1).sum(1), positive)
        found[f"{name} ms a step"] = 1000 * seconds / steps
    return found


def run() -> dict[str, Any]:
    """Of each detector the AUPRC by class, and the mean over the classes by seed; everything is kept."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    source = data.load("fashion-mnist")
    result: dict[str, Any] = {"data": source.origin, "classes": len(CLASSES), "seeds": len(SEEDS)}
    for name, detector in (("memory", memory), ("auto-encoder", auto_encoder)):
        runs = [[detector(source, held_out, seed) for held_out in CLASSES] for seed in SEEDS]
        result[name] = {
            measure: {
                "by_class": [mean(found[held_out][measure] for found in runs) for held_out in CLASSES],
                "by_seed": [mean(one[measure] for one in found) for found in runs],
            }
            for measure in runs[0][0]
        }
    return result


def _adam(parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr=1e-3, fused=True)


def _endless(sampler: mow.CoresetSampler) -> Iterator[list[int]]:
    while True:
        yield from sampler


def _labels(labels: Tensor | None) -> Tensor:
    assert labels is not None  # Fashion-MNIST has them
    return labels
