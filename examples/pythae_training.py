"""pythae's own training run of WAE_MMD or INFOVAE_MMD, with its own MMD and with ours: losses and times beside it.

    python examples/pythae_training.py --epochs 5
    python examples/pythae_training.py --epochs 1 --batch 1 --pictures 5000        # ours alone: by a window of 64

needs `pip install pythae==0.1.2`.
"""

from __future__ import annotations

import logging
import tempfile
import time
from typing import Annotated

import pythae.models
import torch
import typer
from pythae.data.datasets import BaseDataset
from pythae.trainers import BaseTrainer, BaseTrainerConfig
from torch import Tensor

import mow
from mow.adapters import pythae as ours
from mow.app import data
from mow.training.stream import to_unit_range


def train(model: pythae.models.BaseAE, pictures: Tensor, epochs: int, batch: int) -> tuple[list[float], float]:
    """Train in pythae's trainer -> the mean loss of each epoch, and the seconds of all of them."""
    dataset = BaseDataset(pictures, torch.zeros(len(pictures)))
    with tempfile.TemporaryDirectory() as folder:
        options = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            per_device_train_batch_size=batch,
            learning_rate=1e-3 * (batch / 64) ** 0.5,
            no_cuda=True,
            seed=0,
        )
        trainer = BaseTrainer(model, dataset, training_config=options)
        trainer.prepare_training()
        start = time.perf_counter()
        losses = [float(trainer.train_step(epoch)) for epoch in range(1, epochs + 1)]
        return losses, time.perf_counter() - start


def main(
    epochs: Annotated[int, typer.Option(help="Passes over the pictures.")] = 5,
    batch: Annotated[int, typer.Option(help="Pictures a step; one needs the window.")] = 64,
    pictures: Annotated[int, typer.Option(help="How many of the training pictures.")] = 10_000,
    name: Annotated[str, typer.Option("--model", help="WAE_MMD or INFOVAE_MMD.")] = "WAE_MMD",
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
) -> None:
    logging.disable(logging.INFO)
    x, dim = to_unit_range(data.load(source).train[:pictures]), 16
    kinds = {"pythae's own": (pythae.models, {}), "ours, its draws": (ours, {}), "ours": (ours, {"closed_form": True})}
    if batch == 1:
        kinds = {"ours, window of 64": (ours, {"window": mow.MovingWindow(64, dim)})}
    for title, (module, options) in kinds.items():
        torch.manual_seed(0)
        config = getattr(pythae.models, f"{name}_Config")(input_dim=tuple(x.shape[1:]), latent_dim=dim)
        losses, seconds = train(getattr(module, name)(config, **options), x, epochs, batch)
        print(f"{title:18}  {seconds:6.1f} s  losses {' '.join(f'{loss:.3f}' for loss in losses)}", flush=True)


if __name__ == "__main__":
    typer.run(main)
