"""Time over n, k and D, as SVG."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks import drawing
from benchmarks.cases import DISTANCES

AXES = {"n": {"k": 1, "dim": 64}, "k": {"n": 1024, "dim": 64}, "dim": {"n": 1024, "k": 1}}
"""What each plot varies, and what it holds."""

NAMES = {"mmd": "MMD", "cramer_wold": "Cramer-Wold", "sliced_wasserstein": "sliced-Wasserstein"}

_SYMBOLS = {"n": "n", "k": "k", "dim": "D"}
_AXIS_LABELS = {"n": "n, rows of the window", "k": "k, rows with a gradient", "dim": "D, latent width"}
LINES = {
    "plain": ("plain PyTorch", "#b2182b", "-", 1.4),
    "compile": ("torch.compile", "#e08214", "-", 1.4),
    "rows-compile": ("rows only, compiled", "#8073ac", "-", 1.4),
    "cpp": ("mow-kernels", "#00695c", "-", 2.6),
    "cpp-gradient": ("its gradient alone", "#4db6ac", "-", 1.8),
    "running": ("mow-kernels, kept", "#00695c", "-", 2.6),
    "direct": ("mow-kernels, direct", "#4db6ac", "-", 1.8),
    "keops": ("KeOps", "#2166ac", "-", 1.4),
    "empty": ("empty autograd call", "#777777", ":", 1.2),
    "product": ("matrix product, 1 core", "#777777", "--", 1.2),
}
"""Candidate -> label, colour, dashes, width."""

_GAP = 0.058
"""Between labels, as a share of the height."""


def scaling(entries: list[dict[str, Any]], axis: str) -> bytes | None:
    """An SVG with a panel a distance, or None where nothing was measured at two sizes.

    entries: the cases of a record; axis: "n", "k" or "dim".
    """
    curves = {distance: _curves(entries, axis, distance) for distance in DISTANCES}
    held = ", ".join(f"{_SYMBOLS[name]} = {value}" for name, value in AXES[axis].items())
    return _panels(curves, _AXIS_LABELS[axis], "time of value and gradient", held)


def windows(entries: list[dict[str, Any]]) -> bytes | None:
    """The same for steps of k = 1 over a window, entries: the windows of a record."""
    curves = _window_curves(entries, lambda row: row["us"]["median"])
    return _panels(curves, _AXIS_LABELS["n"], "time of value, gradient and push", _WINDOW)


def window_memory(entries: list[dict[str, Any]]) -> bytes | None:
    """The peak memory of those steps."""
    curves = _window_curves(entries, lambda row: row.get("peak_mib"))
    return _panels(curves, _AXIS_LABELS["n"], "memory that the window and its steps take", _WINDOW, _mebibytes)


_WINDOW = "k = 1, D = 64, one core"


def _window_curves(
    entries: list[dict[str, Any]], quantity: Callable[[dict[str, Any]], float | None]
) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """distance -> candidate -> (n, quantity of its row), of the rows that have one above zero."""
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for entry in entries:
        if entry["k"] == 1 and not entry["table"]:
            for row in entry["candidates"]:
                if row["name"] in LINES and row["status"] == "measured" and (value := quantity(row)):
                    curves.setdefault(entry["distance"], {}).setdefault(row["name"], []).append((entry["n"], value))
    return curves


def _duration(us: float, _: object = None) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:g} {unit}"
    return f"{us:g} µs"


def _mebibytes(size: float, _: object = None) -> str:
    return f"{size / 1024:g} GiB" if size >= 1024 else f"{size:g} MiB"


def _panels(
    curves: dict[str, dict[str, list[tuple[int, float]]]],
    axis: str,
    quantity: str,
    held: str,
    unit: Callable[[float, object], str] = _duration,
) -> bytes | None:
    """A panel a distance, each with its curves: candidate -> (size, quantity)."""
    if not any(curves.values()):
        return None
    with drawing.style():
        figure = Figure(figsize=(13, 4.2), facecolor="white", layout="constrained")
        panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
        for panel, (distance, lines) in zip(panels, curves.items(), strict=True):
            _draw(panel, lines)
            panel.set_title(NAMES[distance], loc="left", fontweight="bold")
            panel.set_xlabel(axis)
        for panel, lines in zip(panels, curves.values(), strict=True):  # the common limits stand only now
            _label(panel, lines)
        panels[0].set_ylabel(quantity)
        panels[0].yaxis.set_major_formatter(unit)
        figure.suptitle(f"{held}, float32", x=0.005, ha="left", color="#555555")
        return drawing.svg(figure)


def _curves(entries: list[dict[str, Any]], axis: str, distance: str) -> dict[str, list[tuple[int, float]]]:
    """Candidate -> (size, microseconds) in order, of those measured at two sizes at least."""
    held = {**AXES[axis], "distance": distance, "what": "fwd+bwd", "dtype": "float32"}
    threads = max((entry["threads"] for entry in entries), default=0)
    points: dict[str, dict[int, float]] = {name: {} for name in LINES}
    for entry in entries:
        fits = all(entry[name] == value for name, value in held.items())
        if fits and entry["threads"] == threads and "kernel" not in entry["options"]:
            for row in entry["candidates"]:
                if row["name"] in points and row["status"] == "measured":
                    points[row["name"]][entry[axis]] = row["us"]["median"]
    return {name: sorted(found.items()) for name, found in points.items() if len(found) > 1}


def _draw(panel: Axes, curves: dict[str, list[tuple[int, float]]]) -> None:
    panel.set(xscale="log", yscale="log")
    drawing.grid(panel)
    for name, points in curves.items():
        _, colour, dashes, width = LINES[name]
        sizes, times = zip(*points, strict=True)
        marker = "" if colour == "#777777" else "o"
        panel.plot(sizes, times, dashes, color=colour, linewidth=width, marker=marker, markersize=3.5)
    ticks = sorted({size for points in curves.values() for size, _ in points})
    panel.set_xticks(ticks, [str(size) for size in ticks])
    panel.minorticks_off()


def _label(panel: Axes, curves: dict[str, list[tuple[int, float]]]) -> None:
    """Names at the right ends of the lines, pushed apart where they would overlap."""
    low, high = (math.log10(limit) for limit in panel.get_ylim())
    right = max((points[-1][0] for points in curves.values()), default=1)
    height = -math.inf
    for name, points in sorted(curves.items(), key=lambda curve: curve[1][-1][1]):
        label, colour, _, _ = LINES[name]
        height = max((math.log10(points[-1][1]) - low) / (high - low), height + _GAP)
        panel.annotate(
            label,
            (right, 10 ** (low + height * (high - low))),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
            fontweight="bold" if name in ("cpp", "running") else "normal",
            annotation_clip=False,
        )
