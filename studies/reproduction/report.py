"""The tables and the plot of docs/reproduction.md, from the results."""

from __future__ import annotations

import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks import ROOT, drawing, record
from benchmarks.page import fill, row
from mow.app import grid, paper, reproduce
from mow.app.data import COLLECTIONS
from mow.files import read_json_lines, write_whole
from studies.paired import interval
from studies.reproduction import experiment
from studies.reproduction.tables import CHANGES, MISSING

PAGE = "reproduction.md"
STEPS = ROOT / "studies" / "steps" / "results"
Runs = list[dict[str, Any]]

CURVE_SCORES = (("reconstruction", ".2f"), ("Cramer-Wold distance", ".5f"))
SCORES = {
    "test_cwae_distance_exact": ("Cramer-Wold distance, mean of 5 subsets", ".5f"),
    "test_cwae_distance": ("CWAE distance of the tables", ".4f"),
    "test_mmd": ("MMD", ".4f"),
    "test_sliced_wasserstein": ("sliced-Wasserstein", ".4f"),
    "test_frechet_classifier": ("Fréchet, classifier", ".1f"),
}
HALF_WAY = {"reconstruction": ".2f", "cramer_wold": ".5f"}

_CHANGES = {
    "reference": "reference weighting (the paper's is the same at k = 1)",
    "no-reencode": "no re-encoding",
    "refresh": "the whole window encoded again every 16 steps",
    "betas": "both betas of Adam forget as many pictures as at k = 64",
    "beta2": "beta2 of Adam forgets as many pictures as at k = 64",
    "sampled-prior": "prior sampled afresh at each step",
    "no-warm-up": "no warm-up: the window grows from empty",
}


def collect(folder: Path, results: Path) -> list[Path]:
    """The runs of a folder, as a file of results for each stage. Of unfinished ones there are curves alone."""
    stages: dict[str, Runs] = {"select": [], "compare": [], "variant": [], "weight": []}
    for path in sorted(folder.glob("*/metrics.jsonl")):
        stage = path.parent.name.partition("-")[0]
        if stage in stages and (run := _kept(path.parent)):
            stages[stage].append(run)
    return [write_whole(results / f"{stage}.json", _lines(runs)) for stage, runs in stages.items() if runs]


def write(results: Path, docs: Path) -> list[Path]:
    """Make the plot and replace what stands between the markers of the page. Returns what was written.

    Raises:
        FileNotFoundError: no page, or no comparison.
        ValueError: the page lacks a marker; nothing is written then.
    """
    stages = {
        stage: json.loads(path.read_text()) if (path := results / f"{stage}.json").exists() else []
        for stage in ("select", "compare", "variant", "weight")
    }
    if not stages["compare"]:
        raise FileNotFoundError(f"{results} holds no compare.json; make it: python -m studies.reproduction run")
    kept = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("table?*.json"))}
    short = {what: with_changes(what, kept) for what in paper.TABLES}
    longer = [found for name, found in kept.items() if name.endswith("-long")]
    every = [*short.values(), *longer]
    sections = {
        "convolutions": convolutions(STEPS, kept.get("table2-convolutions")),
        "setup": setup(stages["compare"]),
        "select": selection_table(stages["select"]),
        "compare": comparison_tables(stages["compare"]),
        "variants": variants_table(stages["variant"], stages["compare"]),
        "weights": weights_table(stages["weight"]),
        "published": paired_table(every, lambda row: [((row, "published"), (row, of)) for of in OURS]),
        "one": paired_table(every, lambda row: _one_against_many(row, OURS)),
        "weakness": paired_table(every, lambda row: _one_against_many(row, ["published"])),
        "heads": heads(longer),
        "tables": tables(short.values()),
    }
    images = {"reproduction.png": draw(stages["compare"])}
    shown = {name: found for name, found in short.items() if found["results"]}
    shown |= {name: found for name, found in kept.items() if heads([found]) != NOT_YET}
    images |= {f"reproduction-{name}.png": reproduce.draw(found) for name, found in shown.items()}
    return fill(docs / PAGE, sections, images)


OURS = {
    "ours": "ours",
    "ours-earlier": "half the rate, lambda = 1",
    "ours-root": "half the rate, root, lambda = 1",
    "ours-lambda3": "half the rate, lambda = 3",
}
"""The defaults and each of `CHANGES` from them, to what they are called."""


