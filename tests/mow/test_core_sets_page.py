"""The study of core-sets: the competitors are right, the scores too, and the page says what was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import mow
import mow_kernels as mk
from benchmarks import record
from benchmarks.timing import Effort
from mow.app import data
from mow.app.features import Features
from mow.training.stream import to_unit_range
from mow_kernels.registry import TABLE
from studies.core_sets import anomaly, energy, gan, report, sampling, speed
from studies.core_sets.__main__ import RESULTS, train

PARTS = ("coreset", "speed", "anomaly", "gan", "energy")


@pytest.mark.parametrize("name", speed.CANDIDATES)
def test_every_candidate_takes_the_same_rows(name: str) -> None:
    function, _ = speed.CANDIDATES[name]
    x = torch.randn(200, 7, generator=torch.Generator().manual_seed(0))
    assert function(x, 30) == mk.k_center(x, 30, start=0).indices.tolist()


def test_average_precision() -> None:
    scores, positive = torch.tensor([0.9, 0.8, 0.7, 0.1]), torch.tensor([True, False, True, False])
    assert anomaly.average_precision(scores, positive) == pytest.approx((1 + 2 / 3) / 2)
    assert anomaly.average_precision(-scores, ~positive) == pytest.approx((1 + 2 / 3) / 2)
    assert anomaly.average_precision(positive.float(), positive) == 1


def test_precision_and_recall() -> None:
    """Two clusters, of which the generated rows have one and a place beside both."""
    near = torch.linspace(0, 1, 11)[:, None]
    real, generated = torch.cat([near, near + 10]), torch.cat([near + 0.05, near[:4] + 100])
    assert gan.coverage(real, generated) == pytest.approx((11 / 15, 0.5))
    assert gan.coverage(generated, real) == pytest.approx((0.5, 11 / 15))


def test_as_many_batches_as_are_wanted() -> None:
    features, random = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.Generator()
    for choice in ("random", "coreset"):
        found = list(sampling.batches(features, 6, choice, 8, random.manual_seed(1)))  # 3 an epoch
        assert [len(set(rows)) for rows in found] == 8 * [6]
    spread = [len(set(rows) & {0, 1}) for rows in sampling.batches(_apart(), 4, "coreset", 10, random.manual_seed(1))]
    assert spread == 10 * [2], "all that lie apart are taken where all rows are candidates"


def _apart() -> torch.Tensor:
    return torch.cat([torch.tensor([[50.0], [-50.0]]), torch.rand(18, 1, generator=torch.Generator().manual_seed(0))])


def test_an_energy_is_low_on_the_data() -> None:
    torch.manual_seed(0)
    model, prior = energy.EnergyModel(4), mow.priors.Normal(torch.Generator().manual_seed(0))
    x = torch.tensor([[0.9, 0.1, 0.9, 0.1]]) + 0.01 * torch.randn(64, 4)
    for _ in range(30):
        model.step(x, prior)
    with torch.no_grad():
        assert model.energy(x).max() < model.energy(1 - x).min()


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch, pictures_file: Path) -> data.PictureData:
    bars = data.load(str(pictures_file))
    labels = (torch.arange(180) % 3, torch.arange(20) % 3)
    source = data.PictureData(bars.name, bars.train, bars.test, bars.origin, False, *labels)
    monkeypatch.setattr(anomaly.data, "load", lambda name: source)
    return source


@pytest.fixture
def trained(source: data.PictureData, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Results of both trained parts, brief, the second from where it was interrupted."""
    network = Features("classifier-0", 0.5, lambda pictures: to_unit_range(pictures).flatten(1)[:, :5].double())
    monkeypatch.setattr(gan.features, "classifier", lambda source: network)
    cells = [{"batch": 16, "seed": seed, "choice": choice} for seed in (0, 1) for choice in ("random", "coreset")]
    monkeypatch.setattr(gan, "CELLS", cells)
    monkeypatch.setattr(gan, "GENERATED", 50)
    digits = [{"digit": 1, "seed": seed, "choice": choice} for seed in (0, 1) for choice in ("random", "coreset")]
    monkeypatch.setattr(energy, "CELLS", digits[:3])
    for part in (gan.Task, energy.Task):
        monkeypatch.setitem(part.run.__kwdefaults__, "steps", 2)
    train(None, tmp_path)
    first = json.loads((tmp_path / "energy.json").read_text())["runs"]
    monkeypatch.setattr(energy, "CELLS", digits)
    train(["energy"], tmp_path)
    runs = json.loads((tmp_path / "energy.json").read_text())["runs"]
    assert len(first) == 3 and runs[:3] == first and len(runs) == 4
    return tmp_path


@pytest.fixture
def found(source: data.PictureData, monkeypatch: pytest.MonkeyPatch) -> tuple[dict, dict]:
    """Small measurements of the other two parts."""
    for name, value in {"CLASSES": range(3), "SEEDS": range(2), "BANKS": (4, 16), "BATCH": 8}.items():
        monkeypatch.setattr(anomaly, name, value)
    monkeypatch.setattr(anomaly.auto_encoder, "__defaults__", (3,))
    brief = Effort(rounds=(2, 2), seconds=0.0, sample_seconds=1e-5)
    cases = [speed.measure(64, 8, 4, brief, tuple(speed.CANDIDATES))]
    large = {"rows": 1000, "k": 10, "dim": 4, "seconds": 2.0, "radius": 1.0, "sample_mib": 0.1, "extra_mib": 3.0}
    return {"cases": cases, "large": large}, anomaly.run()


def native() -> bool:
    return not isinstance(TABLE["k_center"]["cpp"], str)


@pytest.mark.skipif(not native(), reason="no native library")
def test_the_page_says_what_was_measured(found: tuple[dict, dict], trained: Path, tmp_path: Path) -> None:
    for name, content in zip(("speed", "anomaly"), found, strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps({**record.head("the command", 0), **content}))
    shutil.copy(RESULTS / "coreset.json", tmp_path)
    page = tmp_path / report.PAGE
    markers = [f"<!-- {name}:{end} -->" for name in PARTS for end in ("start", "end")]
    page.write_text("\n".join(["before", *markers, "after"]))
    report.write(tmp_path, tmp_path)
    once = page.read_text()
    assert report.write(tmp_path, tmp_path) == [page] and page.read_text() == once
    assert once.startswith("before\n<!-- coreset:start -->\n|") and once.endswith("<!-- energy:end -->\nafter")
    assert "| plain PyTorch loop |" in once and "1,000 -> 10 at D = 4: 2 s" in once and "the command" in once
    score = found[1]["memory"]["coreset 16"]["by_class"][2]
    runs = json.loads((tmp_path / "energy.json").read_text())["runs"]
    plain, chosen = ([run["auprc"] for run in runs if run["choice"] == choice] for choice in ("random", "coreset"))
    words = [f"{sum(side) / 2:.3f} ({min(side):.3f} – {max(side):.3f})" for side in (plain, chosen)]
    words += [f"{(sum(chosen) - sum(plain)) / 2:+.3f} ["]
    assert f"| without 1 | 2 | {' | '.join(words)}" in once and "| batch of 16, recall | 2 |" in once
    assert "| memory, bank of 16 |" in once and f"-> {score:.2f} |" in once
