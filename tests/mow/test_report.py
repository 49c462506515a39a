from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from mow.app.pictures import grid, png_data_uri, save_png
from mow.app.report import _moving, _spread, read_metrics, write_report

HOSTILE = '</script><img src="https://example.org/x.png" onerror="alert(1)">&amp;'


def lines(count: int, every: int = 10) -> list[dict[str, float | None]]:
    log = []
    for step in range(count):
        reconstruction = 15 + 100 * math.exp(-step / 20)
        record: dict[str, float | None] = {
            "step": step + 1,
            "pictures": 4 * (step + 1),
            "loss": reconstruction - 3,
            "seconds": 0.5 * step,
        }
        record |= {"reconstruction": reconstruction, "distance": 0.5 / (1 + step)}
        if step % every == 0:
            record |= {"test_reconstruction": reconstruction + 1, "test_cramer_wold": 0.3 / (1 + step)}
        log.append(record)
    return log


def write_metrics(out: Path, log: list[dict[str, float | None]], tail: str = "") -> None:
    (out / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log) + tail)


def report(out: Path, **changes: object) -> str:
    arguments: dict = {"title": "A run", "summary": [("steps", "50")], "options": {"model": "cwae", "n": 64, "k": 1}}
    path = write_report(out, **(arguments | changes))
    assert path == (out / "report.html").resolve()
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The report of a plain run with a picture in colour."""
    out = tmp_path_factory.mktemp("run")
    write_metrics(out, lines(30))
    save_png(grid(torch.rand(4, 3, 8, 8), columns=2), out / "samples.png")
    return report(out)


class Page(HTMLParser):
    """Counts tags, and keeps their attributes and the text outside the style."""

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


def test_the_page_holds_what_it_should(tmp_path: Path) -> None:
    write_metrics(tmp_path, lines(50))
    for name in ("samples", "interpolations"):
        save_png(grid(torch.rand(4, 1, 8, 8), columns=2), tmp_path / f"{name}.png")
    options = {"model": "cwae", "data": "toy", "n": 64, "k": 1, "layers": [200, 8], "resume": None}
    html = report(tmp_path, options=options | {"command": ["mow", "train", "--data", "my pictures"]})
    page = Page(html)
    sentence = "A Cramer-Wold auto-encoder on toy with a window of n = 64 latents, k = 1 of them new at each step"
    assert sentence + ": 50 steps, 200 pictures seen, 24.5 s." in page.text.replace("\N{NO-BREAK SPACE}", " ")
    assert page.tags.count("svg") == 4 and page.tags.count("img") == 2  # no reconstructions.png, no figure
    assert png_data_uri(tmp_path / "samples.png") in html
    assert "Reconstructions." not in page.text
    assert re.search(r"<dt>steps</dt><dd>50</dd>", html)
    assert "<td>layers</td><td>200, 8</td>" in html and "<td>resume</td><td>not set</td>" in html
    assert "mow train --data 'my pictures'" in page.text and "<td>command</td>" not in html
    assert "5 of 5" not in page.text and "<td>41</td><td>164</td>" in html  # five evaluations, all in the table
    assert "training" in page.text and "test 116 → 29.5" in page.text
    assert "reconstruction: sum of squares a picture" in html and "pictures seen" in html


def test_it_needs_nothing_from_outside(page: str) -> None:
    parsed = Page(page)
    assert not {"script", "iframe", "object", "base", "form"} & set(parsed.tags)
    for tag, name, value in parsed.attributes:
        assert not name.startswith("on")
        if name in ("src", "href", "xlink:href"):
            assert value.startswith(("data:", "#")), (tag, name, value)
    assert "default-src 'none'" in page
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert set(re.findall(r"https?://[\w./]+", page)) <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_ids_are_unique_and_every_reference_hits(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    references = re.findall(r'href="#([^"]+)"', page) + re.findall(r"url\(#([^)]+)\)", page)
    assert len(ids) == len(set(ids))
    assert references and set(references) <= set(ids)


def test_the_curves_take_their_colours_from_the_page(page: str) -> None:
    drawn = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    assert {"var(--train)", "var(--test)", "var(--soft)", "var(--line)"} <= set(re.findall(r"var\(--\w+\)", drawn))
    assert not re.findall(r"[: ]#[0-9a-f]{3,6}\b", drawn)  # a fixed colour would vanish on one of the two papers
    assert "prefers-color-scheme: dark" in page


def test_what_comes_from_outside_is_escaped(tmp_path: Path) -> None:
    write_metrics(tmp_path, [{"step": 1, "pictures": 1, "loss": 1.0, f"test_{HOSTILE}": 2.0}])
    html = report(
        tmp_path,
        title=HOSTILE,
        summary=[(HOSTILE, HOSTILE)],
        options={"data": HOSTILE, HOSTILE: [HOSTILE], "command": HOSTILE},
    )
    assert "<img" not in html and "example.org/x.png&quot;" in html
    page = Page(html)
    assert page.text.count("onerror") >= 8
    assert "&amp;" in page.text  # escaped once, and not taken for an entity


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    write_metrics(tmp_path, lines(40))
    first = report(tmp_path)
    with matplotlib.rc_context({"font.size": 20, "svg.fonttype": "none", "xtick.direction": "in"}):
        assert report(tmp_path) == first
        assert matplotlib.rcParams["font.size"] == 20
    assert not re.search(r"20\d\d-\d\d-\d\d", first)


def test_a_killed_run_has_a_report(tmp_path: Path) -> None:
    write_metrics(tmp_path, lines(20), tail='{"step": 21, "pict')
    log = read_metrics(tmp_path / "metrics.jsonl")
    assert len(log["step"]) == 20 and log["step"][-1] == 20
    cut = report(tmp_path)
    write_metrics(tmp_path, lines(20))
    assert report(tmp_path) == cut


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    write_metrics(tmp_path, lines(2), tail='{"step": 3, "pict\n{"step": 4}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 3 must be a JSON object"):
        report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    write_metrics(tmp_path, [], tail="7\n")
    with pytest.raises(ValueError, match="line 1"):
        read_metrics(tmp_path / "metrics.jsonl")
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path, title="", summary=[], options={}, metrics=tmp_path / "none.jsonl")


def test_columns_come_late_and_hold_odd_values(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"a": 1}\n{"a": NaN, "b": 2}\n{"b": null}\n{"a": "x", "b": -Infinity}\n')
    log = read_metrics(tmp_path / "metrics.jsonl")
    assert list(log) == ["a", "b"]
    np.testing.assert_array_equal(log["a"], [1, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(log["b"], [np.nan, 2, np.nan, -np.inf])


def test_values_that_are_not_finite_are_counted_and_left_out(tmp_path: Path) -> None:
    log = lines(30)
    log[0] |= {"pictures": 0, "loss": None, "reconstruction": None, "distance": None}  # before the first step
    log[3]["loss"] = math.nan
    log[7]["distance"] = math.inf
    log[9]["reconstruction"] = 1e305
    write_metrics(tmp_path, log)
    html = report(tmp_path)
    assert "2 of 87 logged values are missing or not finite" in html
    assert html.count("<svg") == 4 and "nan" not in re.sub(r"<style>.*?</style>|base64,\S+", "", html, flags=re.DOTALL)


def test_evaluations_alone_have_their_curves(tmp_path: Path) -> None:
    write_metrics(tmp_path, [{"step": 0, "pictures": 0, "test_reconstruction": 3.0, "test_cramer_wold": 0.1}])
    html = report(tmp_path)
    assert html.count("<svg") == 2 and "not finite" not in html


@pytest.mark.parametrize("count", [0, 1, 2])
def test_short_runs(tmp_path: Path, count: int) -> None:
    write_metrics(tmp_path, lines(count))
    assert report(tmp_path).count("<svg") == (4 if count else 0)


@pytest.mark.parametrize(
    "values", [[0.3], [0.0, 0.1], [-0.1, 0.1], [0.31, 0.32], [1e-9, 1e6], [1e-45, 3e38], [2.0, 2.0]]
)
def test_any_distance_can_be_drawn(tmp_path: Path, values: list[float]) -> None:
    write_metrics(tmp_path, [{"pictures": i, "distance": value} for i, value in enumerate(values)])
    html = report(tmp_path)
    assert html.count("<svg") == 1
    ticks = re.findall(r'id="[\w-]*ytick_(\d+)"', html)
    assert 2 <= len(ticks) <= 9


def test_the_axis_is_logarithmic_only_where_all_is_positive(tmp_path: Path) -> None:
    def ticks(values: list[float]) -> list[str]:
        write_metrics(tmp_path, [{"pictures": i, "distance": value} for i, value in enumerate(values)])
        html = report(tmp_path)
        return re.findall(r"<!-- ([−\d.]+) -->", html)

    assert {"0.01", "0.1", "1"} <= set(ticks([1.0, 0.3, 0.1, 0.01]))
    assert "0.01" not in ticks([1.0, 0.3, 0.1, -0.01])


def test_long_runs_are_thinned(tmp_path: Path) -> None:
    count = 100_000
    line = '{"step": %d, "pictures": %d, "loss": %.3f, "reconstruction": 9, "test_reconstruction": 3}\n'
    text = "".join(line % (i, i, x) for i, x in enumerate(np.random.default_rng(0).random(count)))
    (tmp_path / "metrics.jsonl").write_text(text)
    html = report(tmp_path)
    assert len(html) < 500_000
    assert "10 of 100,000 evaluations" in html


def test_moving_means_and_quantiles() -> None:
    rng = np.random.default_rng(0)
    y = rng.exponential(size=5000) + np.linspace(50, 0, 5000)
    x, mean, low, high = _moving(2.0 * np.arange(5000), y)
    assert len(x) == 240 and x[0] == 0 and x[-1] == 2 * 4999
    middle = 100
    i = int(x[middle] / 2)
    around = y[i - 125 : i + 126]
    assert mean[middle] == pytest.approx(around.mean())
    assert [low[middle], high[middle]] == pytest.approx(np.quantile(around, [0.1, 0.9]))
    x, mean, low, high = _moving(np.arange(5.0), np.arange(5.0))
    assert (mean == np.arange(5)).all() and (low == mean).all() and (high == mean).all()


@pytest.mark.parametrize(("count", "most"), [(0, 5), (1, 5), (5, 5), (6, 5), (1000, 7)])
def test_spread_keeps_first_and_last(count: int, most: int) -> None:
    indices = _spread(count, most)
    assert len(indices) == min(count, most)
    if count:
        assert indices[0] == 0 and indices[-1] == count - 1


def test_importing_waits_for_no_matplotlib_and_nothing_for_pyplot(tmp_path: Path) -> None:
    write_metrics(tmp_path, lines(3))
    code = """
import sys
from mow.app.report import write_report
assert "matplotlib" not in sys.modules
write_report(sys.argv[1], title="", summary=[], options={})
assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)
