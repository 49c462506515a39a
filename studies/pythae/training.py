"""The three kinds of a model, epoch by epoch in turn."""

from __future__ import annotations

import logging
import os
import random
import tempfile
import time
from typing import Any

import torch
from torch import Tensor

from mow.app import data
from mow.training.stream import to_unit_range

MODELS, BATCHES, DIM = ("WAE_MMD", "INFOVAE_MMD"), (64, 256), 16
KINDS = {
    "own": "pythae's own",
    "drawn": "ours, the prior drawn as there",
    "closed": "ours, the prior in closed form",
}


class Entrant:
    """A model in pythae's own trainer, with random numbers of its own, so that the three see the same draws."""

    def __init__(self, kind: str, name: str, x: Tensor, batch: int, seed: int, folder: str) -> None:
        import pythae.models
        from pythae.data.datasets import BaseDataset
        from pythae.trainers import BaseTrainer, BaseTrainerConfig

        from mow.adapters import pythae as ours

        torch.manual_seed(seed)
        config = getattr(pythae.models, f"{name}_Config")(input_dim=tuple(x.shape[1:]), latent_dim=DIM)
        options = {"own": {}, "drawn": {}, "closed": {"closed_form": True}}[kind]
        model = getattr(pythae.models if kind == "own" else ours, name)(config, **options)
        training = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=batch,
            learning_rate=1e-3,
            seed=seed,
            no_cuda=True,
        )
        self.trainer = BaseTrainer(model, BaseDataset(x, torch.zeros(len(x))), training_config=training, callbacks=[])
        self.trainer.prepare_training()
        self.random = torch.get_rng_state()
        self.losses: list[float] = []
        self.seconds: list[float] = []

    def epoch(self) -> None:
        torch.set_rng_state(self.random)
        start = time.perf_counter()
        loss = self.trainer.train_step(len(self.losses) + 1)
        self.seconds.append(time.perf_counter() - start)
        self.losses.append(float(loss))
        self.random = torch.get_rng_state()


def run(epochs: int, seeds: int, pictures: int) -> dict[str, Any]:
    """Losses and seconds of every epoch, on one thread."""
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    source = data.load("fashion-mnist")
    x, cases, loads = to_unit_range(source.train[:pictures]), [], []
    for name in MODELS:
        for batch in BATCHES:
            case: dict[str, Any] = {"model": name, "batch": batch, "kinds": {kind: [] for kind in KINDS}}
            for seed in range(seeds):
                with tempfile.TemporaryDirectory() as folder:
                    entrants = {kind: Entrant(kind, name, x, batch, seed, folder) for kind in KINDS}
                    for _ in range(epochs):
                        for entrant in random.sample(list(entrants.values()), len(entrants)):
                            entrant.epoch()
                for kind, entrant in entrants.items():
                    case["kinds"][kind].append({"losses": entrant.losses, "seconds": entrant.seconds})
            cases.append(case)
            loads.append(os.getloadavg()[0])
    return {"load": loads, "pictures": pictures, "data": source.origin, "epochs": epochs, "cases": cases}
