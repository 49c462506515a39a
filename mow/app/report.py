"""The report of a run: one HTML file that needs nothing else, neither a network nor scripts."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shlex
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from mow.app.autoencoders import MODELS
from mow.app.pictures import png_data_uri
from mow.files import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PLACES = 240  # points of a drawn line, however long the run
_SHARE = 0.05  # of the logged steps enter each of them
_EVALUATIONS = 10  # rows of the table of evaluations

_PICTURES = {
    "samples": ("Samples", "What the decoder makes of draws from the prior. No picture of the data went in."),
    "reconstructions": ("Reconstructions", "Each original, and right under it what the auto-encoder makes of it."),
    "interpolations": ("Interpolations", "Each row walks in a straight line from one latent to another."),
}
_METRICS = {
    "reconstruction": "Reconstruction",
    "distance": "Distance",
    "cramer_wold": "Cramer-Wold",
    "mmd": "MMD",
    "sliced_wasserstein": "Sliced-Wasserstein",
}


def write_report(
    out: str | os.PathLike[str],
    *,
    title: str,
    summary: Sequence[tuple[str, str]],
    options: Mapping[str, Any],
    metrics: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the report of the run in the folder `out` to out/report.html, and return its path.

    `summary` holds the headline figures as (label, value). `options` fills the table of options; "command" among them,
    text or a list of arguments, becomes the section on how to reproduce the run. `metrics` (default
    out/metrics.jsonl) holds a JSON object a logged step: step, pictures (seen so far), loss, reconstruction, distance,
    seconds (since the start), and test_* on evaluations; see `read_metrics`. Of out/samples.png,
    out/reconstructions.png and out/interpolations.png those that exist are embedded. Same input, same file.

    Raises FileNotFoundError when there are no metrics, ValueError when they are broken or a picture is no PNG.
    """
    out = Path(out)
    log = read_metrics(out / "metrics.jsonl" if metrics is None else metrics)
    options = dict(options)
    command = options.pop("command", None)
    body = "\n".join(
        part
        for part in (
            f"<header>\n<h1>{escape(title)}</h1>\n<p>{escape(_sentence(options, log))}</p>\n</header>",
            _headline(summary),
            _section("Curves", _curves(options, log)),
            _section("Pictures", _pictures(out)),
            _section("Evaluations", _evaluations(log)),
            _section("Options", _table(("option", "value"), [(name, _text(value)) for name, value in options.items()])),
            _section("How to reproduce", _command(command)),
        )
        if part
    )
    page = _PAGE.format(title=escape(title), style=_STYLE, body=body)
    return write_whole(out / "report.html", page.encode(errors="backslashreplace"))  # a file's name may be no UTF-8


