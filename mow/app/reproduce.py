"""The paper's tables, run again: their cells, and reports that put the paper's figures beside ours."""

from __future__ import annotations

import io
import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mow.app import data, evaluation, paper
from mow.app.architectures import ARCHITECTURES
from mow.app.data import COLLECTIONS
from mow.app.grid import Cell
from mow.app.options import Options
from mow.files import json_text, read_json_lines, write_whole

WHAT = (*paper.TABLES, *paper.FIGURES)

_OF_A_NAME = ("data_dir", "download")
"""Options that do not go with a path."""

REPORTED = {
    "test_reconstruction": "reconstruction",
    "test_cwae_distance": "CWAE distance",
    "test_wae_distance": "WAE distance",
    "cost": "cost",
    "test_fid": "FID",
}
"""The columns that the paper has, too; its cost is another score in each table."""

OURS_ALONE = {
    "test_cwae_distance_exact": "CW distance, exact",
    "test_sliced_wasserstein": "sliced-Wasserstein",
    "test_frechet_classifier": "Fréchet, classifier",
    "test_skewness": "skewness",
    "test_kurtosis": "kurtosis",
}
"""Further columns of a report, of which the paper has none."""

CURVE = ("test_reconstruction", "test_cramer_wold")
"""The scores of an evaluation during training."""


def cells(
    what: str,
    scale: float | None = None,
    *,
    epochs: float | None = None,
    models: Sequence[str] | None = None,
    ks: Sequence[int] = paper.KS,
    recipes: Sequence[str] = tuple(paper.RECIPES),
    seeds: Sequence[int] = (0,),
    architecture: str | None = None,
    sources: Mapping[str, str] | None = None,
    **options: Any,
) -> tuple[list[Cell], dict[str, str]]:
    """The cells of a table or of a figure, those with fewer steps first, and which data sets cannot be had, and why.

    Args:
        what: "table1" to "table4", or "fig3" to "fig5", which have the cells of a table (`mow.app.paper.FIGURES`).
        scale: the share of the paper's epochs that is run, > 0 (default: 1).
        epochs: passes over the data instead, > 0. A data set whose epochs in the paper are not known takes them alone.
        models, ks, recipes: which of the table's; None and the defaults for all.
        seeds: each cell once for each.
        architecture: instead of the paper's for the data set.
        sources: for a data set's name, another name or path to read it from, e.g. a smaller share of it.
        options: of `mow.app.options.Options`, for all cells: data_dir, download, device, ...

    Raises:
        ValueError: a word that the table does not have, scale or epochs out of range or both, or no data set at all.
    """
    if what not in WHAT:
        raise ValueError(f"what is {what!r}; it must be one of {', '.join(WHAT)}")
    if scale is not None and epochs is not None:
        raise ValueError(f"scale is {scale} and epochs {epochs}; it must be one of them")
    for name, length_of_it in (("scale", scale), ("epochs", epochs)):
        if length_of_it is not None and not 0 < length_of_it < math.inf:
            raise ValueError(f"{name} is {length_of_it}; it must be finite and > 0")
    table = paper.table(what)
    models = table.models if models is None else models
    for name, given, allowed in (
        ("models", models, table.models),
        ("ks", ks, paper.KS),
        ("recipes", recipes, paper.RECIPES),
        ("sources", sources or (), table.data),
    ):
        if wrong := [word for word in given if word not in allowed]:
            raise ValueError(f"{name} holds {wrong[0]!r}; {what} has {', '.join(map(str, allowed))}")
    found, missing = [], {}
    for name in table.data:
        schedule = paper.SCHEDULES[name]
        source = (sources or {}).get(name, name)
        passes = epochs
        if passes is None and schedule.epochs is not None:
            passes = schedule.epochs * (1.0 if scale is None else scale)
        try:
            given = {key: value for key, value in options.items() if source == name or key not in _OF_A_NAME}
            named: dict[str, Any] = {key: given[key] for key in _OF_A_NAME if key in given}
            length = len(data.load(source, **named).train)
            if passes is None:
                raise ValueError(
                    f"The epochs of the paper on {COLLECTIONS[name].title} are not known to us; give epochs"
                )
        except ValueError as error:
            missing[name] = str(error)
            continue
        for row in table.rows:
            if row.data != name or row.model not in models or row.k not in ks:
                continue
            for recipe in recipes:
                steps = math.ceil(passes * length / row.k)
                chosen: dict[str, Any] = {"steps": steps, "data": source, **_every(steps)}
                chosen["architecture"] = architecture or schedule.architecture
                chosen["dim"] = ARCHITECTURES[schedule.architecture].dim
                if recipe == "published":
                    chosen |= {"lr": row.learning_rate, "optimizer": schedule.optimizer, **paper.RECIPES[recipe]}
                for seed in seeds:
                    chosen |= {"model": row.model, "k": row.k, "n": paper.WINDOW, "seed": seed}
                    found.append(Cell(_name(row, recipe, seed), Options(**given | chosen)))
    if not found:
        raise ValueError(f"no data set of {what} can be had: {'; '.join(missing.values())}")
    return sorted(found, key=lambda cell: cell.options.steps), missing


