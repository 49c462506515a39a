"""The figures of docs/idea.md, as SVG."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

import mow_kernels as mk
from benchmarks import drawing
from mow.files import write_whole

INK, OLD, NEW, GONE = "#777777", "#90a4ae", "#00897b", "#bdbdbd"
"""They show on a light page and on a dark one."""
ENLARGED = 12
"""The arrows are n times the gradient of a latent, times this."""


def window(n: int = 8, k: int = 2) -> Figure:
    """Two steps of a window: which rows it holds, which of them are new, and which leave."""
    figure = Figure(figsize=(8.4, 3.4))
    axes = figure.subplots()
    for step in range(3):
        y, first = -1.35 * step, k * step
        axes.text(-0.3, y + 0.4, "filled" if step == 0 else f"step {step}", ha="right", va="center", color=INK)
        for row in range(n - k if step == 0 else n):
            _cell(axes, first + row - k * (step > 0), y, NEW if step and row >= n - k else OLD)
        if step:
            for row in range(k):
                if step > 1:
                    _cell(axes, first - 2 * k + row, y, GONE, leaves=True)
            left = first - k
            axes.annotate("", (left + n, y - 0.12), (left, y - 0.12), arrowprops={"arrowstyle": "<->", "color": INK})
            axes.text(left + n / 2, y - 0.2, "distance over all n", ha="center", va="top", color=INK, fontsize=9)
            axes.text(left + n + 0.2, y + 0.4, "k new: encoded now,\nthey alone get a gradient", va="center",
                      color=NEW, fontsize=9)  # fmt: skip
        else:
            axes.text(n - k + 0.2, y + 0.4, "n - k latents: constants", va="center", color=INK, fontsize=9)
    axes.set(xlim=(-1.6, n + 2 * k + 2.6), ylim=(-3.4, 1))
    return figure


def gradient(n: int = 64) -> Figure:
    """Where the Cramer-Wold distance to N(0, I) pushes one new latent; the history is too full on the left."""
    generator = torch.Generator().manual_seed(3)
    history = torch.randn(n - 1, 2, generator=generator)
    history[:, 0] = torch.where(torch.rand(n - 1, generator=generator) < 0.8, -history[:, 0].abs(), history[:, 0])
    figure = Figure(figsize=(8.4, 3.1))
    for axes, start in zip(figure.subplots(1, 3), ([-0.6, 0.0], [0.9, -0.3], [2.4, 1.6]), strict=True):
        z = torch.tensor([start], requires_grad=True)
        (g_z,) = torch.autograd.grad(mk.cramer_wold(z, history), z)
        (x, y), (dx, dy) = start, (-ENLARGED * n * g_z[0]).tolist()
        for radius in (1, 2):
            axes.add_patch(matplotlib.patches.Circle((0, 0), radius, fill=False, color=INK, lw=0.6, ls=":"))
        axes.scatter(*history.T, s=12, color=OLD, label="history")
        axes.annotate("", (x + dx, y + dy), (x, y), arrowprops={"arrowstyle": "-|>", "color": NEW, "lw": 2})
        axes.scatter([x], [y], s=45, color=NEW, zorder=3, label="the new latent")
        axes.set(xlim=(-3, 3), ylim=(-2.6, 2.6), aspect="equal")
    figure.axes[0].legend(loc=(0, -0.12), fontsize=8, labelcolor=INK, frameon=False, ncols=2)
    return figure


def _cell(axes: Axes, x: float, y: float, color: str, leaves: bool = False) -> None:
    box = FancyBboxPatch((x + 0.1, y + 0.1), 0.8, 0.6, boxstyle="round,pad=0,rounding_size=0.12", lw=1.2,
                         fc="none" if leaves else color, ec=color, ls="--" if leaves else "-")  # fmt: skip
    axes.add_patch(box)


def write(figure: Figure, path: Path) -> Path:
    """Without axes and background, the text as text."""
    for axes in figure.axes:
        axes.set_axis_off()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        content = drawing.svg(figure, salt="mow", transparent=True, bbox_inches="tight")
    return write_whole(path, "\n".join(line.rstrip() for line in content.decode().splitlines()) + "\n")
