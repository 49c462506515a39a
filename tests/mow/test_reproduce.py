"""The paper's tables, run again: which cells, and what the reports say."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from mow.app import data, paper, reproduce
from mow.app.data import DataError
from mow.app.options import Options


@pytest.fixture
def machine(pictures_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a Fashion-MNIST of 180 train pictures and without MNIST and CIFAR-10."""
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
    given = {"test_latents": 2000, "test_reconstruction": 12.345, "test_cwae_distance": 0.05, "test_wae_distance": 0.1}
    head = {
        "name": name,
        "options": {},
        "resolved": resolved,
        "data": f"pictures from {data}",
        "step": 9,
        "pictures": 99,
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
    assert set(missing) == {"cifar-10"} and "not found" in missing["cifar-10"]
    assert [cell.name for cell in cells] == ["mnist-wae-k1-published-seed0", "mnist-wae-k1-ours-seed0"]
    published = cells[0].options
    assert (published.data, published.dim, published.optimizer) == (str(pictures_file), 20, "sgd")
    assert published.architecture == "mnist", "the paper's, wherever the pictures are read from"
    assert (published.steps, published.lr) == (1800, 0.0025), "500 epochs x .02 of 180 pictures"
    assert not published.download, "a path is not downloaded"
    with pytest.raises(ValueError, match="no data set of table1 can be had: mnist was not found"):
        reproduce.cells("table1", 1)


@pytest.mark.parametrize(
    "words, message",
    [
        ({"what": "table5"}, "what is 'table5'"),
        ({"scale": 0.0}, "scale is 0.0"),
        ({"scale": float("nan")}, "scale is nan"),
        ({"ks": [2]}, "ks holds 2; table2 has 64, 32, 1"),
        ({"models": ["vae"]}, "models holds 'vae'; table2 has cwae, wae, swae"),
        ({"recipes": ["mine"]}, "recipes holds 'mine'"),
        ({"sources": {"mnist": "x"}}, "sources holds 'mnist'; table2 has fashion-mnist"),
    ],
)
def test_what_is_no_table(words: dict[str, Any], message: str, machine: None) -> None:
    with pytest.raises(ValueError, match=message):
        reproduce.cells(**{"what": "table2", "scale": 1.0, **words})


def test_the_tables_hold_every_system_once() -> None:
    systems = [(name, model) for table in paper.TABLES.values() for name in table.data for model in table.models]
    rated = [(name, model) for name, schedule in paper.SCHEDULES.items() for model in schedule.learning_rates]
    assert sorted(systems) == sorted(rated) and len(systems) == 9
    for schedule in paper.SCHEDULES.values():
        assert all(tuple(rates) == paper.KS for rates in schedule.learning_rates.values())
    assert {name for name, _ in systems} == set(paper.SCHEDULES)


# Reports


def test_the_figures_of_the_paper_stand_beside_ours(tmp_path: Path) -> None:
    names = [f"mnist-wae-k{k}-{recipe}-seed{seed}" for k in (64, 1) for recipe in paper.RECIPES for seed in (0, 1)]
    found = {
        name: result(name, "/some/where/digits.npz", int(name[-1]), test_wae_distance=0.1 + 0.02 * int(name[-1]))
        for name in names
    }
    report = reproduce.report("table1", 0.02, found, {"cifar-10": "CIFAR-10 was not found. Looked in /home/me."})
    path = reproduce.write(tmp_path, report)
    text, written = path.read_text(), json.loads((tmp_path / "report.json").read_text())
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert [line.split(" | ")[3] for line in lines] == ["paper", "published", "ours"] * 2
    assert lines[0] == "| MNIST | WAE | 64 | paper | 0.01 |  |  | 0.009 |  |"
    assert lines[3] == "| MNIST | WAE | 1 | paper | 0.0025 |  |  | 0.306 |  |"
    assert lines[4] == "|  |  |  | published | 0.001 | 12.3 ± 0 | 0.05 ± 0 | 0.11 ± 0.0141 |  |"
    assert "10 of the paper's 500 epochs (99 pictures seen); seeds 0, 1; distances over 2,000 test latents" in text
    assert "CIFAR-10: not run. CIFAR-10 was not found." in text and "second hand" in text
    assert "pictures from digits.npz" in text
    for content in (text, json.dumps(written)):
        assert "/some" not in content and "/home" not in content
    assert written["paper"][1] == {"data": "mnist", "model": "wae", "k": 1, "test_wae_distance": 0.306}
    assert list(written["results"]) == names


def test_a_report_says_whose_features(tmp_path: Path) -> None:
    name = "fashion-mnist-cwae-k1-ours-seed0"
    scores = {"test_frechet_classifier": 50.0, "features": "classifier-12ab", "features_accuracy": 0.9}
    page = reproduce.markdown(reproduce.report("table2", 1, {name: result(name, **scores)}, {}))
    assert "Fréchet, classifier | cost" in page.splitlines()[0]
    assert "in the features of classifier-12ab" in page and "It is no FID" in page
    assert "The paper's figures of this table are not known to us" in page


@pytest.mark.parametrize("finite", [3, 1, 0])
def test_figure_4_is_drawn(finite: int, tmp_path: Path) -> None:
    """From what is finite: in a run that diverges null stands for the rest."""
    name = "fashion-mnist-cwae-k1-ours-seed0"
    (tmp_path / name).mkdir()
    lines = [{"pictures": 10 * i, "test_reconstruction": 9 - i, "test_cramer_wold": 0.1 / (i + 1)} for i in range(3)]
    for line in lines[finite:]:
        line |= {"test_reconstruction": None, "test_cramer_wold": None}
    (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = reproduce.write(tmp_path, reproduce.report("fig4", 1, {name: result(name)}, {})).read_text()
    assert text.startswith("# Figure 4") and "![fig4](fig4.png)" in text
    assert (tmp_path / "fig4.png").read_bytes().startswith(b"\x89PNG")