def _name(row: paper.Row, recipe: str, seed: int | str = "") -> str:
    """Of a cell; without its seed, how the names of all seeds begin."""
    return f"{row.data}-{row.model}-k{row.k}-{recipe}-seed{seed}"


def _every(steps: int) -> dict[str, int]:
    """Twenty evaluations and checkpoints, 200 logged steps."""
    twentieth = math.ceil(steps / 20)
    return {"evaluate_every": twentieth, "checkpoint_every": twentieth, "log_every": math.ceil(steps / 200)}


def public(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result without the paths of the machine that it was made on."""
    resolved = {**result["resolved"], "data_dir": None}
    path = resolved["data"]
    resolved["data"] = Path(path).name
    kept = {name: value for name, value in result.items() if name != "options"}
    return {**kept, "resolved": resolved, "data": result["data"].replace(path, resolved["data"])}


def report(
    what: str, results: Mapping[str, Mapping[str, Any]], missing: Mapping[str, str], out: Path | None = None
) -> dict[str, Any]:
    """What report.json holds: what was asked for, the paper's rows, and our results by the name of the cell.

    With out, the folder of the runs, a result has its curve, too: pictures seen and the scores of `CURVE`.
    """
    table = paper.table(what)
    ours = {name: public(result) for name, result in results.items()}
    if out is not None:
        for name, result in ours.items():
            result["curve"] = curve(out / name)
    return {
        "what": what,
        "cost": table.cost,
        "paper": [
            {"data": row.data, "model": row.model, "k": row.k, "learning_rate": row.learning_rate, **row.figures}
            for row in table.rows
        ],
        "missing": {name: why.partition(". ")[0] for name, why in missing.items()},
        "results": ours,
    }


def curve(folder: Path) -> list[list[float | None]]:
    """Of a run each evaluation after the first step: pictures seen and the scores of `CURVE`, None if not finite."""
    lines = [line for line in read_json_lines(folder / "metrics.jsonl") if CURVE[0] in line and line["pictures"]]
    return [[line["pictures"], *(_short(line[score]) for score in CURVE)] for line in lines]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def markdown(found: Mapping[str, Any]) -> str:
    """A report as a page: for each system a line of the paper's and one of each recipe of ours; seeds as mean ± sd."""
    table, results = paper.table(found["what"]), found["results"]
    alone = [name for name in OURS_ALONE if any(name in result for result in results.values())]
    reported = [table.cost if name == "cost" else name for name in REPORTED]
    columns = [*reported, *alone]
    called = recipes(found)
    head = ["data", "model", "k", "", "learning rate", "epochs"]
    head += [*REPORTED.values(), *(OURS_ALONE[name] for name in alone), "beside the paper's"]
    lines = [_line(head), "|---" * 6 + "|---:" * len(columns) + "|---|"]
    for row in table.rows:
        words = [COLLECTIONS[row.data].title, row.model.upper(), str(row.k), "paper", f"{row.learning_rate:g}"]
        figures = [f"{row.figures[name]:g}" if name in row.figures else "" for name in columns]
        lines.append(_line([*words, _epochs(paper.SCHEDULES[row.data].epochs), *figures, ""]))
        several = {recipe: of(results, row, recipe) for recipe in called}
        for recipe, mine in several.items():
            if mine:
                rate, passes = mine[0]["resolved"]["lr"], _epochs(mine[0]["epochs"])
                words = ["", "", "", called[recipe], f"{rate:.3g}", passes]
                lines.append(_line([*words, *(_spread(mine, c) for c in columns), beside(mine[0], row)]))
        if not several["ours"]:
            why = found["missing"].get(row.data, "not asked for")
            lines.append(_line(["", "", "", "ours", *[""] * (len(columns) + 2), f"not run: {why}"]))
    return "\n".join([*lines, "", *_remarks(found, table)])


def recipes(found: Mapping[str, Any]) -> dict[str, str]:
    """The recipes of a report, as the names of its cells have them, to what they are called: `mow.app.paper.RECIPES`
    and what the report has under "also"."""
    return {name: name for name in paper.RECIPES} | found.get("also", {})


def of(results: Mapping[str, Mapping[str, Any]], row: paper.Row, recipe: str) -> list[Mapping[str, Any]]:
    """The results of a row of the paper's by a recipe, one for each seed."""
    return [result for cell, result in results.items() if cell.startswith(_name(row, recipe))]


def apart(result: Mapping[str, Any], row: paper.Row) -> dict[str, str]:
    """What keeps a result from being held against the paper's row: kind of difference to its words; none if empty."""
    schedule, found = paper.SCHEDULES[row.data], {}
    if not result["data"].startswith(f"{COLLECTIONS[row.data].title} ("):
        found["data"] = "other pictures"
    if result["resolved"]["architecture"] != schedule.architecture:
        found["architecture"] = "another network"
    if schedule.epochs is None:
        found["epochs"] = "epochs not known"
    elif not math.isclose(result["epochs"], schedule.epochs, rel_tol=0.01):
        found["epochs"] = f"{_share(result['epochs'] / schedule.epochs)} of its schedule"
    if result["test_latents"] != evaluation.LATENTS:
        found["latents"] = f"{result['test_latents']:,} latents"
    return found


def beside(result: Mapping[str, Any], row: paper.Row) -> str:
    """Whether a result may be compared with the paper's row, in words."""
    but = "" if "test_fid" in result else ", FID apart"
    found = apart(result, row)
    return f"no: {', '.join(found.values())}" if found else f"comparable{but}"


def _remarks(found: Mapping[str, Any], table: paper.Table) -> list[str]:
    """What a reader has to know of the lines, a list item each."""
    results = list(found["results"].values())
    items = [
        'A line may be compared with the paper\'s above it where the last column says "comparable": the same pictures, '
        "network, epochs and number of latents. Columns without a figure of the paper's are ours alone."
    ]
    for name in table.data:
        mine = [result for cell, result in found["results"].items() if cell.startswith(f"{name}-")]
        if mine:
            seeds = sorted({result["resolved"]["seed"] for result in mine})
            architectures = dict.fromkeys(_architecture(result) for result in mine)
            items.append(
                f"{COLLECTIONS[name].title}: {mine[0]['data']}; {'seed' if len(seeds) == 1 else 'seeds'} "
                f"{', '.join(map(str, seeds))}; distances over {mine[0]['test_latents']:,} test latents; the paper's "
                f"architecture for {' and '.join(architectures)}."
            )
        elif name in found["missing"]:
            items.append(f"{COLLECTIONS[name].title}: not run. {found['missing'][name]}.")
    items.append(
        "published: the public code's cost (reference weighting, root of the reconstruction, sampled prior) with the "
        "learning rate of the paper's line and its optimiser; ours: the defaults of `mow train`."
        + ("; the others: these options in place of theirs." if found.get("also") else ".")
    )
    if any("test_fid" in result for result in results):
        items.append("FID: 10,000 samples against the test pictures, Inception by torchmetrics.")
    else:
        items.append("FID: Inception's weights were not at hand, so that ours is missing.")
    networks = {(result["features"], result["features_accuracy"]) for result in results if "features" in result}
    for network, accuracy in sorted(networks):
        items.append(
            f"Fréchet, classifier: in the features of {network}, a small classifier of the same data set (accuracy "
            f"{accuracy:.3f}). It is no FID and compares within this page only."
        )
    return [f"- {item}" for item in items]


def _architecture(result: Mapping[str, Any]) -> str:
    name = result["resolved"]["architecture"]
    made_for = {schedule.architecture: data for data, schedule in paper.SCHEDULES.items()}
    return COLLECTIONS[made_for[name]].title if name in made_for else name


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(words) + " |"


def _spread(results: Sequence[Mapping[str, Any]], column: str) -> str:
    values = [result[column] for result in results if column in result]
    if not values:
        return "–"
    mean = _number(statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2g}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def _epochs(epochs: float | None) -> str:
    return "?" if epochs is None else f"{epochs:.3g}"


def _share(share: float) -> str:
    return f"{100 * share:.2g} %"


def write(out: Path, found: Mapping[str, Any]) -> Path:
    """report.json and report.md into the folder of the grid; for a figure its picture, too. -> report.md."""
    what = found["what"]
    write_whole(out / "report.json", json_text(found, indent=1) + "\n")
    title, picture = what.replace("table", "Table "), ""
    if what in paper.FIGURES:
        title = f"{what.replace('fig', 'Figure ')}: scores during training"
        picture = f"![{what}]({what}.png)\n\n"
        write_whole(out / f"{what}.png", draw(found))
    return write_whole(out / "report.md", f"# {title}\n\n{picture}{markdown(found)}\n")


def draw(found: Mapping[str, Any]) -> bytes:
    """The scores of `CURVE` over the epochs, a column for each model on each data set. -> PNG.

    A star is the paper's reconstruction error at the end of its schedule, where it may be held against the runs but for
    their length. (Its distances are others than the exact one that is drawn.)
    """
    import matplotlib  # here and not above: the command line should not wait for it
    from matplotlib.figure import Figure

    drawn = []  # row of the paper, recipe, result
    for row in paper.table(found["what"]).rows:
        for recipe in recipes(found):
            drawn += [(row, recipe, result) for result in of(found["results"], row, recipe)]
    styles = dict(zip(recipes(found), itertools.cycle((":", "-", "--", "-."))))  # published, ours, and the others
    systems = list(dict.fromkeys((row.data, row.model) for row, _, _ in drawn))
    colours = dict(zip(paper.KS, ("#333333", "#00695c", "#b2182b"), strict=True))
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4 * len(systems), 5.6), facecolor="white", layout="constrained")
        panels = figure.subplots(2, len(systems), squeeze=False, sharex="col")
        for row, recipe, result in drawn:
            column = panels[:, systems.index((row.data, row.model))]
            an_epoch = result["pictures"] / result["epochs"]
            for place, panel in enumerate(column, 1):
                finite = [point for point in result["curve"] if point[place] is not None]
                if finite:  # an axis of none has no logarithm
                    panel.plot(
                        [point[0] / an_epoch for point in finite],
                        [point[place] for point in finite],
                        color=colours[row.k],
                        linestyle=styles[recipe],
                        linewidth=1.2,
                        label=f"k = {row.k}, {recipes(found)[recipe]}",
                    )
            if apart(result, row).keys() <= {"epochs"} and (last := paper.SCHEDULES[row.data].epochs):
                at = ([last], [row.figures["test_reconstruction"]])
                column[0].plot(*at, "*", color=colours[row.k], markersize=8, label=f"k = {row.k}, paper")
        for column, (name, model) in zip(panels.T, systems, strict=True):
            column[0].set_title(f"{COLLECTIONS[name].title}, {model.upper()}")
            column[1].set_xlabel("epochs")
            for panel in column:
                panel.set_xscale("log")
                panel.set_yscale("log")
                panel.grid(which="major", color="#e6e6e6", linewidth=0.8)
        panels[0, 0].set_ylabel("test reconstruction")
        panels[1, 0].set_ylabel("test Cramer-Wold distance")
        each = (panel.get_legend_handles_labels() for panel in panels[0])
        unique = {label: handle for of_panel in each for handle, label in zip(*of_panel, strict=True)}
        panels[1, -1].legend(unique.values(), unique.keys(), frameon=False, fontsize=8)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