def with_changes(what: str, kept: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """The report of a table together with its runs of `CHANGES`, as recipes of their own: ours-CHANGE."""
    nothing = reproduce.report(what, {}, MISSING)
    found = kept.get(what, nothing)
    results, also = dict(found["results"]), {}
    for change in CHANGES:
        changed = kept.get(f"{what}-{change}", nothing)["results"]
        results |= {cell.replace("-ours-", f"-ours-{change}-"): result for cell, result in changed.items()}
        also |= {f"ours-{change}": OURS[f"ours-{change}"]} if changed else {}
    return {**found, "results": results, "also": also}


def convolutions(steps: Path, found: dict[str, Any] | None) -> str:
    """Why the paper's network for Fashion-MNIST is not run for long: what a step of it takes, as `studies.steps`
    measured; and how far it got."""
    schedule, ks = paper.SCHEDULES["fashion-mnist"], (64, 1)
    records = [record.read(steps / f"{schedule.architecture}-Adam-k{k}.json") for k in ks]
    many, one = (content["seconds"]["ours"]["median"] for content in records)
    epochs = [seconds * 60_000 / k / 3600 for seconds, k in zip((many, one), ks, strict=True)]
    cpu, weights = records[0]["machine"]["cpu"], sum(records[0]["weights"])
    days = [hours * schedule.epochs / 24 for hours in epochs]
    why = (
        f"The paper's convolutions for Fashion-MNIST have {weights / 1e6:.0f} million weights. A step "
        f"of them takes {many:.1f} s at k = 64 and {one:.2f} s at k = 1, by one thread of an {cpu} "
        f"([steps](steps.md)), so that an epoch takes {epochs[0]:.1f} and {epochs[1]:.1f} hours, and the paper's "
        f"{schedule.epochs:g} epochs {days[0]:.0f} and {days[1]:.0f} days. They wait for a GPU; the network of MNIST "
        "stands in for them here."
    )
    if found is None:
        return why
    runs = sorted(found["results"].values(), key=lambda run: -run["resolved"]["k"])
    lines = [
        f"How far they got, passes in bfloat16, {runs[0]['resolved']['model'].upper()}, seed "
        f"{runs[0]['resolved']['seed']}, our defaults: a beginning, with more steps and more time for k = 1.",
        "",
        row(["k", "steps", "pictures", "minutes", *(title for title, _ in _WEIGHED.values())]),
        "|---:" * (4 + len(_WEIGHED)) + "|",
    ]
    for run in runs:
        scores = (f"{run[score]:{form}}" for score, (_, form) in _WEIGHED.items())
        k, counts = run["resolved"]["k"], (f"{run[name]:,}" for name in ("step", "pictures"))
        lines.append(row([str(k), *counts, f"{run['seconds'] / 60:.0f}", *scores]))
    return "\n".join([why, "", *lines])


def setup(compared: Runs) -> str:
    """What every run of the comparison had in common."""
    finished = [run for run in compared if run["finished"]]
    seconds = {k: statistics.median(run["seconds"] for run in finished if run["k"] == k) for k in (1, 64)}
    return (
        f"{finished[0]['data']}; n = 64, D = 8, Adam, compensated weighting, prior in closed form, seeds "
        f"{', '.join(map(str, sorted({run['seed'] for run in compared})))}. A run of "
        f"{max(run['pictures'] for run in finished):,} pictures with k = 1 took {seconds[1]:,.0f} s and with k = 64 "
        f"{seconds[64]:,.0f} s, by one thread of a busy machine, which compares no speeds."
    )


def selection_table(runs: Runs) -> str:
    """The cost on the part held out for choosing, for each multiple of the default learning rate."""
    finished = [run for run in runs if run["finished"]]
    multiples = sorted({_multiple(run) for run in finished})
    head = ["", "k", *(f"x {multiple:g}" for multiple in multiples)]
    lines = [row(head), "|---" * 2 + "|---:" * len(multiples) + "|"]
    for model in dict.fromkeys(run["model"] for run in finished):
        for k in (64, 1):
            costs = {_multiple(run): run["test_cost"] for run in finished if (run["model"], run["k"]) == (model, k)}
            least = min(costs.values(), default=math.nan)
            cells = [f"{costs[m]:.2f}" if m in costs else "" for m in multiples]
            cells = [f"**{cell}**" if cell and float(cell) == round(least, 2) else cell for cell in cells]
            lines.append(row([model.upper(), str(k), *cells]))
    for run in runs:
        if not run["finished"] and len(run["curve"]) > 1:
            lines += ["", _stopped(run, finished)]
    return "\n".join(lines)


def _stopped(run: dict[str, Any], finished: Runs) -> str:
    """Why a run of the selection went no further."""
    pictures, *scores = run["curve"][-1]
    others = [other for other in finished if (other["model"], other["k"]) == (run["model"], run["k"])]
    best = min(others, key=lambda other: other["test_cost"])
    words = [
        f"{reconstruction:.2f} and {distance:.4f} at x {_multiple(of):g}"
        for of, (reconstruction, distance) in ((run, scores), (best, _at(best, pictures)))
    ]
    return (
        f"{run['model'].upper()}, k = {run['k']}, x {_multiple(run):g} was stopped at {pictures:,} pictures, where "
        f"reconstruction and Cramer-Wold distance were {', against '.join(words)}."
    )


def comparison_tables(runs: Runs) -> str:
    """Means over the seeds, and the paired difference k = 1 less k = 64 with its interval."""
    parts = []
    for model in dict.fromkeys(run["model"] for run in runs):
        of = {(run["k"], run["seed"]): run for run in runs if run["model"] == model}
        seeds = sorted(seed for k, seed in of if k == 1 and (64, seed) in of)
        lr = {k: of[k, seeds[0]]["lr"] for k in (64, 1)}
        lines = [
            f"{model.upper()}, learning rates {lr[64]:.3g} (k = 64) and {lr[1]:.3g} (k = 1):",
            "",
            "| pictures seen | score | seeds | k = 64 | k = 1 | k = 1 less k = 64 | k = 1 is |",
            "|---:|---|---:|---:|---:|---:|---|",
        ]
        for place in range(1, max(len(of[1, seed]["curve"]) for seed in seeds)):
            there = [seed for seed in seeds if len(of[1, seed]["curve"]) > place]
            pictures = of[1, there[0]]["curve"][place][0]
            for column, (title, form) in enumerate(CURVE_SCORES, 1):
                values = {k: [of[k, seed]["curve"][place][column] for seed in there] for k in (64, 1)}
                lines += _compared(f"{pictures:,}" if column == 1 else "", title, form, values)
        done = [seed for seed in seeds if of[1, seed]["finished"] and of[64, seed]["finished"]]
        for score, (title, form) in SCORES.items():
            values = {k: [of[k, seed][score] for seed in done] for k in (64, 1)}
            lines += _compared("at the end", title, form, values)
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _compared(pictures: str, title: str, form: str, values: dict[int, list[float]]) -> list[str]:
    if not values[1]:
        return []
    differences = [b - a for a, b in zip(values[64], values[1], strict=True)]
    if len(differences) == 1:
        difference, verdict = f"{differences[0]:+{form}}", ""
    else:
        low, mean, high = interval(differences)
        difference = f"{mean:+{form}} [{low:+{form}}, {high:+{form}}]"
        verdict = "better" if high < 0 else "worse" if low > 0 else "not told apart"
    cells = [f"{statistics.fmean(values[k]):{form}}" for k in (64, 1)]
    return [row([pictures, title, str(len(values[1])), *cells, difference, verdict])]


def variants_table(runs: Runs, compared: Runs) -> str:
    """Each change against the runs of the comparison with the same seed, at the same number of pictures."""
    if not runs:
        return "Not measured."
    lines = [
        row(
            [
                f"{runs[0]['model'].upper()}, k = 1, at {runs[0]['pictures']:,} pictures",
                "seeds",
                *(name.replace("_", "-") + ", changed less unchanged" for name in HALF_WAY),
            ]
        ),
        "|---|---|" + "---:|" * len(HALF_WAY),
    ]
    base = {(run["model"], run["seed"]): run for run in compared if run["k"] == 1}
    plain = []
    for change, title in _CHANGES.items():
        mine = [run for run in runs if run["name"].split("-", 2)[2].rpartition("-seed")[0] == change]
        pairs = [(_at(base[run["model"], run["seed"]], run["pictures"]), _at(run, run["pictures"])) for run in mine]
        if len(pairs) < 2:
            continue
        cells = []
        for column, form in enumerate(HALF_WAY.values()):
            low, mean, high = interval([b[column] - a[column] for a, b in pairs])
            cells.append(f"{mean:+{form}} [{low:+{form}}, {high:+{form}}]")
        plain = [statistics.fmean(a[column] for a, _ in pairs) for column in range(2)]
        lines.append(row([title, str(len(pairs)), *cells]))
    words = ", ".join(
        f"{name.replace('_', '-')} {value:{form}}" for (name, form), value in zip(HALF_WAY.items(), plain, strict=True)
    )
    return "\n".join([*lines, "", f"Unchanged, the mean over the seeds is: {words}."])


def weights_table(runs: Runs) -> str:
    """The mean scores on the part held out for choosing, for each way to weigh the distance."""
    groups: dict[tuple[str, int, str], Runs] = {}
    for run in runs:
        if run["finished"]:
            groups.setdefault((run["model"], run["k"], _way(run)), []).append(run)
    lines = [
        row(["", "k", "", "seeds", *(title for title, _ in _WEIGHED.values())]),
        "|---|---:|---|---:|" + "---:|" * len(_WEIGHED),
    ]
    ways = list(experiment.WAYS)
    for model, k, way in sorted(groups, key=lambda key: (key[0], -key[1], ways.index(key[2]))):
        several = groups[model, k, way]
        means = (f"{statistics.fmean(run[score] for run in several):{form}}" for score, (_, form) in _WEIGHED.items())
        lines.append(row([model.upper(), str(k), _WORDS.get(way, f"lambda {way[1:]}"), str(len(several)), *means]))
    return "\n".join(lines)


_WORDS = {
    "published": "the published recipe",
    "root": "root, lambda 1",
    "w5x2": "lambda 5, twice the learning rate",
    "w10x2": "lambda 10, twice the learning rate",
    "rootx2": "root, lambda 1, twice the learning rate",
    "w10x2cosine": "lambda 10, twice the learning rate, falling to 0 along a cosine",
    "rootx2cosine": "root, lambda 1, twice the learning rate, falling to 0 along a cosine",
}


def _way(run: dict[str, Any]) -> str:
    """WAY of weight-MODEL-kK-WAY-seedS."""
    return str(run["name"].split("-")[3])


_WEIGHED = {"test_reconstruction": ("reconstruction", ".2f"), **SCORES}


Side = tuple[paper.Row, str]
"""A row of the paper's and a recipe."""


def paired_table(found: Iterable[dict[str, Any]], sides: Callable[[paper.Row], Iterable[tuple[Side, Side]]]) -> str:
    """Differences of runs that share a seed, for the pairs that `sides` names at a row of the paper."""
    lines = []
    for report in found:
        words = reproduce.recipes(report)
        for line, pair in ((each, pair) for each in paper.table(report["what"]).rows for pair in sides(each)):
            before, after = (
                {r["resolved"]["seed"]: r for r in reproduce.of(report["results"], *side)} for side in pair
            )
            if seeds := sorted(before.keys() & after.keys()):
                names = [f"k = {row.k}, {words[recipe]}" for row, recipe in pair]
                passes = before[seeds[0]]["epochs"]
                first = (
                    f"{COLLECTIONS[line.data].title}, {line.model.upper()}, {passes:.2g} epochs: {' / '.join(names)}"
                )
                for score, (title, form) in _WEIGHED.items():
                    if all(score in of[seed] for of in (before, after) for seed in seeds):
                        values = {
                            64: [before[seed][score] for seed in seeds],
                            1: [after[seed][score] for seed in seeds],
                        }
                        lines += _compared(first, title, form, values)
                        first = ""
    head = row(["", "score", "seeds", "first", "second", "second less first", "the second is"])
    return "\n".join([head, "|---|---|---:|---:|---:|---:|---|", *lines]) if lines else "Not measured."


def _one_against_many(line: paper.Row, recipes: Iterable[str]) -> list[tuple[Side, Side]]:
    """k = 64 and k = 1 by each recipe, at the row with k = 1."""
    return [((_of_k(line, 64), recipe), (line, recipe)) for recipe in recipes] if line.k == 1 else []


def _of_k(line: paper.Row, k: int) -> paper.Row:
    """The row of the same system with another k."""
    return next(r for r in paper.ROWS if (r.table, r.data, r.model, r.k) == (line.table, line.data, line.model, k))


def heads(found: Iterable[dict[str, Any]]) -> str:
    """Where the published recipe heads in runs of many epochs; see `_heads`."""
    parts = [
        _heads(line, last, result)
        for report in found
        for line in paper.table(report["what"]).rows
        if (last := paper.SCHEDULES[line.data].epochs)
        for result in reproduce.of(report["results"], line, "published")
        if result["epochs"] >= MANY_EPOCHS
    ]
    return "\n\n".join(parts) or NOT_YET


NOT_YET = "Not measured yet."
MANY_EPOCHS = 5


def _heads(line: paper.Row, last: int, result: dict[str, Any]) -> str:
    """Errors on the way, and a power law through the second half, continued to the end of the paper's schedule."""
    epochs = np.array([point[0] for point in result["curve"]]) * result["epochs"] / result["pictures"]
    errors = np.array([point[1] for point in result["curve"]])
    late = epochs >= epochs[-1] / 2
    slope, at_one = np.polyfit(np.log(epochs[late]), np.log(errors[late]), 1)
    there = math.exp(at_one + slope * math.log(last))
    shown = [int(np.abs(np.log(epochs / (epochs[-1] * share))).argmin()) for share in (0.1, 0.25, 0.5, 1)]
    head = ["epochs", *(f"{epochs[i]:.3g}" for i in shown), f"{last} by the power law", f"{last}, paper"]
    errors_row = ["reconstruction", *(f"{errors[i]:.2f}" for i in shown), f"{there:.1f}"]
    figures = line.figures
    return "\n".join(
        [
            f"{COLLECTIONS[line.data].title}, {line.model.upper()}, k = {line.k}, the published recipe:",
            "",
            row(head),
            "|---" + "|---:" * (len(head) - 1) + "|",
            row([*errors_row, f"{figures['test_reconstruction']:g}"]),
            "",
            f"![scores of the published recipe over the epochs](images/reproduction-{line.table}-long.png)",
            "",
            f"At the end of the run its CWAE distance is {result['test_cwae_distance']:.3f} (paper at {last}: "
            f"{figures['test_cwae_distance']:g}) and its WAE distance {result['test_wae_distance']:.3f} "
            f"({figures['test_wae_distance']:g}).",
        ]
    )


def tables(found: Iterable[dict[str, Any]]) -> str:
    """The reports of the paper's tables, each with the scores during training."""
    parts = []
    for report in found:
        title = report["what"].replace("table", "Table ")
        picture = (
            ""
            if not report["results"]
            else f"![scores during training, {title.lower()}](images/reproduction-{report['what']}.png)\n\n"
        )
        parts.append(f"### {title}\n\n{picture}{reproduce.markdown(report)}")
    return "\n\n".join(parts) or "Not run."


def draw(runs: Runs) -> bytes:
    """Reconstruction and Cramer-Wold distance over the pictures seen: a line for each seed. -> PNG."""
    models = list(dict.fromkeys(run["model"] for run in runs))
    with drawing.style():
        figure = Figure(figsize=(4.6 * len(models), 5.4), facecolor="white", layout="constrained")
        panels = figure.subplots(2, len(models), squeeze=False, sharex=True)
        for run in runs:
            curve = np.array(run["curve"])[1:]  # without the initial weights
            for panel, values in zip(panels[:, models.index(run["model"])], curve[:, 1:].T, strict=True):
                colour = "#b2182b" if run["k"] == 1 else "#333333"
                panel.plot(curve[:, 0], values, color=colour, linewidth=1, marker=".", label=f"k = {run['k']}")
        for column, model in zip(panels.T, models, strict=True):
            column[0].set_title(model.upper())
            column[1].set_xlabel("pictures seen")
            column[1].set_yscale("log")
            for panel in column:
                panel.grid(color="#e6e6e6", linewidth=0.8)
        panels[0, 0].set_ylabel("test reconstruction")
        panels[1, 0].set_ylabel("test Cramer-Wold distance")
        handles, labels = panels[0, -1].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        panels[0, -1].legend(unique.values(), unique.keys(), frameon=False)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=110)
    return content.getvalue()


