"""What a larger window buys: `python -m benchmarks.larger_windows run`, then `report` for docs/larger-windows.md.

The same pictures in the same order of each seed, and the same number of them, for windows of n, in three ways: one new
picture a step; the same, with the whole window encoded again every 64 steps; and k = n / 64.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from scipy import stats

from benchmarks import record
from benchmarks.report import table
from mow.app import grid, reproduce
from mow.app.files import write_whole
from mow.app.run import Options

RESULTS = record.RESULTS / "larger-windows.json"
PAGE = record.ROOT / "docs" / "larger-windows.md"
SIZES = (64, 256, 1024, 4096)
AGE = 64
"""Steps that the oldest row of a window lives through in the second and the third way."""
SEEDS = (0, 1, 2)
WAYS = ("one", "refreshed", "passed")
COLUMNS = {
    "test_cwae_distance_exact": ("exact Cramer-Wold distance", 1e4),
    "test_mmd": ("MMD", 1e4),
    "test_sliced_wasserstein": ("sliced-Wasserstein", 1e4),
    "test_reconstruction": ("reconstruction", 1),
}
"""Score -> its heading, and what it is multiplied by there."""

app = typer.Typer(help=__doc__, add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


def cells(pictures: int, sizes: Sequence[int] = SIZES, seeds: Sequence[int] = SEEDS) -> list[grid.Cell]:
    """The largest windows first: they take the longest."""
    return [
        grid.Cell(f"n={n}-{way}-seed={seed}", _options(n, way, seed, pictures))
        for n in sorted(sizes, reverse=True)
        for way in (WAYS if n > AGE else ("one",))
        for seed in seeds
    ]


def _options(n: int, way: str, seed: int, pictures: int) -> Options:
    k = n // AGE if way == "passed" else 1
    steps = math.ceil(pictures / k)
    third = math.ceil(steps / 3)
    rare = {"evaluate_every": third, "checkpoint_every": third, "log_every": math.ceil(steps / 60)}
    refresh = AGE if way == "refreshed" else None
    return Options(
        model="cwae", data="fashion-mnist", n=n, k=k, seed=seed, steps=steps, refresh=refresh, threads=1, **rare
    )


def _way(found: Mapping[str, Any]) -> str:
    options = found["resolved"]
    return "passed" if options["k"] > 1 else "refreshed" if options["refresh"] else "one"


@app.command()
def run(
    out: Annotated[Path, typer.Option(help="The folder of the runs.")] = Path("runs/larger-windows"),
    pictures: Annotated[int, typer.Option(help="That each run sees.")] = 60_000,
    jobs: Annotated[int | None, typer.Option(help="Runs at a time; as many as cores by default.")] = None,
) -> None:
    """Train, go on where it was interrupted, and keep the scores in the repository."""
    console = Console()

    def tell(name: str, kind: str, what: Any) -> None:
        if kind != "step":
            console.print(name, kind, what if kind == "failed" else "", highlight=False)

    found = grid.run_cells(cells(pictures), out, jobs=jobs, on_event=tell)
    content = {**record.head("python -m benchmarks.larger_windows run", 0), "runs": []}
    content["runs"] = [reproduce.public(found[name]) for name in sorted(found)]
    write_whole(RESULTS, json.dumps(content, indent=1) + "\n")


@app.command()
def report() -> None:
    """docs/larger-windows.md from the scores."""
    write_whole(PAGE, page(json.loads(RESULTS.read_text(encoding="utf-8"))))


def page(content: Mapping[str, Any]) -> str:
    """The page: for each way a table of means, and one of differences to the smallest window, seed by seed."""
    runs = sorted(content["runs"], key=lambda found: (found["resolved"]["n"], found["resolved"]["seed"]))
    smallest = runs[0]["resolved"]["n"]
    first = [found for found in runs if found["resolved"]["n"] == smallest]
    tables = {}
    for way in WAYS:
        of_way = [found for found in runs if found not in first and _way(found) == way]
        tables[f"{way}_means"], tables[f"{way}_differences"] = _tables(first + of_way, first)
    about = {name: runs[0][name] for name in ("data", "pictures")}
    return _PAGE.format(smallest=smallest, age=AGE, lr=runs[0]["resolved"]["lr"], **about, **tables)


def _tables(runs: Sequence[Mapping[str, Any]], first: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Means of these runs, and differences to those of `first`."""
    by_size: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for found in runs:
        by_size.setdefault((found["resolved"]["n"], found["resolved"]["k"]), []).append(found)
    heads = ["n", "k", *(_heading(score) for score in COLUMNS)]
    means = [
        [str(n), str(k), *(_mean([found[score] for found in several], COLUMNS[score][1]) for score in COLUMNS),
         str(len(several))]
        for (n, k), several in by_size.items()
    ]  # fmt: skip
    differences = [
        [str(n), str(k), *(_paired(several, first, score) for score in COLUMNS)]
        for (n, k), several in by_size.items()
        if several[0] is not first[0]
    ]
    return table([*heads, "seeds"], means), table(heads, differences)