def read_metrics(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Read a file with a JSON object a line into float64 columns, one for each name, in the order they first appear.

    What is absent from a line, or no number, is NaN. A last line without its end, left by a killed run, is skipped.

    Raises FileNotFoundError, and ValueError for any other line that is no JSON object.
    """
    columns: dict[str, array[float]] = {}
    count = 0
    with open(path, "rb") as file:
        for line in file:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                if not line.endswith(b"\n"):
                    break
                raise ValueError(f"{path}, line {count + 1} must be a JSON object, got {line[:60]!r}")
            for name, value in record.items():
                if name not in columns:
                    columns[name] = array("d", [math.nan]) * count
                columns[name].append(value if isinstance(value, int | float) else math.nan)
            count += 1
            for column in columns.values():
                if len(column) < count:
                    column.append(math.nan)
    return {name: np.array(column) for name, column in columns.items()}


# The parts of the page ----------------------------------------------------------------------------------------------


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{content}\n</section>" if content else ""


def _sentence(options: Mapping[str, Any], log: Mapping[str, np.ndarray]) -> str:
    model = MODELS.get(options.get("model", ""))
    title = "auto-encoder" if model is None else model.title
    words = [f"{'An' if title[0] in 'aeiou' else 'A'} {title}"]
    if "data" in options:
        words.append(f"on {options['data']}")
    if "n" in options and "k" in options:
        words.append(f"with a window of n = {options['n']} latents, k = {options['k']} of them new at each step")
    ran = [
        f"{_last(log, name):,.0f} {unit}"
        for name, unit in (("step", "steps"), ("pictures", "pictures seen"))
        if math.isfinite(_last(log, name))
    ]
    if math.isfinite(seconds := _last(log, "seconds")):
        ran.append(_duration(seconds))
    sentence = " ".join(words) + (": " + ", ".join(ran) if ran else "") + "."
    return sentence.replace(" = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _headline(summary: Sequence[tuple[str, str]]) -> str:
    if not summary:
        return ""
    tiles = "\n".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in summary)
    return f'<dl class="headline">\n{tiles}\n</dl>'


def _pictures(out: Path) -> str:
    figures = []
    for name, (heading, caption) in _PICTURES.items():
        path = out / f"{name}.png"
        if not path.exists():
            continue
        source = png_data_uri(path)
        with Image.open(path) as image:
            width, height = image.size
        shape = width / height
        # Shares of a row in proportion to the shape: pictures side by side come out equally high.
        figures.append(
            f'<figure style="flex: {shape:.3f} 1 {320 * shape:.0f}px; max-width: {560 * shape:.0f}px">'
            f'<img src="{source}" width="{width}" height="{height}" alt="{heading}. {caption}">'
            f"<figcaption><b>{heading}.</b> {caption}</figcaption></figure>"
        )
    return '<div class="pictures">\n' + "\n".join(figures) + "\n</div>" if figures else ""


def _evaluations(log: Mapping[str, np.ndarray]) -> str:
    names = [name for name in log if name.startswith("test_")]
    if not names:
        return ""
    rows = np.flatnonzero(np.any([np.isfinite(log[name]) for name in names], axis=0))
    kept = rows[_spread(len(rows), _EVALUATIONS)]
    shown = [name for name in ("step", "pictures") if name in log]
    head = [name.capitalize() for name in shown] + [_label(name) for name in names]
    cells = [[f"{log[name][i]:,.0f}" for name in shown] + [_figure(log[name][i]) for name in names] for i in kept]
    note = f"<p>{len(kept)} of {len(rows):,} evaluations on the test pictures.</p>\n" if len(kept) < len(rows) else ""
    return note + _table(head, cells, kind="numbers")


def _command(command: str | Sequence[str] | None) -> str:
    if command is None:
        return ""
    text = command if isinstance(command, str) else shlex.join(command)
    return f"<pre><code>{escape(text)}</code></pre>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "words") -> str:
    if not rows:
        return ""
    line = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}">\n<thead><tr>{line}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


# The curves ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    heading: str
    axis: str  # name and unit
    train: str | None = None  # the column of each
    test: str | None = None
    log: bool = False  # a logarithmic axis where all values allow it


def _curves(options: Mapping[str, Any], log: Mapping[str, np.ndarray]) -> str:
    model = MODELS.get(options.get("model", ""))
    distance = "distance" if model is None else model.distance_title
    curves = (
        _Curve(
            "Reconstruction",
            "reconstruction: sum of squares a picture",
            train="reconstruction",
            test="test_reconstruction",
            log=True,
        ),
        _Curve("Distance of the window to the prior", distance, train="distance", test="test_distance", log=True),
        _Curve("Distance on the test pictures", "Cramer-Wold distance", test="test_cramer_wold", log=True),
        _Curve("Loss", "loss: what the optimiser sees", train="loss"),
        _Curve("Rows that the distance is over", "rows", train="span", log=True),
    )
    figures = [_figure_of(curve, log) for curve in curves]
    if not any(figures):
        return ""
    note = (
        f"Lines are means over {100 * _SHARE:.0f} % of the logged steps, bands hold the middle 80 % of these steps, "
        "dots are evaluations on test pictures."
    )
    trained = log["pictures"] > 0  # an evaluation before the first step has no training values to miss
    values = np.array([log[name][trained] for name in ("loss", "reconstruction", "distance") if name in log])
    if bad := np.count_nonzero(~np.isfinite(values)):
        note += f" {bad:,} of {values.size:,} logged values are missing or not finite, and not drawn."
    return f'<p>{note}</p>\n<div class="curves">\n' + "\n".join(filter(None, figures)) + "\n</div>"


def _figure_of(curve: _Curve, log: Mapping[str, np.ndarray]) -> str:
    train, test = _points(log, curve.train), _points(log, curve.test)
    if not len(train[0]) and not len(test[0]):
        return ""
    x, mean, low, high = _moving(*train)
    kept = _spread(len(test[0]), _PLACES)
    test = test[0][kept], test[1][kept]
    means = [f"{name} {_course(y)}" for name, y in (("training", mean), ("test", test[1])) if len(y)]
    words = ", ".join(means)
    svg = _svg(curve, (x, mean, low, high), test)
    label = escape(f"{curve.heading} over the pictures seen: {words}.")
    return (
        f"<figure><figcaption><b>{escape(curve.heading)}</b> {escape(words)}</figcaption>\n"
        + svg.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)
        + "</figure>"
    )


def _points(log: Mapping[str, np.ndarray], name: str | None) -> tuple[np.ndarray, np.ndarray]:
    """The finite values of a column against the pictures seen."""
    if name is None or name not in log or "pictures" not in log:
        return np.empty(0), np.empty(0)
    x, y = log["pictures"], log[name]
    finite = np.isfinite(x) & (np.abs(y) < 1e300)  # short of infinity: a mean of these must not overflow
    return x[finite], y[finite]


def _spread(count: int, most: int) -> np.ndarray:
    """Indices below `count`, `most` at most, evenly spread, first and last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int))


