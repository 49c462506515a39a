"""The paper's tables, run again: their cells, and reports that put the paper's figures beside ours."""

from __future__ import annotations

import io
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mow.app import data, paper
from mow.app.architectures import ARCHITECTURES
from mow.app.data import COLLECTIONS
from mow.app.grid import Cell
from mow.app.options import Options
from mow.files import json_text, read_json_lines, write_whole

WHAT = (*paper.TABLES, "fig4")

_OF_A_NAME = ("data_dir", "download")
"""Options that do not go with a path."""

SCORES = {
    "test_reconstruction": "reconstruction",
    "test_cwae_distance": "CWAE distance",
    "test_cwae_distance_exact": "the same, exact",
    "test_wae_distance": "WAE distance",
    "test_sliced_wasserstein": "sliced-Wasserstein",
    "test_fid": "FID",
    "test_frechet_classifier": "Fréchet, classifier",
    "test_skewness": "skewness",
    "test_kurtosis": "kurtosis",
}
"""The columns of a report, before that of the cost."""


def cells(
    what: str,
    scale: float,
    *,
    models: Sequence[str] | None = None,
    ks: Sequence[int] = paper.KS,
    recipes: Sequence[str] = tuple(paper.RECIPES),
    seeds: Sequence[int] = (0,),
    architecture: str | None = None,
    sources: Mapping[str, str] | None = None,
    **options: Any,
) -> tuple[list[Cell], dict[str, str]]:
    """The cells of a table or of figure 4, those with fewer steps first, and which data sets cannot be had, and why.

    Args:
        what: "table1" to "table4"; "fig4" has the cells of table 2.
        scale: the share of the paper's epochs that is run, > 0.
        models, ks, recipes: which of the table's; None and the defaults for all.
        seeds: each cell once for each.
        architecture: instead of the paper's for the data set.
        sources: for a data set's name, another name or path to read it from, e.g. a smaller share of it.
        options: of `mow.app.options.Options`, for all cells: data_dir, download, device, ...

    Raises:
        ValueError: a word that the table does not have, a scale or seeds out of range, or no data set at all.
    """
    if what not in WHAT:
        raise ValueError(f"what is {what!r}; it must be one of {', '.join(WHAT)}")
    if not 0 < scale < math.inf:
        raise ValueError(f"scale is {scale}; it must be finite and > 0")
    table = paper.TABLES["table2" if what == "fig4" else what]
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
        try:
            given = {key: value for key, value in options.items() if source == name or key not in _OF_A_NAME}
            named: dict[str, Any] = {key: given[key] for key in _OF_A_NAME if key in given}
            length = len(data.load(source, **named).train)
        except ValueError as error:
            missing[name] = str(error)
            continue
        for model in models:
            for k in ks:
                for recipe in recipes:
                    steps = math.ceil(schedule.epochs * scale * length / k)
                    chosen: dict[str, Any] = {"steps": steps, "data": source, **_every(steps)}
                    chosen["architecture"] = architecture or schedule.architecture
                    chosen["dim"] = ARCHITECTURES[schedule.architecture].dim
                    if recipe == "published":
                        rate = schedule.learning_rates[model][k]
                        chosen |= {"lr": rate, "optimizer": schedule.optimizer, **paper.RECIPES[recipe]}
                    for seed in seeds:
                        chosen |= {"model": model, "k": k, "n": paper.WINDOW, "seed": seed}
                        cell = Options(**given | chosen)
                        found.append(Cell(f"{name}-{model}-k{k}-{recipe}-seed{seed}", cell))
    if not found:
        raise ValueError(f"no data set of {what} can be had: {'; '.join(missing.values())}")
    return sorted(found, key=lambda cell: cell.options.steps), missing


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
    what: str, scale: float, results: Mapping[str, Mapping[str, Any]], missing: Mapping[str, str]
) -> dict[str, Any]:
    """What report.json holds: what was asked for, the paper's figures, and our results by the name of the cell."""
    table = paper.TABLES["table2" if what == "fig4" else what]
    return {
        "what": what,
        "scale": scale,
        "cost": table.cost,
        "paper": [
            {"data": name, "model": model, "k": k, **figures} for (name, model, k), figures in table.figures.items()
        ],
        "known_from": table.known_from,
        "missing": {name: why.partition(". ")[0] for name, why in missing.items()},
        "results": {name: public(result) for name, result in results.items()},
    }


def markdown(found: Mapping[str, Any]) -> str:
    """A report as a page: for each system a line of the paper's and one of each recipe of ours; seeds as mean ± sd."""
    table = paper.TABLES["table2" if found["what"] == "fig4" else found["what"]]
    results = found["results"]
    shown = [name for name in SCORES if any(name in result for result in results.values())]
    columns = [*shown, table.cost]
    head = ["data", "model", "k", "", "learning rate", *(SCORES[name] for name in shown), "cost"]
    lines = ["| " + " | ".join(head) + " |", "|---" * 5 + "|---:" * len(columns) + "|"]
    for name in table.data:
        for model in table.models:
            for k in paper.KS:
                recipes = {
                    recipe: [
                        result
                        for cell, result in results.items()
                        if cell.startswith(f"{name}-{model}-k{k}-{recipe}-seed")
                    ]
                    for recipe in paper.RECIPES
                }
                if not any(recipes.values()):
                    continue
                known = table.figures.get((name, model, k), {})
                rate = paper.SCHEDULES[name].learning_rates[model][k]
                words = [COLLECTIONS[name].title, model.upper(), str(k), "paper", f"{rate:g}"]
                lines.append(_line([*words, *(_number(known[c]) if c in known else "" for c in columns)]))
                for recipe, several in recipes.items():
                    if several:
                        lr = f"{several[0]['resolved']['lr']:.3g}"
                        lines.append(_line(["", "", "", recipe, lr, *(_spread(several, c) for c in columns)]))
    return "\n".join([*lines, "", *_differences(found, table)])


