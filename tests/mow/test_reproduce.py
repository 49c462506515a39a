"""The paper's tables, run again: which cells, and what the reports say."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest

from mow.app import data, paper, reproduce
from mow.app.data import DataError
from mow.app.options import Options


@pytest.fixture
def machine(pictures_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a Fashion-MNIST of 180 train pictures and without the paper's other data sets."""
    small = data.load(pictures_file)
    load = data.load

    def found(name: str, **options: Any) -> Any:
        if name == "fashion-mnist":
            return dataclasses.replace(small, name=name)
        if name in paper.SCHEDULES:
            raise DataError(f"{name} was not found. Looked everywhere.")
        return load(name, **options)

    monkeypatch.setattr(data, "load", found)


def result(name: str, data: str = "fashion-mnist", seed: int = 0, **scores: Any) -> dict[str, Any]:
    """What a cell of that name gives, with a path of this machine in it."""
    _, model, k, recipe, _ = name.replace("fashion-mnist", "f").replace("cifar-10", "c").split("-")
    chosen = {"weighting": "reference"} if recipe == "published" else {}
    options = Options(model=model, k=int(k[1:]), data=data, seed=seed, **chosen)  # type: ignore[arg-type]
    resolved = dataclasses.asdict(options) | {"lr": 0.001, "data": data, "data_dir": "/home/me"}
    resolved["architecture"] = scores.pop("architecture", "mnist")
    given = {"test_latents": 2000, "test_reconstruction": 12.345, "test_cwae_distance": 0.05, "test_wae_distance": 0.1}
    head = {
        "name": name,
        "options": {},
        "resolved": resolved,
        "data": f"pictures from {data}",
        "step": 9,
        "pictures": 99,
        "epochs": 10.0,
    }
    return {**head, **given, **scores}


# Cells


def test_the_cells_of_table_2(machine: None) -> None:
    cells, missing = reproduce.cells("table2", 0.1, seeds=(0, 1))
    assert missing == {} and len(cells) == 3 * 3 * 2 * 2
    named = {cell.name: cell.options for cell in cells}
    assert named["fashion-mnist-swae-k1-published-seed1"] == Options(
        model="swae", k=1, n=64, seed=1, steps=1350, dim=8, lr=1e-5, optimizer="adam", weighting="reference", root=True,
        architecture="fashion-mnist",
        reencode=False, prior="normal-sample", phi="asymptotic", log_every=7, evaluate_every=68, checkpoint_every=68,
    )  # fmt: skip
    ours = named["fashion-mnist-cwae-k64-ours-seed0"]
    assert (ours.steps, ours.lr, ours.weighting, ours.prior) == (22, None, "compensated", "normal")
    assert [cell.options.steps for cell in cells] == sorted(cell.options.steps for cell in cells)
    assert reproduce.cells("fig4", 0.1, seeds=(0, 1))[0] == cells
    quick = reproduce.cells("table2", 0.1, architecture="mnist")[0]
    assert {cell.options.architecture for cell in quick} == {"mnist"}


def test_a_data_set_that_cannot_be_had_is_left_out(machine: None, pictures_file: Path) -> None:
    cells, missing = reproduce.cells("table1", 0.02, ks=[1], sources={"mnist": str(pictures_file)}, download=True)
    assert set(missing) == {"cifar-10", "celeba"} and "not found" in missing["cifar-10"]
    assert [cell.name for cell in cells] == ["mnist-wae-k1-published-seed0", "mnist-wae-k1-ours-seed0"]
    published = cells[0].options
    assert (published.data, published.dim, published.optimizer) == (str(pictures_file), 20, "sgd")
    assert published.architecture == "mnist", "the paper's, wherever the pictures are read from"
    assert (published.steps, published.lr) == (1800, 0.0025), "500 epochs x .02 of 180 pictures"
    assert not published.download, "a path is not downloaded"
    with pytest.raises(ValueError, match="no data set of table1 can be had: mnist was not found"):
        reproduce.cells("table1", 1)


