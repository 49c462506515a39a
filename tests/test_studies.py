"""The experiments behind the pages: each page is what its results give, and names commands that there are."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import typer

pytest.importorskip("scipy")

from benchmarks import ROOT, page, record
from benchmarks import report as benchmarks_report
from studies import demo_runs
from studies.choosing import report as choosing
from studies.core_sets import report as core_sets
from studies.cuda import __main__ as cuda
from studies.distributed import report as distributed
from studies.high_resolution import report as high_resolution
from studies.kernels import report as kernels
from studies.larger_windows import report as larger_windows
from studies.micro_batches import report as micro_batches
from studies.neighbours import report as neighbours
from studies.pythae import report as pythae
from studies.reproduction import report as reproduction
from studies.steps import report as steps

REPORTS = [core_sets, cuda, distributed, high_resolution, kernels, larger_windows, micro_batches, neighbours, pythae]
REPORTS += [choosing, reproduction, steps]
COMMAND = re.compile(r"python -m ((?:benchmarks|studies)(?:\.[a-z_]+)?)\b(?!\.)(?: ([a-z]+)\b)?")


@pytest.mark.parametrize(
    "report",
    [pytest.param(each, id=each.PAGE, marks=[pytest.mark.long] * (each is neighbours)) for each in REPORTS],  # ten fits
)
def test_a_page_is_what_its_results_give(report, tmp_path: Path) -> None:
    shown = (page.DOCS / report.PAGE).read_text(encoding="utf-8")
    copy = tmp_path / report.PAGE
    copy.parent.mkdir(exist_ok=True)
    copy.write_text(
        re.sub(r"(:start -->\n).*?(<!-- \w+:end)", r"\1stale\n\2", shown, flags=re.DOTALL), encoding="utf-8"
    )
    own = Path(report.__file__).parent
    written = report.write(own.parent if report is choosing else own / "results", tmp_path)
    assert written[-1] == copy and copy.read_text(encoding="utf-8") == shown
    for image in written[:-1]:
        assert image.parent == tmp_path / "images" and (page.DOCS / "images" / image.name).exists()


def test_the_benchmarks_are_those_of_the_newest_record(tmp_path: Path) -> None:
    (tmp_path / "speed.md").write_text(speed := page.SPEED.read_text(encoding="utf-8"), encoding="utf-8")
    benchmarks_report.write_report(record.newest(), tmp_path / "docs", tmp_path / "speed.md")
    assert (tmp_path / "docs" / "benchmarks.md").read_text() == (page.DOCS / "benchmarks.md").read_text()
    assert (tmp_path / "speed.md").read_text(encoding="utf-8") == speed


@pytest.mark.parametrize("folder", ["benchmarks", "studies/distributed"])
def test_one_record_a_kind_of_machine_is_kept(folder: str) -> None:
    machines = [record.read(path)["machine"]["cpu"] for path in (ROOT / folder / "results").glob("*.json")]
    assert machines and len(set(machines)) == len(machines)


def named() -> Iterator[tuple[str, str | None]]:
    """Module and command of every command line that a page or the Makefile names."""
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *page.DOCS.rglob("*.md")]:
        for found in COMMAND.finditer(path.read_text(encoding="utf-8")):
            yield found[1], found[2]


def test_every_command_that_is_named_is_there() -> None:
    found = set(named())
    assert len(found) > 15
    for module, command in found:
        main = importlib.import_module(f"{module}.__main__")
        if isinstance(app := getattr(main, "app", None), typer.Typer) and command:
            assert command in {c.name or c.callback.__name__ for c in app.registered_commands}, (module, command)


def test_every_study_is_behind_a_page_that_is_there() -> None:
    pages = {path.stem.replace("-", "_").lower() for path in [page.README, *page.DOCS.rglob("*.md")]}
    studies = {path.parent.name for path in (ROOT / "studies").glob("*/__main__.py")}
    assert len(studies) > 10 and studies <= pages


@pytest.mark.parametrize(
    ("folder", "others"),
    [("benchmarks", "studies"), ("mow", "benchmarks|studies"), ("mow_kernels", "benchmarks|studies|mow")],
)
def test_who_imports_whom(folder: str, others: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            assert not [name for name in names if re.fullmatch(rf"({others})(\..*)?", name)], path


# What fills a page


@pytest.mark.parametrize("text", ["nothing", "<!-- a:start -->", "<!-- a:end -->\n<!-- a:start -->"])
def test_a_page_without_its_markers_is_left_alone(text: str, tmp_path: Path) -> None:
    (path := tmp_path / "page.md").write_text(f"<!-- b:start --><!-- b:end -->{text}")
    with pytest.raises(ValueError, match="lacks the markers <!-- a:start -->"):
        page.fill(path, {"b": "new", "a": "new"}, {"a.svg": b"new"})
    assert "new" not in path.read_text() and list(tmp_path.iterdir()) == [path]


def test_the_readme_has_a_place_for_a_run() -> None:
    assert page.splice(page.README.read_text(encoding="utf-8"), "demo", "TABLE").count("TABLE") == 1


@pytest.mark.parametrize(
    ("write", "value", "expected"),
    [
        (page.duration, 31.25, "31.2 µs"),
        (page.duration, 1500.0, "1.5 ms"),
        (page.duration, 2.5e8, "250 s"),
        (page.size, None, "-"),
        (page.size, 1536.0, "1.5 GiB"),
        (page.row, ["a|b", "c"], "| a/b | c |"),
    ],
)
def test_how_it_is_written(write: Callable, value: object, expected: str) -> None:
    assert write(value) == expected


def test_a_spread_names_the_ends() -> None:
    assert page.spread([3.0, 1.0, 8.0], ".1f") == "4.0 (1.0 – 8.0)"
    assert page.spread([3.0, 1.0, 8.0], lambda x: f"{x:g}", max, "to") == "8 (1 to 8)"


def test_a_run_is_kept_for_a_page(tmp_path: Path) -> None:
    run, results, docs = (tmp_path / name for name in ("run", "results", "docs"))
    run.mkdir()
    (docs / "images").mkdir(parents=True)
    for name in ("coreset.json", "coreset.png", "other.png"):
        (run / name).write_text(name)
    assert demo_runs.copy(run, "coreset", results, docs) == [results / "coreset.json", docs / "images" / "coreset.png"]
    assert [path.read_text() for path in (results / "coreset.json", docs / "images" / "coreset.png")] == [
        "coreset.json",
        "coreset.png",
    ]