def _differences(found: Mapping[str, Any], table: paper.Table) -> list[str]:
    """What is not as in the paper, a list item each."""
    results = list(found["results"].values())
    items = []
    for name in table.data:
        mine = [result for cell, result in found["results"].items() if cell.startswith(f"{name}-")]
        if mine:
            schedule, seeds = paper.SCHEDULES[name], sorted({result["resolved"]["seed"] for result in mine})
            items.append(
                f"{COLLECTIONS[name].title}: {mine[0]['data']}; {_number(schedule.epochs * found['scale'])} of the "
                f"paper's {schedule.epochs} epochs ({mine[0]['pictures']:,} pictures seen); "
                f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}; distances over "
                f"{mine[0]['test_latents']:,} test latents; the paper's architecture for {_architecture(mine[0])}."
            )
        elif name in found["missing"]:
            items.append(f"{COLLECTIONS[name].title}: not run. {found['missing'][name]}.")
    items.append(
        "published: the public code's cost (reference weighting, root of the reconstruction, sampled prior), learning "
        "rate and optimiser; ours: the defaults of `mow train` (compensated weighting, closed-form prior, Adam)."
    )
    if any("test_fid" in result for result in results):
        items.append("FID: 10,000 samples against the test pictures, Inception by torchmetrics.")
    networks = {(result["features"], result["features_accuracy"]) for result in results if "features" in result}
    for network, accuracy in sorted(networks):
        items.append(
            f"Fréchet, classifier: in the features of {network}, a small classifier of the same data set (accuracy "
            f"{accuracy:.3f}). It is no FID and compares within this page only; the paper has FID with Inception."
        )
    known = found["known_from"]
    items.append(
        f"The paper's figures: {known}; the others are not known to us and left empty."
        if known
        else "The paper's figures of this table are not known to us and left empty; its learning rates are."
    )
    return [f"- {item}" for item in items]


def _architecture(result: Mapping[str, Any]) -> str:
    name = result["resolved"].get("architecture", "mnist")  # the only one before there was a choice
    made_for = {schedule.architecture: data for data, schedule in paper.SCHEDULES.items()}
    return COLLECTIONS[made_for[name]].title if name in made_for else name


def _line(words: Sequence[str]) -> str:
    return "| " + " | ".join(words) + " |"


def _spread(results: Sequence[Mapping[str, Any]], column: str) -> str:
    values = [result[column] for result in results if column in result]
    if not values:
        return ""
    mean = _number(statistics.fmean(values))
    return mean if len(values) == 1 else f"{mean} ± {_number(statistics.stdev(values))}"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"


def write(out: Path, found: Mapping[str, Any]) -> Path:
    """report.json and report.md into the folder of the grid; for figure 4 fig4.png, too. -> report.md."""
    write_whole(out / "report.json", json_text(found, indent=1) + "\n")
    title = found["what"].replace("table", "Table ").replace("fig4", "Figure 4: over the pictures seen")
    picture = "![fig4](fig4.png)\n\n" if found["what"] == "fig4" else ""
    if picture:
        curves = {name: read_json_lines(out / name / "metrics.jsonl") for name in found["results"]}
        write_whole(out / "fig4.png", draw(curves, found["results"]))
    return write_whole(out / "report.md", f"# {title}, scale {found['scale']:g}\n\n{picture}{markdown(found)}\n")


def draw(curves: Mapping[str, Sequence[Mapping[str, Any]]], results: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Test reconstruction and exact Cramer-Wold distance over the pictures seen, a column for each model. -> PNG."""
    import matplotlib  # here and not above: the command line should not wait for it
    from matplotlib.figure import Figure

    models = sorted({result["resolved"]["model"] for result in results.values()})
    colours = dict(zip(paper.KS, ("#333333", "#00695c", "#b2182b"), strict=True))
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(4 * len(models), 5.6), facecolor="white", layout="constrained")
        panels = figure.subplots(2, len(models), squeeze=False, sharex=True)
        for name, result in results.items():
            options = result["resolved"]
            lines = [line for line in curves[name] if "test_reconstruction" in line and line["pictures"]]
            ours = options["weighting"] == "compensated"
            for panel, score in zip(
                panels[:, models.index(options["model"])], ("test_reconstruction", "test_cramer_wold"), strict=True
            ):
                finite = [line for line in lines if line[score] is not None]
                if finite:  # an axis of none has no logarithm
                    panel.plot(
                        [line["pictures"] for line in finite],
                        [line[score] for line in finite],
                        color=colours[options["k"]],
                        linestyle="-" if ours else ":",
                        label=f"k = {options['k']}, {'ours' if ours else 'published'}",
                    )
        for column, model in zip(panels.T, models, strict=True):
            column[0].set_title(model.upper())
            column[1].set_xlabel("pictures seen")
            for panel in column:
                panel.set_yscale("log")
                panel.grid(which="major", color="#e6e6e6", linewidth=0.8)
        panels[0, 0].set_ylabel("test reconstruction")
        panels[1, 0].set_ylabel("test Cramer-Wold distance")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        unique = dict(zip(labels, handles, strict=True))
        panels[0, -1].legend(unique.values(), unique.keys(), frameon=False, fontsize=8)
        content = io.BytesIO()
        figure.savefig(content, format="png", dpi=120)
    return content.getvalue()
