"""The runs behind docs/reproduction.md: which there are, what is kept of them, and the tables made of it."""

from __future__ import annotations

import dataclasses
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("scipy")

from mow.app import data, paper, reproduce
from mow.app.data import DataError
from mow.app.options import Options
from studies.reproduction import experiment, report, tables
from studies.reproduction.__main__ import RESULTS


def result(row: paper.Row, recipe: str, seed: int = 0, **scores: Any) -> dict[str, Any]:
    return {
        "resolved": {
            "seed": seed,
            "lr": 0.01,
            "data": row.data,
            "architecture": "mnist",
            "data_dir": None,
            "weight": 1.0,
            "root": True,
            "log": False,
        },
        "data": f"{row.data} pictures",
        "pictures": 1000,
        "epochs": 20.0,
        "test_latents": 2000,
        "test_reconstruction": 10.0,
        "test_cwae_distance": 0.03,
        "test_wae_distance": 0.02,
        "curve": [],
        **scores,
    }


def found(row: paper.Row, **several: dict[str, Any]) -> dict[str, Any]:
    results = {f"{row.data}-{row.model}-k{row.k}-{name}": one for name, one in several.items()}
    return {"what": row.table, "results": {name.replace("_", "-"): one for name, one in results.items()}, "missing": {}}


def test_the_stages_have_every_line_that_can_be_had() -> None:
    run = {
        (row.data, row.model, row.k, recipe)
        for stage in tables.STAGES
        for recipe in stage.recipes
        for row in paper.ROWS
        if row.data == stage.data and row.k in stage.ks and (stage.models is None or row.model in stage.models)
        if stage.epochs <= tables.EPOCHS and stage.change is None
    }
    wanted = {(r.data, r.model, r.k, recipe) for r in paper.ROWS for recipe in paper.RECIPES if r.data != "celeba"}
    assert run == wanted and set(tables.MISSING) == set(paper.SCHEDULES)


def test_the_cells_of_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures_file = tmp_path / "pictures.npz"
    np.savez(pictures_file, train=np.zeros((180, 4, 4), np.uint8), test=np.ones((20, 4, 4), np.uint8))
    small, load = data.load(pictures_file), data.load

    def had(name: str, **options: Any) -> Any:
        if name in paper.SCHEDULES and name != "mnist":
            raise DataError(f"{name} was not found.")
        return dataclasses.replace(small, name=name) if name == "mnist" else load(name, **options)

    monkeypatch.setattr(data, "load", had)
    stage = tables.Stage("mnist", (64,), ("ours",), (0, 2))
    named = {what: [cell.name for cell in cells] for what, cells in tables.cells(stage)}
    assert named == {
        f"table{i}": [f"mnist-{model}-k64-ours-seed{seed}" for seed in (0, 2)]
        for i, model in ((1, "wae"), (3, "cwae"), (4, "swae"))
    }
    assert [what for what, _ in tables.cells(dataclasses.replace(stage, models=("cwae",)))] == ["table3"]
    long = dataclasses.replace(stage, epochs=tables.LONG)
    assert tables.folder(Path("out"), long, "table1") == Path("out/table1-long")
    heavy = dataclasses.replace(stage, change="lambda3", models=("cwae",))
    assert tables.folder(Path("out"), heavy, "table3") == Path("out/table3-lambda3")
    assert {(o.weight, o.lr) for _, cells in tables.cells(heavy) for o in (cell.options for cell in cells)} == {
        (3.0, 1e-3)
    }
    brief = dataclasses.replace(stage, epochs=4.0, evaluations=3, compiled=True)
    assert {
        (o.steps, o.evaluate_every, o.checkpoint_every, o.compile, o.weight, o.lr)
        for _, cells in tables.cells(brief)
        for o in (cell.options for cell in cells)
    } == {(12, 4, 4, True, None, None)}
    other = dataclasses.replace(stage, convolutions=True)
    assert tables.folder(Path("out"), other, "table2") == Path("out/table2-convolutions")
    assert {o.precision for _, cells in tables.cells(other) for o in (cell.options for cell in cells)} == {"bf16"}
    shorter = dataclasses.replace(stage, epochs=tables.CIFAR_EPOCHS)
    assert tables.folder(Path("out"), shorter, "table1") == Path("out/table1")
    with pytest.raises(ValueError, match="cifar-10 was not found"):
        list(tables.cells(tables.Stage("cifar-10", (1,), ("ours",)), sources={"mnist": str(pictures_file)}))


