"""torch.compile over a training step: encoder, decoder, distance and the push into the window in one graph.

The window is a module and its head a tensor, so that nothing is compiled again from one step to the next once it is
full. `--amp` runs the networks in bfloat16 by torch.autocast; the distance gets the latents in float32.

    python examples/compiled_step.py --steps 2000
    python examples/compiled_step.py --steps 2000 --backend eager --amp
"""

from __future__ import annotations

import time
from typing import Annotated

import torch
import typer
from torch import Tensor

import mow
from mow.app import data
from mow.app.models import mlp_decoder, mlp_encoder
from mow.training.stream import ShuffledStream


def main(
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 2000,
    k: Annotated[int, typer.Option(help="New pictures a step.")] = 1,
    n: Annotated[int, typer.Option(help="Window size.")] = 64,
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
    backend: Annotated[str, typer.Option(help="Of torch.compile.")] = "inductor",
    amp: Annotated[bool, typer.Option("--amp", help="bfloat16 where autocast takes it.")] = False,
) -> None:
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    stream, dim = ShuffledStream(data.load(source).train), 8
    shape = tuple(stream.take(1).shape[1:])
    encoder, decoder = mlp_encoder(shape, dim).to(device), mlp_decoder(shape, dim).to(device)
    window, distance = mow.MovingWindow(n, dim, device=device), mow.CramerWold(log=True)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-3 * (k / n) ** 0.5)

    def loss_of(x: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=amp):
            z = encoder(x)
            decoded = decoder(z)
        z = z.float()  # the window's dtype
        loss = (decoded - x).square().flatten(1).sum(1).mean() + n / len(x) * distance(z, window)
        window.push(z)
        return loss

    compiled = torch.compile(loss_of, backend=backend, fullgraph=True)
    with torch.no_grad():
        window.fill(encoder(stream.take(n).to(device)))  # n, not n - k: a full window keeps its number of rows
    for step in range(steps):
        if step == min(10, steps - 1):
            start = time.perf_counter()
        loss = compiled(stream.take(k).to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    milliseconds = 1e3 * (time.perf_counter() - start) / max(1, steps - 10)
    print(f"{steps} steps, loss {loss.item():.3f}, {milliseconds:.2f} ms a step with {backend}")


if __name__ == "__main__":
    typer.run(main)