def _kept(folder: Path) -> dict[str, Any] | None:
    """Of a run what the page shows; no paths. None for one without an evaluation."""
    evaluations = [line for line in read_json_lines(folder / "metrics.jsonl") if "test_reconstruction" in line]
    if not evaluations:
        return None
    result = grid.result_of(folder)
    options = json.loads((folder / "cell.json").read_text()) if result is None else result["resolved"]
    kept: dict[str, Any] = {"name": folder.name, "finished": result is not None, "n": options["n"]}
    kept |= {name: options[name] for name in ("model", "k", "seed", "lr")}
    if result is not None:
        result = reproduce.public(result)
        kept |= {name: result[name] for name in ("data", "pictures", "seconds")}
        kept |= {name: value for name, value in result.items() if name.startswith(("test_", "features"))}
    kept["curve"] = [
        [line["pictures"], round(line["test_reconstruction"], 4), round(line["test_cramer_wold"], 7)]
        for line in evaluations
    ]
    return kept


def _lines(runs: Runs) -> str:
    return "[\n" + ",\n".join(json.dumps(run) for run in runs) + "\n]\n"


def _multiple(run: dict[str, Any]) -> float:
    return float(run["name"].rpartition("-x")[2])


def _at(run: dict[str, Any], pictures: int) -> list[float]:
    """Reconstruction and Cramer-Wold distance at this number of pictures."""
    return next(point[1:] for point in run["curve"] if point[0] == pictures)