def test_what_is_finished_is_kept(tmp_path: Path) -> None:
    row = paper.ROWS[0]
    done, begun = (tmp_path / "out" / "table1" / f"mnist-wae-k64-{name}-seed0" for name in ("published", "ours"))
    for path in (done, begun):
        path.mkdir(parents=True)
    (done / "result.json").write_text(json.dumps(result(row, "published")))
    (done / "metrics.jsonl").write_text('{"pictures": 5, "test_reconstruction": 9.0, "test_cramer_wold": 0.1}\n')
    (tmp_path / "results").mkdir()
    assert tables.collect(tmp_path / "out", tmp_path / "results") == [tmp_path / "results" / "table1.json"]
    kept = json.loads((tmp_path / "results" / "table1.json").read_text())
    assert list(kept["results"]) == [done.name] and kept["results"][done.name]["curve"] == [[5, 9.0, 0.1]]

    begun.rename(done.with_name("later"))
    done.rename(begun)
    tables.collect(tmp_path / "out", tmp_path / "results")
    beside = json.loads((tmp_path / "results" / "table1.json").read_text())["results"]
    assert beside.keys() == {done.name, begun.name} and beside[done.name] == kept["results"][done.name]


def test_cifar_of_its_jpeg_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "cifar.tar.gz", "w:gz") as tar:
        for part, label, level in (("train", "cat", 200), ("train", "bird", 100), ("test", "cat", 50)):
            content = io.BytesIO()
            Image.new("RGB", (32, 32), (level, level, level)).save(content, "JPEG")
            member = tarfile.TarInfo(f"{part}/{label}/0000.jpg")
            member.size = len(content.getvalue())
            tar.addfile(member, io.BytesIO(content.getvalue()))
    assert tables.cifar_from_jpeg(tmp_path / "cifar.tar.gz", tmp_path / "new" / "cifar.npz") == (2, 1)
    read = data.load(tmp_path / "new" / "cifar.npz")
    assert read.train.shape == (2, 3, 32, 32) and read.test_labels is not None and read.train_labels is not None
    assert (read.train_labels.tolist(), read.test_labels.tolist()) == ([1, 0], [1]), "classes by the alphabet"
    assert abs(int(read.train[0].max()) - 200) < 3


def test_pairs_are_of_one_seed() -> None:
    row = paper.ROWS[0]
    several = {
        f"{recipe}_seed{seed}": result(row, recipe, seed, test_reconstruction=10.0 + seed - off)
        for recipe, off, seeds in (("published", 0, (0, 1, 3)), ("ours", 0.5, (0, 1, 2)))
        for seed in seeds
    }
    page = report.paired_table([found(row, **several)], lambda line: [((line, "published"), (line, "ours"))])
    line = next(line for line in page.splitlines() if "| reconstruction |" in line)
    assert "MNIST, WAE, 20 epochs: k = 64, published / k = 64, ours" in line
    assert "| 2 | 10.50 | 10.00 | -0.50 [-0.50, -0.50] | better |" in line


def test_what_is_called_ours_is_the_defaults() -> None:
    """And what is called after a change has that change alone, in all results that are kept."""
    followed = ("model", "data", "architecture", "dim", "k", "n", "steps", "seed", "threads", "device")
    followed += ("log_every", "evaluate_every", "checkpoint_every", "data_dir")
    seen = []
    for path in sorted(RESULTS.glob("table?*.json")):
        change = path.stem.partition("-")[2]
        for cell, one in json.loads(path.read_text())["results"].items():
            if "-ours-" in cell:
                chosen = {name: one["resolved"][name] for name in followed}
                chosen |= {"precision": "bf16"} if change == "convolutions" else {}
                options = Options(**{**chosen, "data": "fashion-mnist"})
                options = tables.changed(options, change if change in tables.CHANGES else None)
                expected = dataclasses.asdict(options.resolved())
                known = one["resolved"].keys() - {"data", "data_dir"}
                assert {name: one["resolved"][name] for name in known} == {name: expected[name] for name in known}, cell
                seen.append(change)
    assert set(seen) >= {"", *tables.CHANGES} and {f"ours-{name}" for name in tables.CHANGES} < report.OURS.keys()