def _moving(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """x at evenly spread places, and over the values around it the mean and the 10 % and 90 % quantiles."""
    places = _spread(len(y), _PLACES)
    half = round(len(y) * _SHARE / 2)
    around = [y[max(0, i - half) : i + half + 1] for i in places]
    low, high = np.array([np.quantile(values, [0.1, 0.9]) for values in around]).reshape(-1, 2).T
    return x[places], np.array([values.mean() for values in around]), low, high


# Colours that matplotlib writes out and the page's style takes the place of, so that the curves follow light and dark.
_INK, _GRID, _TRAIN, _TEST = "#010101", "#020202", "#030303", "#040404"
_VARIABLES = {_INK: "var(--soft)", _GRID: "var(--line)", _TRAIN: "var(--train)", _TEST: "var(--test)"}

_LOOK: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": 8.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "mow",
}


def _svg(
    curve: _Curve,
    train: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> str:
    import matplotlib  # here and not above: `import mow` should not wait for it
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # the reader's own matplotlibrc must not change the report
        matplotlib.rcParams.update(_LOOK)
        figure = Figure(figsize=(4.7, 2.9), layout="constrained")
        _draw(figure.subplots(), curve, train, test)
        return _inline(figure, curve.heading)


def _draw(
    axes: Axes,
    curve: _Curve,
    train: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
) -> None:
    x, mean, low, high = train
    if len(x):
        axes.fill_between(x, low, high, color=_TRAIN, alpha=0.16, linewidth=0)
        axes.plot(x, mean, color=_TRAIN, linewidth=1.4, marker="o" if len(x) == 1 else None, label="training")
    if len(test[0]):
        axes.plot(*test, color=_TEST, linewidth=0.9, marker="o", markersize=3.2, label="test")
    if len(x) and len(test[0]):
        axes.legend(loc="upper right")
    axes.set_xlabel("pictures seen")
    axes.set_ylabel(curve.axis)
    axes.xaxis.set_major_locator(_nice_steps(5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
    values = np.concatenate([mean, low, high, test[1]])
    if curve.log and values.min() > 0:
        _logarithmic(axes, values.min(), values.max())
    else:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.6g}")
        axes.yaxis.set_major_locator(_nice_steps(6))
        if values.min() >= 0:
            axes.set_ylim(bottom=0)


def _nice_steps(most: int) -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(most, steps=[1, 2, 2.5, 5, 10])


def _logarithmic(axes: Axes, low: float, high: float) -> None:
    """A logarithmic axis from a 1, 2 or 5 below the values to one above, so that there are always two ticks to read."""
    from matplotlib.ticker import FixedLocator, NullLocator

    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 2)
    marks = np.array([float(f"{digit}e{decade}") for decade in decades for digit in (1, 2, 5)])
    bottom, top = marks[marks <= low].max(), marks[marks >= high].min()
    if top == bottom:
        top = marks[marks > bottom].min()
    marks = marks[(marks >= bottom) & (marks <= top)]
    if len(marks) > 9:
        marks = np.array([mark for mark in marks if f"{mark:e}".startswith("1.0")])
    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    axes.yaxis.set_major_locator(FixedLocator(marks[:: -(-len(marks) // 9)].tolist()))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def _inline(figure: Figure, name: str) -> str:
    """The figure as an <svg> element in the page's own colours, its ids made unique within the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    prefix = re.sub(r"\W+", "-", name.lower())
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    return svg


# Words and figures --------------------------------------------------------------------------------------------------


def _last(log: Mapping[str, np.ndarray], name: str) -> float:
    """The last finite value of a column, NaN where there is none."""
    values = log.get(name, np.empty(0))
    return float(next(filter(math.isfinite, values[::-1]), math.nan))


def _label(name: str) -> str:
    bare = name.removeprefix("test_")
    return _METRICS.get(bare, bare.replace("_", " "))


def _figure(value: float) -> str:
    """Four significant digits: 17.30, 0.01734, 1.200e-07."""
    return f"{value:#,.4g}" if math.isfinite(value) else "–"


def _course(values: np.ndarray) -> str:
    """Where a curve began and where it ended."""
    return f"{values[-1]:.3g}" if len(values) == 1 else f"{values[0]:.3g} → {values[-1]:.3g}"


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _text(value: object) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value))
    return str(value)


# The page -----------------------------------------------------------------------------------------------------------

_STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1b1d22; --soft: #5c616b; --line: #e4e4df;
  --train: #2f62c9; --test: #c2500a;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14161a; --card: #1b1e24; --ink: #e8e8e4; --soft: #a2a8b3; --line: #32363f;
    --train: #86acff; --test: #ffa35c;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem clamp(1rem, 4vw, 2.5rem) 4rem; max-width: 68rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
}
h1 { margin: 0; font-size: clamp(1.6rem, 5vw, 2.3rem); line-height: 1.15; letter-spacing: -0.02em; }
h2 { margin: 0 0 0.75rem; font-size: 1.15rem; letter-spacing: -0.01em; }
header p { margin: 0.6rem 0 0; max-width: 44rem; color: var(--soft); font-size: 1.05rem; }
h1, p, td, dd { overflow-wrap: anywhere; }
section { margin-top: 2.75rem; }
section > p { margin: 0 0 1rem; max-width: 44rem; color: var(--soft); font-size: 0.9rem; }
.headline { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 0.75rem; margin: 2rem 0 0; }
.headline div { padding: 0.8rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem; }
dt { color: var(--soft); font-size: 0.82rem; line-height: 1.3; }
dd { margin: 0.2rem 0 0; font-size: 1.4rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.25; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0.75rem; }
figure { margin: 0; }
.curves figure {
  padding: 0.9rem 1rem 0.6rem; background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
}
.curves svg { display: block; width: 100%; height: auto; margin-top: 0.4rem; }
figcaption { color: var(--soft); font-size: 0.9rem; font-variant-numeric: tabular-nums; }
figcaption b { color: var(--ink); font-weight: 600; }
.curves b { display: block; }
.pictures { display: flex; flex-wrap: wrap; gap: 1.75rem 2rem; align-items: flex-start; }
.pictures img { display: block; width: 100%; height: auto; margin-bottom: 0.6rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 2rem 0.35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; white-space: nowrap; }
.words td:first-child { color: var(--soft); white-space: nowrap; }
.numbers :is(th, td) { padding: 0.35rem 0 0.35rem clamp(0.8rem, 3vw, 2rem); text-align: right; white-space: nowrap; }
.numbers :is(th, td):first-child { padding-left: 0; }
pre {
  margin: 0; padding: 0.9rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 0.6rem;
  font-size: 0.85rem; white-space: pre-wrap; overflow-wrap: anywhere;
}
@media print { section, figure { break-inside: avoid; } }
"""

# The policy lets the page load nothing from anywhere, whatever finds its way into it; the empty icon spares a request.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
