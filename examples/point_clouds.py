"""A set network on point clouds: an auto-encoder that no order of the points can change, ONE cloud a step.

The clouds are points drawn from the silhouettes of pictures (brighter pixels more often), moved within their pixel.
The encoder works on each point and takes the maximum over them; the reconstruction error is the sliced-Wasserstein
distance between two clouds; the latents follow N(0, I) by the Cramer-Wold distance over the window.

    python examples/point_clouds.py --steps 10000

Sources: Zaheer et al., "Deep Sets", NeurIPS 2017, and Qi et al., "PointNet", CVPR 2017, for the encoder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import mow
import mow_kernels as mk
from mow.app import data, pictures
from mow.app.models import mlp
from mow.training.stream import ShuffledStream


class SetEncoder(nn.Module):
    """[k, P, 2] -> [k, dim], the same for every order of the points."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.point, self.cloud = mlp(2, 64, 128), mlp(128, 128, dim)

    def forward(self, clouds: Tensor) -> Tensor:
        return self.cloud(self.point(clouds).amax(1))


def clouds_of(shown: Tensor, points: int, generator: torch.Generator | None = None) -> Tensor:
    """Pictures [k, C, H, W] -> that many points from each of their silhouettes [k, points, 2], within [-1, 1]^2."""
    light = shown.float().mean(1)
    chosen = torch.multinomial(light.flatten(1) + 1e-6, points, replacement=True, generator=generator)
    size = torch.tensor(light.shape[1:])
    pixels = torch.stack([chosen // size[1], chosen % size[1]], dim=2)
    return (pixels + torch.rand(pixels.shape, generator=generator)) / size * 2 - 1


def draw(clouds: Tensor, side: int = 28) -> Tensor:
    """Clouds [k, P, 2] as pictures [k, 1, side, side]."""
    pixels = ((clouds + 1) / 2 * side).long().clamp(0, side - 1)
    shown = torch.zeros(len(clouds), side * side)
    shown.scatter_add_(1, pixels[..., 0] * side + pixels[..., 1], torch.ones(clouds.shape[:2]))
    return shown.clamp(max=2).div(2).view(-1, 1, side, side)


def reconstruction_error(decoded: Tensor, clouds: Tensor) -> Tensor:
    """Mean over the clouds of the sliced W_2^2 between the decoded points and theirs, in hundredths."""
    pairs = zip(decoded, clouds, strict=True)
    return 100 * torch.stack([mk.sliced_wasserstein(points, None, cloud) for points, cloud in pairs]).mean()


def main(
    steps: Annotated[int, typer.Option(help="Optimiser steps.")] = 10_000,
    k: Annotated[int, typer.Option(help="New clouds a step.")] = 1,
    n: Annotated[int, typer.Option(help="Window size.")] = 64,
    points: Annotated[int, typer.Option(help="Points a cloud.")] = 128,
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
    out: Annotated[Path | None, typer.Option(help="A PNG file: test clouds above what is decoded of them.")] = None,
) -> None:
    torch.manual_seed(0)
    found = data.load(source)
    stream, test = ShuffledStream(found.train), clouds_of(found.test[:200], points, torch.Generator().manual_seed(1))
    dim = 8
    encoder = SetEncoder(dim)
    decoder = nn.Sequential(mlp(dim, 128, 256, 2 * points), nn.Tanh(), nn.Unflatten(1, (points, 2)))
    window, distance = mow.MovingWindow(n, dim), mow.CramerWold(log=True)
    parameters = [*encoder.parameters(), *decoder.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=2e-3 * (k / n) ** 0.5)
    with torch.no_grad():
        window.fill(encoder(clouds_of(stream.take(n - k), points)))
    for step in range(1, steps + 1):
        clouds = clouds_of(stream.take(k), points)
        z = encoder(clouds)
        loss = reconstruction_error(decoder(z), clouds) + 0.1 * n / len(z) * distance(z, window)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            window.push(encoder(clouds))
        if step % max(1, steps // 10) == 0:
            with torch.no_grad():
                z = encoder(test)
                error, latents = reconstruction_error(decoder(z), test), mk.cramer_wold(z)
            print(f"step {step}: on test clouds, error {error:.3f}, Cramer-Wold distance {latents:.4f}", flush=True)
    if out is not None:
        with torch.no_grad():
            decoded = decoder(encoder(test[:16]))
        pictures.save_png(pictures.reconstruction_grid(draw(test[:16]), draw(decoded), 8), out)


if __name__ == "__main__":
    typer.run(main)
