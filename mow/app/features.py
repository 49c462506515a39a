"""Networks in whose features pictures are compared: Inception, or a small classifier of the same data set."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pooch
import torch
from torch import Tensor, nn

from mow.app.data import PictureData
from mow.training import checkpoint
from mow.training.stream import ShuffledStream, to_unit_range

INCEPTION_WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""Where torch-fidelity keeps them: in the folder `checkpoints` of `torch.hub.get_dir()`."""

STEPS, BATCH = 1000, 128
"""How long the classifier is trained."""


@dataclass(frozen=True)
class Features:
    """A classifier without its last layer: pictures [N, C, H, W] -> [N, 64].

    name: of the network and of the very weights; distances compare within one name only.
    accuracy: of the whole classifier, on the test pictures.
    """

    name: str
    accuracy: float
    extract: Callable[[Tensor], Tensor]


def classifier(source: PictureData, *, cache: Path | None = None) -> Features | None:
    """A small classifier trained on the data set, or None where there are no labels.

    Args:
        source: with labels.
        cache: the folder in which a trained one is looked for and kept; None for pooch's.
    """
    if source.train_labels is None or source.test_labels is None:
        return None
    digest = hashlib.blake2b(digest_size=8)
    for tensor in (source.train[:], source.train_labels):
        digest.update(tensor.contiguous().numpy().tobytes())
    network = _network(source.train.shape[1], int(source.train_labels.max()) + 1)
    path = (Path(pooch.os_cache("mow")) if cache is None else cache) / f"classifier-{digest.hexdigest()}.pt"
    try:
        network.load_state_dict(checkpoint.load(path, ["weights"])["weights"])
    except (FileNotFoundError, ValueError, RuntimeError):
        network = _trained(source.train[:], source.train_labels, int(source.train_labels.max()) + 1)
        checkpoint.save(path, {"weights": network.state_dict()})
    network.eval()
    digest = hashlib.blake2b(digest_size=4)
    for weights in network.state_dict().values():
        digest.update(weights.numpy().tobytes())
    accuracy = float((_apply(network, source.test[:]).argmax(1) == source.test_labels).double().mean())
    return Features(
        f"classifier-{digest.hexdigest()}", accuracy, lambda pictures: _apply(network[:-1], pictures).double()
    )


def inception_is_here() -> bool:
    """Whether torchmetrics, torch-fidelity and Inception's weights are installed: what `inception_distance` needs."""
    if not all(importlib.util.find_spec(name) for name in ("torchmetrics", "torch_fidelity")):
        return False
    return (Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_WEIGHTS).exists()


def inception_distance(
    real: Iterable[Tensor],
    generated: Iterable[Tensor],
    *,
    batch: int = 100,
    features: dict[bool, list[Tensor]] | None = None,
) -> float:
    """FID between pictures, given in pieces [n, C, H, W], as torchmetrics computes it in 2048 features.

    Downloads the weights where they are not here. Source: Heusel et al. 2017, arXiv 1706.08500.

    Args:
        real, generated: the pictures.
        batch: how many Inception takes at once.
        features: the features [n, 2048] are appended here, those of the real pictures at True.

    Raises:
        ModuleNotFoundError: torchmetrics or torch-fidelity is not installed.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=2048, normalize=True)
    at_hand = True
    if features is not None:
        metric.inception.register_forward_hook(lambda *call: features[at_hand].append(call[-1].cpu()))
    for pieces, is_real in ((real, True), (generated, False)):
        at_hand = is_real
        for piece in pieces:
            for chunk in piece.split(batch):
                metric.update(to_unit_range(chunk).clamp(0, 1).expand(-1, 3, -1, -1), real=is_real)
    return float(metric.compute())


def _network(channels: int, classes: int) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *(nn.Conv2d(channels, 16, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.Conv2d(16, 32, 5, stride=2, padding=2), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64), nn.ReLU()),
            nn.Linear(64, classes),
        )


def _trained(pictures: Tensor, labels: Tensor, classes: int) -> nn.Sequential:
    network = _network(pictures.shape[1], classes)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    order = ShuffledStream(torch.arange(len(labels)), seed=0)
    for _ in range(STEPS):
        rows = order.take(BATCH)
        loss = nn.functional.cross_entropy(network(to_unit_range(pictures[rows])), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network


@torch.no_grad()
def _apply(network: nn.Module, pictures: Tensor) -> Tensor:
    return torch.cat([network(to_unit_range(chunk)) for chunk in pictures.split(500)])