def test_epochs_in_place_of_a_share(machine: None, pictures_file: Path) -> None:
    """CelebA, whose epochs in the paper are not known, is run for so many as are asked for."""
    faces = {"celeba": str(pictures_file)}
    with pytest.raises(ValueError, match="epochs of the paper on CelebA are not known to us; give epochs"):
        reproduce.cells("table4", 0.1, sources=faces)
    cells, _ = reproduce.cells("table4", epochs=2, ks=[1], recipes=["published"], sources=faces)
    assert [(cell.name, cell.options.steps) for cell in cells] == [("celeba-swae-k1-published-seed0", 360)]
    assert (cells[0].options.lr, cells[0].options.optimizer, cells[0].options.dim) == (0.00075, "sgd", 32)
    whole = reproduce.cells("table2", ks=[1], models=["wae"])[0]
    assert {cell.options.steps for cell in whole} == {75 * 180}, "all of the paper's epochs, unless told otherwise"


@pytest.mark.parametrize(
    "words, message",
    [
        ({"what": "table5"}, "what is 'table5'"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"scale": None, "epochs": -1}, "epochs is -1"),
        ({"epochs": 2}, "scale is 1.0 and epochs 2; it must be one of them"),
        ({"ks": [2]}, "ks holds 2; table2 has 64, 32, 1"),
        ({"models": ["vae"]}, "models holds 'vae'; table2 has cwae, wae, swae"),
        ({"recipes": ["mine"]}, "recipes holds 'mine'"),
        ({"sources": {"mnist": "x"}}, "sources holds 'mnist'; table2 has fashion-mnist"),
    ],
)
def test_what_is_no_table(words: dict[str, Any], message: str, machine: None) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce.cells(**{"what": "table2", "scale": 1.0, **words})


# The paper's figures


def test_the_tables_hold_every_line_once() -> None:
    lines = [(row.data, row.model, row.k) for row in paper.ROWS]
    assert len(lines) == len(set(lines)) == 36
    assert [len(table.rows) for table in paper.TABLES.values()] == [9, 9, 9, 9]
    for table in paper.TABLES.values():
        for data_set in table.data:
            for model in table.models:
                assert tuple(row.k for row in table.rows if (row.data, row.model) == (data_set, model)) == paper.KS
    assert {row.data for row in paper.ROWS} == set(paper.SCHEDULES)


@pytest.mark.parametrize("row", paper.ROWS, ids=lambda row: f"{row.table}-{row.data}-{row.model}-{row.k}")
def test_a_cost_is_that_of_its_table(row: paper.Row) -> None:
    """Which the cost column of each table is, is our reading: of the three it is the one that the figures bear out."""
    figures, cost = row.figures, paper.TABLES[row.table].cost
    made = {
        "test_cost_mmd": figures["test_wae_distance"],
        "test_cost_log_mmd": math.log(figures["test_wae_distance"]),
        "test_cost_log_cw": math.log(figures["test_cwae_distance"]),
    }
    off = {name: abs(figures["test_reconstruction"] + value - figures[cost]) for name, value in made.items()}
    assert min(off, key=off.__getitem__) == cost and off[cost] < 0.1, "by rounded distances"


# Reports


