"""The notebook, what a notebook shows of objects, and the report from Python."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import mow
from mow.app.data import PictureData
from mow.app.models import mlp_decoder, mlp_encoder
from mow.app.trained import report
from mow.training import progress

NOTEBOOK = Path(__file__).resolve().parents[2] / "examples" / "quickstart.ipynb"
PNG = b"\x89PNG"


def cells() -> list[str]:
    """The code of the notebook, with fewer steps."""
    found = [
        "".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"
    ]
    return [code.replace("20_000", "40").replace("5000", "20") for code in found]


def test_the_notebook_has_ten_cells_and_no_outputs() -> None:
    parts = json.loads(NOTEBOOK.read_text())["cells"]
    code = [part for part in parts if part["cell_type"] == "code"]
    assert len(code) == 10 and all(part["outputs"] == [] and part["execution_count"] is None for part in code)
    assert len({part["id"] for part in parts}) == len(parts) == 20, "a sentence before each cell"


def test_the_notebook_from_import_to_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    values = []
    for code in cells():
        tree = ast.parse(code)
        last = ast.Expression(tree.body.pop().value) if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, NOTEBOOK.name, "exec"), names)
        values.append(None if last is None else eval(compile(last, NOTEBOOK.name, "eval"), names))
    drawn = [value for value in values if hasattr(value, "_repr_png_")]
    assert len(drawn) == 3 and all(value._repr_png_().startswith(PNG) for value in drawn)
    assert names["trainer"].steps_done == 40 and names["history"]["step"] == [20, 40]
    assert (tmp_path / values[-1]).read_text().count("data:image/png") == 3
    assert mow.Trainer.load("runs/quickstart/trainer.pt", names["encoder"], names["decoder"], mow.CramerWold(log=True))


@pytest.mark.long
def test_the_notebook_in_a_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell, code in zip([cell for cell in notebook.cells if cell.cell_type == "code"], cells(), strict=True):
        cell.source = code
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=place).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []
    shown = [output.data for output in outputs if "data" in output]
    assert sum("image/png" in data for data in shown) == 3
    bars = [data["text/html"] for data in shown if "<progress" in data.get("text/html", "")]
    assert len(bars) == 1 and 'value="40"' in bars[0]


def test_a_data_set_is_shown_with_pictures() -> None:
    pictures = torch.zeros(5, 3, 4, 6, dtype=torch.uint8)
    html = PictureData("mine", pictures, pictures[:2], "from <here>")._repr_html_()
    assert "from &lt;here&gt;" in html and re.search(r'<img alt="[^"]+" src="data:image/png;base64,', html)


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []

    class Handle:
        update = drawn.append

    display = SimpleNamespace(display=lambda html, display_id: drawn.append(html) or Handle, HTML=str)
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(progress.sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell, display=display))
    monkeypatch.setattr(progress.NotebookBar, "SECONDS", 1e9)
    trainer = mow.Trainer(nn.Linear(6, 2), nn.Linear(2, 6), mow.CramerWold(), mow.MovingWindow(8, 2))
    trainer.fit(torch.rand(9, 6), 5, log_every=1)
    values = [re.findall(r'value="(\d+)" max="5"', html) for html in drawn]
    assert values == [["0"], ["1"], ["5"]] and "loss" in drawn[-1]
    drawn.clear()
    trainer.fit(torch.rand(9, 6), 6, progress=False)
    assert drawn == []
    del shell.kernel  # that of a terminal
    trainer.fit(torch.rand(9, 6), 7)
    assert drawn == []


# The report from Python


@pytest.fixture
def trainer() -> mow.Trainer:
    torch.manual_seed(0)
    shape = (1, 4, 4)
    return mow.Trainer(
        mlp_encoder(shape, 2), mlp_decoder(shape, 2), mow.CramerWold(log=True), mow.MovingWindow(8, 2), k=2
    )


PICTURES = torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def test_the_report_of_a_trainer(trainer: mow.Trainer, tmp_path: Path) -> None:
    trainer.fit(PICTURES, 40, log_every=5, test=PICTURES[:12], test_every=20)
    path = report(trainer, tmp_path / "a" / "report", test=[(picture, 0) for picture in PICTURES[:12]])
    page = path.read_text()
    names = ["interpolations", "reconstructions", "samples"]
    assert sorted(each.name for each in path.parent.iterdir()) == sorted(
        ["metrics.jsonl", "report.html", *(f"{name}.png" for name in names)]
    )
    assert page.count("data:image/png") == 3 and page.count("<svg ") == 3
    for word in ("2 new of n = 8 a step", "CramerWold(log=True)", "Adam(lr=", "test distance", "40 steps"):
        assert word in page, word
    last = trainer.history[-1]
    assert f"{last['test_distance']:.4g}" in page
    steps = [json.loads(line)["step"] for line in (path.parent / "metrics.jsonl").read_text().splitlines()]
    assert steps == trainer.history["step"]


def test_a_report_leaves_the_training_as_it_was(trainer: mow.Trainer, tmp_path: Path) -> None:
    trainer.fit(PICTURES, 10)
    before = [value.clone() for value in trainer.encoder.state_dict().values()]
    random = torch.get_rng_state()
    report(trainer, tmp_path, PICTURES)
    assert all(map(torch.equal, before, trainer.encoder.state_dict().values())) and trainer.encoder.training
    assert torch.equal(random, torch.get_rng_state())


def test_what_an_earlier_report_left_is_replaced(trainer: mow.Trainer, tmp_path: Path) -> None:
    trainer.fit(PICTURES, 10)
    report(trainer, tmp_path, PICTURES)
    page = report(trainer, tmp_path, title="<mine>").read_text()
    assert page.count("data:image/png") == 1 and not (tmp_path / "reconstructions.png").exists()
    assert "<h1>&lt;mine&gt;</h1>" in page


def test_what_is_no_picture_is_not_drawn(tmp_path: Path) -> None:
    trainer = mow.Trainer(nn.Linear(6, 2), nn.Linear(2, 6), mow.CramerWold(), mow.MovingWindow(8, 2))
    trainer.fit(torch.rand(9, 6), 5)
    page = report(trainer, tmp_path, torch.rand(4, 6)).read_text()
    assert "data:image/png" not in page and page.count("<svg ") == 3


def test_no_report_of_nothing_or_over_a_run(trainer: mow.Trainer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="measured nothing; a report begins with trainer.fit"):
        report(trainer, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    trainer.fit(PICTURES, 4)
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(FileExistsError, match="holds a run of mow train"):
        report(trainer, tmp_path)
    with pytest.raises(TypeError, match="pictures is int"):
        report(trainer, tmp_path / "new", test=3)
    assert not (tmp_path / "new").exists()
