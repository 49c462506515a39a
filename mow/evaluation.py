"""How good an auto-encoder is on pictures it has not seen."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

import mow_kernels as mk
from mow.stream import to_unit_range

LATENTS = 2000
"""How many latents the Cramer-Wold distance of an evaluation compares: it depends on their number."""


def evaluate(encoder: nn.Module, decoder: nn.Module, pictures: Tensor, *, batch: int = 500) -> dict[str, float]:
    """Scores on test pictures [N, C, H, W], in evaluation mode and without drawing random numbers.

    Returns:
        test_reconstruction: the mean over all pictures of the sum of squares of the error, on the scale [0, 1] a pixel;
        test_cramer_wold: the exact Cramer-Wold distance of the latents of the first 2,000 pictures (of all, when they
        are fewer) to N(0, I).
    """
    device = next(encoder.parameters()).device
    errors, latents = [], []
    with _evaluating(encoder, decoder):
        for chunk in pictures.split(batch):
            x = to_unit_range(chunk).to(device)
            z = encoder(x)
            errors.append((decoder(z) - x).square().flatten(1).sum(1).double())
            latents.append(z)
        distance = mk.cramer_wold(torch.cat(latents)[:LATENTS].double())
    return {"test_reconstruction": float(torch.cat(errors).mean()), "test_cramer_wold": float(distance)}


def mean_picture_error(train: Tensor, test: Tensor) -> float:
    """The reconstruction error of predicting the mean training picture for every test picture: the figure to beat."""
    mean = to_unit_range(train).double().mean(0)
    return float((to_unit_range(test) - mean).square().flatten(1).sum(1).mean())


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """The squared Frechet distance between the normal distributions fitted to samples [N, F] and [M, F]; N, M >= 2.

    |mean a - mean b|^2 + tr(A + B - 2 (A B)^(1/2)) with the covariances A and B, in float64. It is called FID when the
    F are features of Inception (Heusel et al. 2017, arXiv 1706.08500).
    """
    a, b = a.double(), b.double()
    covariance_a, covariance_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(covariance_a)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ covariance_b @ root).clamp(min=0).sqrt().sum()
    return float((a.mean(0) - b.mean(0)).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * cross)


def reconstruct(encoder: nn.Module, decoder: nn.Module, pictures: Tensor) -> Tensor:
    """Pictures [N, C, H, W] through the auto-encoder, on the CPU."""
    with _evaluating(encoder, decoder):
        return decoder(encoder(_on_device(encoder, pictures))).cpu()


def decode(decoder: nn.Module, latents: Tensor) -> Tensor:
    """Latents [N, D] -> pictures [N, C, H, W], on the CPU."""
    with _evaluating(decoder):
        return decoder(latents.to(next(decoder.parameters()).device)).cpu()


def interpolate(encoder: nn.Module, decoder: nn.Module, starts: Tensor, ends: Tensor, stages: int) -> Tensor:
    """Decoded straight lines between the latents of two pictures each. [R, C, H, W] twice -> [R, stages, C, H, W]."""
    with _evaluating(encoder, decoder):
        a, b = encoder(_on_device(encoder, starts)), encoder(_on_device(encoder, ends))
        weights = torch.linspace(0, 1, stages, device=a.device)[:, None]
        rows = torch.lerp(a[:, None], b[:, None], weights)
        return decoder(rows.flatten(0, 1)).unflatten(0, (len(starts), stages)).cpu()


def _on_device(module: nn.Module, pictures: Tensor) -> Tensor:
    return to_unit_range(pictures).to(next(module.parameters()).device)


@contextmanager
def _evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside; the mode of every part is restored."""
    modes = {part: part.training for model in models for part in model.modules()}
    try:
        for model in models:
            model.eval()
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode
