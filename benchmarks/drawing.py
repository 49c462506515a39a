"""How figures are drawn: one look, and the same bytes for the same results."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SALT = "mow-kernels"


def style() -> AbstractContextManager[None]:
    """The look of figures that are made inside."""
    return matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False})


def grid(panel: Axes) -> None:
    """Grey lines behind the curves."""
    panel.grid(which="major", color="#e6e6e6", linewidth=0.8)
    panel.set_axisbelow(True)


def svg(figure: Figure, salt: str = SALT, **options: Any) -> bytes:
    """The figure as SVG, without a date; `salt` makes the names inside it, `options` are those of `savefig`."""
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": salt}):
        figure.savefig(content, format="svg", metadata={"Date": None}, **options)
    return content.getvalue()
