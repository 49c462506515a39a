"""What the pages made from results have in common: text between markers, tables, and how a number is written."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from mow.files import write_whole

DOCS, README = ROOT / "docs", ROOT / "README.md"
SPEED = DOCS / "speed.md"
"""Has the main table of the benchmarks."""


def splice(text: str, name: str, content: str) -> str:
    """The text with what stands between `<!-- name:start -->` and `<!-- name:end -->` replaced.

    Raises:
        ValueError: a marker is missing, or they stand in the wrong order.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    before, found_start, rest = text.partition(start)
    _, found_end, after = rest.partition(end)
    if not (found_start and found_end):
        raise ValueError(f"the page lacks the markers {start} and, after it, {end}")
    return f"{before}{start}\n{content}\n{end}{after}"


def fill(page: Path, sections: Mapping[str, str], images: Mapping[str, str | bytes] | None = None) -> list[Path]:
    """Replace sections of a page, name -> content, and its images, file name -> content. Returns what was written.

    Raises:
        FileNotFoundError: there is no such page.
        ValueError: it lacks a marker. Nothing is written in either case.
    """
    text = page.read_text(encoding="utf-8")
    for name, content in sections.items():
        text = splice(text, name, content)
    return write(page, text, images)


def write(page: Path, text: str, images: Mapping[str, str | bytes] | None = None) -> list[Path]:
    """Write a whole page, and its images into the folder of that name beside it. Returns what was written."""
    images, folder = images or {}, page.parent / "images"
    (folder if images else page.parent).mkdir(parents=True, exist_ok=True)
    return [*(write_whole(folder / name, content) for name, content in images.items()), write_whole(page, text)]


def about(content: Mapping[str, Any], measured: Sequence[Mapping[str, Any]] = ()) -> str:
    """What a record was measured on and with.

    Args:
        content: the record, with what `record.head` gives.
        measured: entries with the load average before and after them, whose range is told.
    """
    machine, versions = content["machine"], content["versions"]
    commit = f"commit {content['commit'][:10]}" if content["commit"] else "no commit"
    packages = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    loads = [entry[when][0] for entry in measured for when in ("load_before", "load_after")]
    load = f", load average {min(loads):g} to {max(loads):g}" if loads else ""
    return (
        f"{machine['cpu']} ({machine['instructions']}), {cores(machine['cores'])}, {machine['memory_gib']:g} GiB, "
        f"{machine['system']}{load}. {content['created'][:10]}, {commit}{' with changes' * content['dirty']}, "
        f"seed {content['seed']}; {packages}. Made with `{content['command']}`."
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown: the first column to the left, the others to the right."""
    return "\n".join(row(line) for line in [heads, ["---", *["---:"] * (len(heads) - 1)], *rows])


def row(cells: Iterable[str]) -> str:
    """A line of a table; what would end a cell becomes a slash."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def duration(us: float) -> str:
    """Microseconds in the unit that suits them."""
    for unit, size_of in (("s", 1e6), ("ms", 1e3)):
        if us >= size_of:
            return f"{figures(us / size_of)} {unit}"
    return f"{figures(us)} µs"


def ratio(found: Mapping[str, float] | None, spread: bool) -> str:
    """A median, with the range from p20 to p80 if asked for; "-" for none."""
    if found is None:
        return "-"
    text = f"{figures(found['median'])}×"
    return f"{text} ({figures(found['p20'])} – {figures(found['p80'])})" if spread else text


def figures(value: float) -> str:
    """Three significant digits below 100, no fraction above."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def size(mib: float | None) -> str:
    """MiB in the unit that suits them; "-" for none."""
    if mib is None:
        return "-"
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def cores(count: int) -> str:
    return f"{count} core{'s' * (count != 1)}"


def spread(
    values: Sequence[float],
    written: str | Callable[[float], str],
    middle: Callable[[Sequence[float]], float] = statistics.mean,
    to: str = "–",
) -> str:
    """The middle of values, and in brackets the least and the most.

    Args:
        written: how a number is written: a format such as ".3f", or a function.
    """
    show = written if callable(written) else lambda value: format(value, written)
    return f"{show(middle(values))} ({show(min(values))} {to} {show(max(values))})"