def test_a_change_is_told_from_the_defaults() -> None:
    """Lines and pairs of a change are its own, on both sides; of the defaults, those without."""
    many, one = paper.ROWS[0], paper.ROWS[2]
    plain = {"what": "table1", "missing": {}, "results": {f"{_of(many)}-ours-seed0": result(many, "ours")}}
    rooted = {f"{_of(row)}-ours-seed0": result(row, "ours", test_reconstruction=7.0) for row in (many, one)}
    both = report.with_changes("table1", {"table1": plain, "table1-root": {**plain, "results": rooted}})
    page = report.paired_table([both], lambda row: report._one_against_many(row, report.OURS))
    rooted_line = "half the rate, root, lambda = 1"
    assert f"k = 64, {rooted_line} / k = 1, {rooted_line} | reconstruction | 1 | 7.00 | 7.00 |" in page
    assert page.count("epochs: ") == 1, "there is no k = 1 of the defaults"
    lines = [line.split(" | ")[3:8] for line in reproduce.markdown(both).splitlines() if line.startswith("|  |  |")]
    assert [line[0] for line in lines[:4]] == ["ours", rooted_line, "ours", rooted_line]
    assert reproduce.markdown(both).count("| not run: ") == len(paper.TABLES["table1"].rows) - 1, "ours at k = 1, too"
    assert reproduce.markdown(both).count(f"| {rooted_line} | 0.01 | 20 | 7 |") == 2
    assert "the others: these options in place of theirs" in reproduce.markdown(both)
    assert reproduce.draw(both).startswith(b"\x89PNG")


def _of(row: paper.Row) -> str:
    return f"{row.data}-{row.model}-k{row.k}"


def test_where_a_run_heads() -> None:
    """A power law is continued to the end of the paper's schedule."""
    row = paper.ROWS[0]
    curve = [[50 * i, 100 / i**0.5, 0.1] for i in range(1, 21)]
    page = report.heads([found(row, published_seed0=result(row, "published", curve=curve))])
    assert "| epochs | 2 | 5 | 10 | 20 | 500 by the power law | 500, paper |" in page
    assert (
        f"| reconstruction | {100 / 2**0.5:.2f} | {100 / 5**0.5:.2f} | {100 / 10**0.5:.2f} | 22.36 | 4.5 | 5.495 |"
        in page
    )
    short = result(row, "published", curve=curve, epochs=1.0)
    assert report.heads([found(row, published_seed0=short)]) == "Not measured yet."


def test_how_far_the_convolutions_got() -> None:
    assert "They wait for a GPU" in report.convolutions(report.STEPS, None)
    rows = [row for row in paper.ROWS if (row.table, row.model) == ("table2", "cwae")]
    scores = dict.fromkeys(report._WEIGHED, 0.25)
    runs = {
        str(row.k): {**result(row, "ours"), **scores, "step": 2000 // row.k, "seconds": 90.0 * row.k} for row in rows
    }
    for row in rows:
        runs[str(row.k)]["resolved"] |= {"k": row.k, "model": "cwae"}
    page = report.convolutions(report.STEPS, {"results": runs})
    assert [line.split(" | ")[:4] for line in page.splitlines()[-3:]] == [
        ["| 64", "31", "1,000", "96"], ["| 32", "62", "1,000", "48"], ["| 1", "2,000", "1,000", "2"],
    ]  # fmt: skip
    assert "CWAE, seed 0" in page and page.count("| 0.25 |") == 3


def test_the_ways_to_weigh() -> None:
    cells = {cell.name: cell.options for cell in experiment.weights(Path("held-out.npz"))}
    assert set().union(*experiment.WEIGHED.values()) == set(experiment.WAYS) and len(cells) > 20
    root, plain = cells["weight-wae-k1-root-seed100"], cells["weight-wae-k1-w10-seed100"]
    assert dataclasses.replace(root, root=False, weight=10.0) == plain
    published = cells["weight-wae-k64-published-seed101"]
    assert (published.weighting, published.root, published.lr, published.seed) == ("reference", True, 0.001, 101)
    runs = [
        {"name": name, "finished": True, "model": of.model, "k": of.k, **{score: of.seed for score in report._WEIGHED}}
        for name, of in cells.items()
    ]
    lines = report.weights_table(runs).splitlines()
    assert "| WAE | 64 | root, lambda 1 | 3 | 101.00 |" in "\n".join(
        lines
    ) and "| WAE | 1 | lambda 10 | 1 | 100.00 |" in str(lines)


def test_lines_that_were_not_run_say_why(tmp_path: Path) -> None:
    page = reproduce.markdown(reproduce.report("table4", {}, tables.MISSING))
    assert page.count("| not run: CelebA has no address to download it from |") == 3
    assert page.count("| not run: the runs have not come so far |") == 6
