"""A deep adaptation network: features of two domains that an MMD with several Gaussian kernels draws together.

The kernels' widths follow from the data, as in DAN and its descendants: sigma^2 is the mean squared distance between
all rows of both domains, times a factor a kernel. The labels of one domain train a classifier for the other, which is
its negatives.

    python examples/domain_adaptation.py --steps 2000

Source: Long, Cao, Wang and Jordan, "Learning Transferable Features with Deep Adaptation Networks", ICML 2015.
"""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from torch import Tensor

import mow_kernels as mk
from mow.adapters.both import both
from mow.app import data
from mow.app.models import mlp
from mow.training.stream import to_unit_range


def scales(x: Tensor, y: Tensor, factors: tuple[float, ...] = (0.125, 0.25, 0.5, 1.0, 2.0)) -> list[float]:
    """Of exp(-r/(2 sigma^2)), sigma^2 = factor * the mean of r over all pairs of rows of both, i = j too: O(n D)."""
    rows = torch.cat([x, y]).detach()
    mean = 2 * rows.var(0, unbiased=False).sum().item()
    return [factor * mean / rows.shape[1] for factor in factors]


def main(
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    batch: Annotated[int, typer.Option(help="Pictures of each domain a step.")] = 64,
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
    weight: Annotated[float, typer.Option(help="Of the MMD.")] = 1.0,
) -> None:
    torch.manual_seed(0)
    found = data.load(source)
    pictures = to_unit_range(found.train).flatten(1)
    labels = torch.zeros(len(pictures), dtype=torch.long) if found.train_labels is None else found.train_labels.long()
    features = mlp(pictures.shape[1], 256, 32)
    classifier = torch.nn.Linear(32, int(labels.max()) + 1)
    optimizer = torch.optim.Adam([*features.parameters(), *classifier.parameters()], lr=1e-3)
    for step in range(1, steps + 1):
        rows, others = torch.randint(len(pictures), (2, batch))
        ours, theirs = features(pictures[rows]), features(1 - pictures[others])
        distance = both(mk.mmd, ours, theirs, kernel="gaussian", scales=scales(ours, theirs))
        loss = torch.nn.functional.cross_entropy(classifier(ours), labels[rows]) + weight * distance
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(1, steps // 10) == 0:
            with torch.no_grad():
                right = (classifier(features(1 - pictures[:2000])).argmax(1) == labels[:2000]).float().mean().item()
            print(f"step {step}: MMD {distance.item():.4f}, of the other domain right {right:.3f}", flush=True)


if __name__ == "__main__":
    typer.run(main)
