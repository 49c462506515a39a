"""A Cramer-Wold auto-encoder in Lightning, one picture a step: the window lies in Lightning's own checkpoint.

    python examples/lightning_autoencoder.py --steps 5000
    python examples/lightning_autoencoder.py --steps 10000 --resume runs/lightning/last.ckpt

needs `pip install lightning`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import lightning
import torch
import typer
from torch import Tensor
from torch.utils.data import DataLoader

import mow
from mow.adapters.lightning import WindowCallback
from mow.app import data
from mow.app.models import mlp_decoder, mlp_encoder
from mow.training.stream import to_unit_range


class AutoEncoder(lightning.LightningModule):
    def __init__(self, shape: tuple[int, ...], n: int, dim: int, lr: float) -> None:
        super().__init__()
        self.encoder, self.decoder = mlp_encoder(shape, dim), mlp_decoder(shape, dim)
        self.window = mow.MovingWindow(n, dim)
        self.distance = mow.CramerWold(log=True)
        self.lr = lr

    def training_step(self, x: Tensor, index: int) -> Tensor:
        z = self.encoder(x)
        reconstruction = (self.decoder(z) - x).square().flatten(1).sum(1).mean()
        distance = self.distance(z, self.window)  # over n latents, gradient for the k new ones
        self.log_dict({"reconstruction": reconstruction, "log_distance": distance}, prog_bar=True)
        return reconstruction + self.window.n / len(x) * distance

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def main(
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 5000,
    k: Annotated[int, typer.Option(help="New pictures a step.")] = 1,
    n: Annotated[int, typer.Option(help="Window size.")] = 64,
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
    out: Annotated[Path, typer.Option(help="Folder of the checkpoints.")] = Path("runs/lightning"),
    resume: Annotated[Path | None, typer.Option(help="A checkpoint to go on from.")] = None,
) -> None:
    lightning.seed_everything(0, verbose=False)
    pictures = to_unit_range(data.load(source).train)
    model = AutoEncoder(tuple(pictures.shape[1:]), n, dim=8, lr=1e-3 * (k / n) ** 0.5)
    trainer = lightning.Trainer(
        max_steps=steps,
        accelerator="auto",
        callbacks=[
            WindowCallback(model.window, model.encoder),
            lightning.pytorch.callbacks.ModelCheckpoint(out, save_last=True, every_n_train_steps=1000),
        ],
        logger=False,
    )
    trainer.fit(model, DataLoader(pictures, batch_size=k, shuffle=True), ckpt_path=resume)
    measured = {name: float(value) for name, value in trainer.callback_metrics.items()}
    print(f"{trainer.global_step} steps, window {len(model.window)} of {n}: {measured}")


if __name__ == "__main__":
    typer.run(main)
