"""Passes of trained networks over pictures, without training: latents, reconstructions, samples, interpolations."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor, nn

from mow.training.stream import as_input

AT_ONCE = 500, 2**21
"""Pictures, and values of pictures, that an evaluation takes at a time."""


class InPieces(Protocol):
    """Pictures [N, ...] that are read piece by piece."""

    @property
    def shape(self) -> Sequence[int]: ...

    def split(self, size: int) -> Iterable[Tensor]: ...


def at_once(shape: Sequence[int]) -> int:
    """How many pictures of shape [C, H, W] a pass takes at a time; at least one."""
    return max(1, min(AT_ONCE[0], AT_ONCE[1] // math.prod(shape)))


def taken_by(module: nn.Module, pictures: Tensor) -> Tensor:
    """Pictures as a network takes them, in the dtype of its parameters if it has any."""
    like = next((each for each in module.parameters() if each.is_floating_point()), None)
    if like is None:
        return as_input(pictures, torch.get_default_dtype())
    return as_input(pictures.to(like.device), like.dtype)


def encode(encoder: nn.Module, pictures: Tensor | InPieces, *, batch: int = 500) -> Tensor:
    """Pictures [N, C, H, W] -> latents [N, D], on the CPU."""
    size = min(batch, at_once(pictures.shape[1:]))
    with evaluating(encoder):
        return torch.cat([encoder(taken_by(encoder, chunk)).cpu() for chunk in pictures.split(size)])


def reconstruct(encoder: nn.Module, decoder: nn.Module, pictures: Tensor) -> Tensor:
    """Pictures [N, C, H, W] through the auto-encoder, on the CPU."""
    with evaluating(encoder, decoder):
        pieces = pictures.split(at_once(pictures.shape[1:]))
        return torch.cat([decoder(encoder(taken_by(encoder, piece))).cpu() for piece in pieces])


def decode(decoder: nn.Module, latents: Tensor, *, batch: int = AT_ONCE[0]) -> Tensor:
    """Latents [N, D] -> pictures [N, C, H, W], on the CPU; `batch` at a time."""
    with evaluating(decoder):
        return torch.cat([decoder(taken_by(decoder, piece)).cpu() for piece in latents.split(batch)])


def interpolate(encoder: nn.Module, decoder: nn.Module, starts: Tensor, ends: Tensor, stages: int) -> Tensor:
    """Decoded straight lines between the latents of two pictures each. [R, C, H, W] twice -> [R, stages, C, H, W]."""
    with evaluating(encoder, decoder):
        a, b = encoder(taken_by(encoder, starts)), encoder(taken_by(encoder, ends))
        weights = torch.linspace(0, 1, stages, device=a.device)[:, None]
        rows = torch.lerp(a[:, None], b[:, None], weights)
        decoded = decode(decoder, rows.flatten(0, 1), batch=at_once(starts.shape[1:]))
        return decoded.unflatten(0, (len(starts), stages))


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
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
