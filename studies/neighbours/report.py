"""The tables of docs/neighbours.md and its plots, from the results."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import drawing
from benchmarks.page import fill, spread, table
from mow import fit_critical_batch
from mow.app import critical_batch_demo
from mow.files import read_json_lines
from mow.neighbours.critical_batch import CriticalBatch
from studies.neighbours.window import BATCH, PICTURES

PAGE = "neighbours.md"
Lines = list[dict[str, Any]]

METHODS = {
    "full": ("classical, batch 64", "#333333"),
    "small": ("classical, batch k", "#b2182b"),
    "pieces": ("accumulated, distance of k", "#e08214"),
    "two-pass": ("accumulated, exact two-pass", "#2166ac"),
    "window": ("moving window", "#00695c"),
}
WINDOW_SCORES = {"test_reconstruction": ".1f", "test_cramer_wold": ".4f"}
LOWEST = (1, 2, 4, 8)
"""The smallest batch sizes that the laws are fitted from, in turn."""


def write(results: Path, docs: Path) -> list[Path]:
    """Make the plots and replace what stands between the markers of the page. Returns what was written.

    Raises:
        FileNotFoundError: no page, or no results of a part.
        ValueError: the page lacks a marker; nothing is written then.
    """
    lines = {part: read_json_lines(results / f"{part}.jsonl") for part in ("critical", "grid", "window", "speed")}
    for part, found in lines.items():
        if not found:
            raise FileNotFoundError(
                f"{results} holds no {part}.jsonl; make it: python -m studies.neighbours run {part}"
            )
    speed = lines["speed"][-1]
    sections = {
        "window": window_table(lines["window"], speed),
        "time": time_table(lines["window"], speed),
        "critical": critical_tables(lines["critical"]),
        "grid": grid_table(lines["grid"], speed),
        "machine": machine(lines),
    }
    figures = {
        "window": window_figure(lines["window"], speed),
        "critical": critical_batch_demo.draw(_fit(lines["critical"])),
        "grid": grid_figure(lines["grid"]),
    }
    images = {f"neighbours-{name}.svg": drawing.svg(figure) for name, figure in figures.items()}
    return fill(docs / PAGE, sections, images)


# The auto-encoder


def window_table(lines: Lines, speed: dict[str, Any]) -> str:
    """Every method after the same number of pictures."""
    rows = []
    for method, k in _methods(lines):
        found = _runs(lines, method, k)
        at = found[0]["pictures"].index(PICTURES)
        scores = (_scores([line[name][at] for line in found], form) for name, form in WINDOW_SCORES.items())
        memory, seconds = 1024 * found[0]["step_mib"], _seconds(speed, method, k, PICTURES)
        rows.append([METHODS[method][0], str(k), f"{memory:,.0f} KiB", f"{seconds:.0f} s", *scores])
    heads = ["method", "k", "memory of a step", "time", "reconstruction", "Cramer-Wold"]
    runs = len(_runs(lines, "full", BATCH))
    return (
        f"After {PICTURES:,} pictures, mean of {runs} seeds (smallest to largest):\n\n{table(heads, rows)}\n\n"
        f"A step of Adam alone takes {speed['optimizer_ms']:.2f} ms."
    )


def time_table(lines: Lines, speed: dict[str, Any]) -> str:
    """The methods with k pictures in memory, after the time that the moving window needs for PICTURES."""
    rows = []
    for k in _windows(lines):
        limit = _seconds(speed, "window", k, PICTURES)
        for method in METHODS:
            size = BATCH if method == "full" else k
            found = _runs(lines, method, size)
            seen = found[0]["pictures"]
            pictures = min(limit / _seconds(speed, method, size, 1), seen[-1])
            scores = (
                _scores([float(np.interp(pictures, seen, line[name])) for line in found], form)
                for name, form in WINDOW_SCORES.items()
            )
            seconds = _seconds(speed, method, size, pictures)
            rows.append([METHODS[method][0], str(size), f"{seconds:.0f} s", f"{pictures:,.0f}", *scores])
    return table(["method", "k", "time", "pictures seen", "reconstruction", "Cramer-Wold"], rows)


def window_figure(lines: Lines, speed: dict[str, Any]) -> Figure:
    """Both scores over time, a row of panels for each k."""
    sizes = _windows(lines)
    scores = {"test_reconstruction": "test reconstruction", "test_cramer_wold": "test Cramer-Wold distance"}
    with drawing.style():
        figure = Figure(figsize=(10, 3.6 * len(sizes)), facecolor="white", layout="constrained")
        panels = figure.subplots(len(sizes), len(scores), squeeze=False, sharex=True, sharey="col")
        for row, k in zip(panels, sizes, strict=True):
            for panel, (score, title) in zip(row, scores.items(), strict=True):
                for method, (label, colour) in METHODS.items():
                    size = BATCH if method == "full" else k
                    found = _runs(lines, method, size)
                    seconds = [_seconds(speed, method, size, seen) for seen in found[0]["pictures"]]
                    curves = list(zip(*(line[score] for line in found), strict=True))
                    means = [statistics.mean(values) for values in curves]
                    panel.plot(seconds, means, color=colour, label=label, linewidth=2.4 if method == "window" else 1.4)
                    panel.fill_between(
                        seconds,
                        [min(v) for v in curves],
                        [max(v) for v in curves],
                        color=colour,
                        alpha=0.15,
                        linewidth=0,
                    )
                panel.set(xscale="log", yscale="log", title=f"{title}, k = {k}", xlabel="CPU seconds")
                drawing.grid(panel)
        for panel in panels[:, 0]:
            panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            panel.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if value in (15, 20, 30, 40, 60) else "")
        panels[0, 0].legend(frameon=False, fontsize=8)
    return figure


def _methods(lines: Lines) -> list[tuple[str, int]]:
    found = {(line["settings"]["method"], line["settings"]["k"]) for line in lines}
    return sorted(found, key=lambda pair: (-pair[1], list(METHODS).index(pair[0])))


def _windows(lines: Lines) -> list[int]:
    return sorted({k for method, k in _methods(lines) if method == "window"}, reverse=True)


def _runs(lines: Lines, method: str, k: int) -> Lines:
    return [line for line in lines if (line["settings"]["method"], line["settings"]["k"]) == (method, k)]


def _seconds(speed: dict[str, Any], method: str, k: int, pictures: float) -> float:
    ms = next(entry["ms"] for entry in speed["window"] if (entry["method"], entry["k"]) == (method, k))
    return ms * pictures / BATCH / 1000


# The critical batch size


def critical_tables(lines: Lines) -> str:
    result = _fit(lines)
    steps = []
    for b in result.batch_sizes.unique().tolist():
        measured = result.steps[result.batch_sizes == b]
        mean = float(measured.log().mean().exp())
        fitted = (f"{float(fit.steps(b)):,.0f}" for fit in result.fits)
        span = f"{mean:,.0f} ({measured.min():,.0f} to {measured.max():,.0f})"
        steps.append([f"{b:g}", str(len(measured)), span, f"{mean * b:,.0f}", *fitted])
    heads = ["b", "runs", "steps K", "samples K b", *(fit.law.name for fit in result.fits)]
    fits = [
        [f"b = {lowest} to 512, threshold {threshold:g}", *_described(_fit(lines, threshold, lowest))]
        for threshold, lowest in [*((4, lowest) for lowest in LOWEST), (5, 1), (6, 1)]
    ]
    fit_heads = ["fitted to", "hyperbola: b*", "rms", "noise scale: B_c", "rms", "rms within a b"]
    missed = sum(line["steps"] is None for line in lines)
    return (
        f"{table(heads, steps)}\n\nGeometric means (smallest to largest); {missed} of {len(lines)} runs missed the "
        f"threshold. What both laws make of it, with 95% intervals, rms of ln K:\n\n{table(fit_heads, fits)}"
    )


def _fit(lines: Lines, threshold: float = 4.0, lowest: int = 1) -> CriticalBatch:
    """Of the runs that got there; the curves hold every threshold above the one that they were run to."""
    points = []
    for line in lines:
        settings = line["settings"]
        at = next((i for i, distance in enumerate(line["curve"], 1) if distance <= threshold), None)
        if at is not None and settings["batch"] >= lowest:
            points.append((settings["batch"], at * settings["every"]))
    return fit_critical_batch(*zip(*points, strict=True))


def _described(result: CriticalBatch) -> Iterable[str]:
    for fit in result.fits:
        low, high = fit.critical_batch_interval
        yield f"{fit.critical_batch:.3g} ({low:.3g} to {high:.3g})"
        yield f"{fit.rms:.2f}"
    yield f"{result.spread:.2f}"


# The grid of Gaussians


def grid_table(lines: Lines, speed: dict[str, Any]) -> str:
    rows = []
    for batch, coreset in _grids(lines):
        found = _grid_runs(lines, batch, coreset)
        ms = next(entry["ms"] for entry in speed["grid"] if (entry["batch"], entry["coreset"]) == (batch, coreset))
        scores = (_scores([_late(line[name]) for line in found], form) for name, form in SCORES.items())
        rows.append(
            [
                str(batch),
                "core-set" if coreset else "random",
                *scores,
                f"{ms:.2f} ms",
                f"{1024 * found[0]['step_mib']:,.0f} KiB",
            ]
        )
    heads = ["batch", "samples", "modes of 25", "high quality", "KL to uniform", "time of a step", "memory of a step"]
    return table(heads, rows)


SCORES = {"modes": ".1f", "high_quality": ".2f", "kl": ".2f"}


def grid_figure(lines: Lines) -> Figure:
    """High quality and balance over the steps, plain and with core-sets."""
    titles = {"high_quality": "share of high quality", "kl": "KL of the modes to uniform (0 is balanced)"}
    batches = sorted({batch for batch, _ in _grids(lines)})
    colours = dict(zip(batches, ("#b2182b", "#e08214", "#2166ac"), strict=True))
    with drawing.style():
        figure = Figure(figsize=(10, 3.6), facecolor="white", layout="constrained")
        for panel, (score, title) in zip(figure.subplots(1, 2), titles.items(), strict=True):
            for batch, coreset in _grids(lines):
                found = _grid_runs(lines, batch, coreset)
                steps = found[0]["settings"]["steps"]
                means = [statistics.mean(values) for values in zip(*(line[score] for line in found), strict=True)]
                at = [steps * (i + 1) / len(means) for i in range(len(means))]
                label = f"batch {batch}, {'core-set' if coreset else 'random'}"
                panel.plot(at, means, "-" if coreset else ":", color=colours[batch], linewidth=1.8, label=label)
            panel.set(title=title, xlabel="steps", ylim=(0, None))
            drawing.grid(panel)
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False, fontsize=8
        )
    return figure


def _grids(lines: Lines) -> list[tuple[int, bool]]:
    return sorted({(line["settings"]["batch"], line["settings"]["coreset"]) for line in lines})


def _grid_runs(lines: Lines, batch: int, coreset: bool) -> Lines:
    return [line for line in lines if (line["settings"]["batch"], line["settings"]["coreset"]) == (batch, coreset)]


def _late(scores: list[float]) -> float:
    """The mean of the last three of ten scores: single ones jump."""
    return statistics.mean(scores[-3:])


# All of them


def machine(lines: dict[str, Lines]) -> str:
    """What it was measured on."""
    every = [line["on"] for found in lines.values() for line in found]
    kinds = {f"{on['machine']['cpu']} ({on['machine']['instructions']}), one thread" for on in every}
    versions = {f"PyTorch {on['versions']['torch']}, mow-kernels {on['versions']['mow-kernels']}" for on in every}
    days = sorted({on["created"][:10] for on in every})
    data = {line["data"] for found in lines.values() for line in found if "data" in line}
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{'; '.join(sorted(data))}. {'; '.join(sorted(kinds))}; {'; '.join(sorted(versions))}; {when}."


def _scores(values: list[float], form: str) -> str:
    return spread(values, form, to="to")
