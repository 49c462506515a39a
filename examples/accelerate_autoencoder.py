"""A WAE under Accelerate, one picture a step, interrupted and resumed: the window is part of Accelerate's checkpoint.

    python examples/accelerate_autoencoder.py --steps 5000
    python examples/accelerate_autoencoder.py --steps 10000 --resume

needs `pip install accelerate`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader

import mow
from mow.app import data
from mow.app.models import mlp_decoder, mlp_encoder
from mow.training.stream import to_unit_range


def main(
    steps: Annotated[int, typer.Option(help="Optimiser steps in all.")] = 5000,
    k: Annotated[int, typer.Option(help="New pictures a step.")] = 1,
    n: Annotated[int, typer.Option(help="Window size.")] = 64,
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
    out: Annotated[Path, typer.Option(help="Folder of the checkpoint.")] = Path("runs/accelerate"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint.")] = False,
) -> None:
    set_seed(0)
    accelerator = Accelerator()
    pictures, dim = to_unit_range(data.load(source).train), 8
    shape = tuple(pictures.shape[1:])
    model = nn.ModuleDict({"encoder": mlp_encoder(shape, dim), "decoder": mlp_decoder(shape, dim)})
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3 * (k / n) ** 0.5)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(pictures, batch_size=k, shuffle=True))
    encoder, decoder = model["encoder"], model["decoder"]
    window, distance = mow.MovingWindow(n, dim).to(accelerator.device), mow.MMD()

    accelerator.register_for_checkpointing(window)  # all that the window needs
    if resume:
        accelerator.load_state(str(out))
    done = int(optimizer.state[optimizer.param_groups[0]["params"][0]]["step"]) if resume else 0
    batches = (x for _ in range(steps) for x in loader)
    for _, x in zip(range(done, steps), batches, strict=False):
        z = encoder(x)
        reconstruction = (decoder(z) - x).square().flatten(1).sum(1).mean()
        measured = distance(z, window)
        optimizer.zero_grad()
        accelerator.backward(reconstruction + 10 * n / len(x) * measured)
        optimizer.step()
        with torch.no_grad():
            window.push(encoder(x))
    accelerator.save_state(str(out))
    print(
        f"steps {done} to {steps}, window {len(window)} of {n}, reconstruction {reconstruction:.1f}, MMD {measured:.4f}"
    )


if __name__ == "__main__":
    typer.run(main)
