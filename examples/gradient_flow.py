"""Points that flow to the shape of a picture: GeomLoss's call on mow_kernels, and one changed import.

python examples/gradient_flow.py --steps 200
python examples/gradient_flow.py --steps 200 --library geomloss --loss gaussian      # needs geomloss
"""

from __future__ import annotations

import time
from typing import Annotated

import torch
import typer
from torch import Tensor

from mow.app import data


def shape_of(picture: Tensor, points: int) -> Tensor:
    """That many points of a picture's silhouette [C, H, W], brighter pixels more often -> [points, 2] in [0, 1]^2."""
    light = picture.float().mean(0)
    chosen = torch.multinomial(light.flatten(), points, replacement=True)
    size = torch.tensor(light.shape)
    return (torch.stack([chosen // size[1], chosen % size[1]], dim=1) + torch.rand(points, 2)) / size


def main(
    steps: Annotated[int, typer.Option(help="Steps of the flow.")] = 200,
    points: Annotated[int, typer.Option(help="Points of each cloud.")] = 1000,
    library: Annotated[str, typer.Option(help="mow or geomloss.")] = "mow",
    loss: Annotated[str, typer.Option(help="Of SamplesLoss.")] = "gaussian",
    blur: Annotated[float, typer.Option(help="Of SamplesLoss.")] = 0.1,
    source: Annotated[str, typer.Option("--data", help="Pictures, as `mow train` takes them.")] = "fashion-mnist",
) -> None:
    if library == "geomloss":
        from geomloss import SamplesLoss
    else:
        from mow.adapters.geomloss import SamplesLoss
    torch.manual_seed(0)
    y, x = shape_of(data.load(source).train[0], points), torch.rand(points, 2, requires_grad=True)
    distance = SamplesLoss(loss, blur=blur)
    before, start = distance(x, y).item(), time.perf_counter()
    for _ in range(steps):
        (g_x,) = torch.autograd.grad(distance(x, y), x)
        x = (x - 0.5 * blur**2 * points * g_x).detach().requires_grad_()
    milliseconds = 1e3 * (time.perf_counter() - start) / steps
    print(f"{loss} by {library}: {before:.3e} -> {distance(x, y).item():.3e}, {milliseconds:.2f} ms a step")


if __name__ == "__main__":
    typer.run(main)
