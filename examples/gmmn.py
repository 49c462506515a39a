"""A generative moment-matching network, ONE generated picture a step.

The generator is trained by nothing but the MMD of what it generates to the data. A batch of one has no MMD; the window
gives it n: the last n-1 generated pictures are history, compared with n pictures of the data.

    python examples/gmmn.py --steps 20000

Source: Li, Swersky and Zemel, "Generative Moment Matching Networks", ICML 2015.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor

import mow
import mow_kernels as mk
from mow.app import data, pictures
from mow.app.models import mlp
from mow.training.stream import to_unit_range
from mow.window.priors import Prior


@dataclass(frozen=True)
class Pictures(Prior):
    """The data as what to compare with: rows of it, drawn afresh at each step."""

    rows: Tensor = field(kw_only=True)
    variance: float = field(kw_only=True)

    def sample(self, m: int, like: Tensor) -> Tensor:
        return self.rows[torch.randint(len(self.rows), (m,))]

    def kernel_scale(self, dim: int) -> float:
        return self.variance


def main(
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 20_000,
    k: Annotated[int, typer.Option(help="New pictures a step.")] = 1,
    n: Annotated[int, typer.Option(help="Window size.")] = 64,
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
    out: Annotated[Path | None, typer.Option(help="A PNG file for generated pictures.")] = None,
) -> None:
    torch.manual_seed(0)
    found = data.load(source)
    train, test = (to_unit_range(part).flatten(1) for part in (found.train, found.test[:1000]))
    dim, width = 10, train.shape[1]
    generator = torch.nn.Sequential(mlp(dim, 256, 256, width), torch.nn.Sigmoid())
    prior = Pictures(rows=train, variance=train.var(0).mean().item())
    distance, window = mow.MMD(prior), mow.MovingWindow(n, width)
    optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3 * (k / n) ** 0.5, betas=(0.5, 0.999))
    fixed = torch.rand(len(test), dim) * 2 - 1

    @torch.no_grad()
    def mmd_to_test() -> float:
        scales = [prior.variance * scale for scale in mk.SCALES]
        return mk.mmd(generator(fixed), None, test, scales=scales).item()

    before = mmd_to_test()
    with torch.no_grad():
        window.fill(generator(torch.rand(n - k, dim) * 2 - 1))
    for step in range(1, steps + 1):
        generated = generator(torch.rand(k, dim) * 2 - 1)
        loss = n / k * distance(generated, window)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        window.push(generated)
        if step % max(1, steps // 10) == 0:
            print(f"step {step}: MMD to the test pictures {mmd_to_test():.4f} (at first {before:.4f})", flush=True)
    if out is not None:
        with torch.no_grad():
            shown = generator(fixed[:64]).unflatten(1, tuple(found.train.shape[1:]))
        pictures.save_png(pictures.grid(shown, 8), out)


if __name__ == "__main__":
    typer.run(main)