_PAGE = """\
# What a larger window buys

Generated by `python -m benchmarks.larger_windows report` from
[`larger-windows.json`](../benchmarks/results/larger-windows.json); not to be edited.

A Cramer-Wold auto-encoder (784-200-200-200-8 and back, logarithm of the distance, compensated weighting, Adam, the
paper's re-encoding) on {data}, {pictures:,} pictures. Only the window differs; with [running sums](running-sums.md) a
step over 4,096 latents costs little more than one over 64.

Scores are those of `mow evaluate` on the test pictures: distances of 2,000 latents to N(0, I), which are not zero at a
perfect prior (the exact Cramer-Wold distance is 4.5e-4 there), and the sum of squares a picture. The mean over the
seeds, and in brackets the least and the most.

**In short**: by itself a larger window loses at k = 1, the more the larger it is, and the age of its rows is why. With
rows that are encoded again in time (`refresh`) most of the loss is gone, and a window of 256 does a little better than
one of 64; beyond that nothing was gained at this length.

## One new picture a step

The learning rate is {lr:g}, the default at k = 1, for all of them.

{one_means}

The same, less that of n = {smallest} with the same seed: the mean difference and its 95 % interval (Student's t over
the seeds). Below zero the larger window is better.

{one_differences}

Two things change with n. A larger window has less sampling noise, and less of the bias that the distance of a small
sample has; but its older latents come from older weights: at k = 1 a window of 4,096 remembers 4,096 steps, and the
encoder answers to what it was, not to what it is.

## The window encoded again every {age} steps

`refresh={age}`: the pictures of the whole window are encoded again every {age} steps, without a gradient, so that no
row is older than that.

{refreshed_means}

Less that of n = {smallest} without, with the same seed:

{refreshed_differences}

## Windows that are passed through in {age} steps

k = n / {age}, so that the oldest latent is as many steps old in all of them; the learning rate is the default for
that k, which grows with its square root. There are k times fewer steps.

{passed_means}

Less that of n = {smallest}, k = 1 with the same seed:

{passed_differences}
"""


def _heading(score: str) -> str:
    name, scale = COLUMNS[score]
    return name if scale == 1 else f"{name}, x {scale:.0e}".replace("e+0", "e")


def _mean(values: Sequence[float], scale: float) -> str:
    scaled = [scale * value for value in values]
    return f"{_number(statistics.mean(scaled))} ({_number(min(scaled))} – {_number(max(scaled))})"


def _paired(several: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], score: str) -> str:
    base = {found["resolved"]["seed"]: found[score] for found in others}
    both = [found for found in several if found["resolved"]["seed"] in base]
    differences = [COLUMNS[score][1] * (found[score] - base[found["resolved"]["seed"]]) for found in both]
    if len(differences) < 2:
        return "-"
    half = stats.t.ppf(0.975, len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    return f"{_number(statistics.mean(differences), '+')} ± {_number(half, digits=2)}"


def _number(value: float, sign: str = "", digits: int = 3) -> str:
    return f"{value:{sign}.{digits}g}" if abs(value) < 100 else f"{value:{sign},.0f}"


if __name__ == "__main__":
    app()