def test_the_figures_of_the_paper_stand_beside_ours(tmp_path: Path) -> None:
    names = [f"mnist-wae-k{k}-{recipe}-seed{seed}" for k in (64, 1) for recipe in paper.RECIPES for seed in (0, 1)]
    found = {
        name: result(name, "/some/where/digits.npz", int(name[-1]), test_wae_distance=0.1 + 0.02 * int(name[-1]))
        for name in names
    }
    report = reproduce.report("table1", found, {"cifar-10": "CIFAR-10 was not found. Looked in /home/me."})
    path = reproduce.write(tmp_path, report)
    text, written = path.read_text(), json.loads((tmp_path / "report.json").read_text())
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[3] for line in lines] == ["paper", "published", "ours", "paper", "ours"] + [
        *("paper", "published", "ours"),
        *("paper", "ours") * 6,
    ]
    assert lines[0] == "| MNIST | WAE | 64 | paper | 0.01 | 500 | 5.495 | 0.026 | 0.009 | 5.503 | 48.491 |  |"
    assert lines[1] == (
        "|  |  |  | published | 0.001 | 10 | 12.3 ± 0 | 0.05 ± 0 | 0.11 ± 0.014 | – | – | "
        "no: other pictures, 2 % of its schedule |"
    )
    assert lines[4].endswith("| not run: not asked for |")
    assert lines[-2].startswith("| CelebA | WAE | 1 | paper | 0.001 | ? | 116.306 | 0.064 | 0.124 |")
    assert "not run: CIFAR-10 was not found |" in text and "seeds 0, 1; distances over 2,000 test latents" in text
    assert "pictures from digits.npz" in text and "FID: Inception's weights were not at hand" in text
    for content in (text, json.dumps(written)):
        assert "/some" not in content and "/home" not in content
    assert written["paper"][2]["test_wae_distance"] == 0.306 and len(written["paper"]) == 9
    assert list(written["results"]) == names


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "comparable, FID apart"),
        ({"test_fid": 40.0}, "comparable"),
        ({"epochs": 5.0}, "no: 1 % of its schedule"),
        ({"data": "the 10,000 embedded pictures"}, "no: other pictures"),
        ({"architecture": "small"}, "no: another network"),
        ({"test_latents": 500, "epochs": 250.0}, "no: 50 % of its schedule, 500 latents"),
    ],
)
def test_what_may_be_compared(change: dict[str, Any], said: str) -> None:
    whole = {"epochs": 500.0, "architecture": "mnist"} | {k: v for k, v in change.items() if k != "data"}
    mine = result("mnist-wae-k64-ours-seed0", "mnist", **whole)
    mine["data"] = change.get("data", "MNIST (60,000 pictures to train, 10,000 to test)")
    assert reproduce.beside(mine, paper.TABLES["table1"].rows[0]) == said


def test_a_report_says_whose_features() -> None:
    name = "fashion-mnist-cwae-k1-ours-seed0"
    scores = {"test_frechet_classifier": 50.0, "features": "classifier-12ab", "features_accuracy": 0.9}
    page = reproduce.markdown(reproduce.report("table2", {name: result(name, **scores)}, {}))
    assert "Fréchet, classifier | beside the paper's |" in page.splitlines()[0]
    assert "in the features of classifier-12ab" in page and "It is no FID" in page


@pytest.mark.parametrize(
    ("what", "finite"),
    [("fig4", 3), ("fig4", 0), *(pytest.param(what, 3, marks=pytest.mark.long) for what in ("fig3", "fig5"))],
)
def test_a_figure_is_drawn(what: str, finite: int, tmp_path: Path) -> None:
    """From what is finite: in a run that diverges null stands for the rest."""
    row = paper.table(what).rows[0]
    name = f"{row.data}-{row.model}-k{row.k}-ours-seed0"
    (tmp_path / name).mkdir()
    lines = [{"pictures": 10 * i, "test_reconstruction": 9 - i, "test_cramer_wold": 0.1 / (i + 1)} for i in range(4)]
    for line in lines[finite + 1 :]:
        line |= {"test_reconstruction": None, "test_cramer_wold": None}
    (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = reproduce.report(what, {name: result(name, row.data)}, {}, tmp_path)
    curve = report["results"][name]["curve"]
    assert [point[0] for point in curve] == [10, 20, 30], "without the initial weights"
    assert [point[1] for point in curve[:finite]] == [8, 7, 6][:finite] and curve[-1][1] == (6 if finite else None)
    text = reproduce.write(tmp_path, report).read_text()
    assert text.startswith(f"# Figure {what[-1]}: scores during training") and f"![{what}]({what}.png)" in text
    assert (tmp_path / f"{what}.png").read_bytes().startswith(b"\x89PNG")
