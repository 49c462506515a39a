"""An MMD-GAN, ONE generated and ONE real picture a step, with a window each for the critic's features of both.

The critic maximises the MMD between its features of real and of generated pictures, so that both samples receive a
gradient: two calls with the roles exchanged. The generator minimises the same MMD.

    python examples/mmd_gan.py --steps 10000

Source: Li et al., "MMD GAN: Towards Deeper Understanding of Moment Matching Network", NeurIPS 2017; spectral norms
(Miyato et al., ICLR 2018) in place of its clipped weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import mow
import mow_kernels as mk
from mow.app import data, pictures
from mow.app.models import mlp
from mow.training.stream import ShuffledStream, to_unit_range

NOISE, FEATURES = 16, 16


def two_sample(z: Tensor, window: mow.MovingWindow, others: Tensor, other_window: mow.MovingWindow) -> Tensor:
    """MMD between [window; z] and [other_window; others], with a gradient for z alone."""
    sample = torch.cat([other_window.history(len(others)), others.detach()])
    return mk.mmd(z, window.history(len(z)), sample)


def main(
    steps: Annotated[int, typer.Option(help="Steps of both networks.")] = 10_000,
    k: Annotated[int, typer.Option(help="New pictures of each kind a step.")] = 1,
    n: Annotated[int, typer.Option(help="Window size.")] = 64,
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
    out: Annotated[Path | None, typer.Option(help="A PNG file for generated pictures.")] = None,
) -> None:
    torch.manual_seed(0)
    found = data.load(source)
    stream, test = ShuffledStream(found.train), to_unit_range(found.test[:1000]).flatten(1)
    width = test.shape[1]
    generator = nn.Sequential(mlp(NOISE, 256, 256, width), nn.Sigmoid())
    critic = mlp(width, 256, 256, FEATURES, activation=lambda: nn.LeakyReLU(0.2))
    for layer in critic:
        if isinstance(layer, nn.Linear):
            spectral_norm(layer)
    real_window, fake_window = mow.MovingWindow(n, FEATURES), mow.MovingWindow(n, FEATURES)
    lr = 1e-3 * (k / n) ** 0.5
    optimizers = [torch.optim.Adam(model.parameters(), lr=lr, betas=(0.5, 0.999)) for model in (generator, critic)]
    fixed = torch.randn(len(test), NOISE)

    @torch.no_grad()
    def mmd_to_test() -> float:
        scales = [test.var(0).mean().item() * scale for scale in mk.SCALES]  # on the pictures: no critic has a say
        return mk.mmd(generator(fixed), None, test, scales=scales).item()

    before = mmd_to_test()
    with torch.no_grad():
        real_window.fill(critic(stream.take(n - k).flatten(1)))
        fake_window.fill(critic(generator(torch.randn(n - k, NOISE))))
    for step in range(1, steps + 1):
        x = stream.take(k).flatten(1)
        generated = generator(torch.randn(len(x), NOISE))

        real, fake = critic(x), critic(generated.detach())
        loss = -two_sample(real, real_window, fake, fake_window) - two_sample(fake, fake_window, real, real_window)
        optimizers[1].zero_grad()
        (n / k * loss).backward()
        optimizers[1].step()

        fake = critic(generated)
        loss = two_sample(fake, fake_window, real, real_window)
        optimizers[0].zero_grad()
        (n / k * loss).backward(inputs=list(generator.parameters()))
        optimizers[0].step()

        real_window.push(real)
        fake_window.push(fake)
        if step % max(1, steps // 10) == 0:
            print(f"step {step}: MMD to the test pictures {mmd_to_test():.4f} (at first {before:.4f})", flush=True)
    if out is not None:
        with torch.no_grad():
            shown = generator(fixed[:64]).unflatten(1, tuple(found.train.shape[1:]))
        pictures.save_png(pictures.grid(shown, 8), out)


if __name__ == "__main__":
    typer.run(main)
