"""The study of core-sets: the competitors are right, the scores too, and the page says what was measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import mow_kernels as mk
from benchmarks import record
from benchmarks.timing import Effort
from mow.app import data
from mow_kernels.registry import TABLE
from studies.core_sets import anomaly, report, speed
from studies.core_sets.__main__ import RESULTS


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


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch, pictures_file: Path) -> tuple[dict, dict]:
    """Small measurements of both parts."""
    bars = data.load(str(pictures_file))
    labels = (torch.arange(180) % 3, torch.arange(20) % 3)
    source = data.PictureData(bars.name, bars.train, bars.test, bars.origin, False, *labels)
    monkeypatch.setattr(anomaly.data, "load", lambda name: source)
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
def test_the_page_says_what_was_measured(found: tuple[dict, dict], tmp_path: Path) -> None:
    for name, content in zip(("speed", "anomaly"), found, strict=True):
        (tmp_path / f"{name}.json").write_text(json.dumps({**record.head("the command", 0), **content}))
    shutil.copy(RESULTS / "coreset.json", tmp_path)
    page = tmp_path / report.PAGE
    markers = [f"<!-- {name}:{end} -->" for name in ("coreset", "speed", "anomaly") for end in ("start", "end")]
    page.write_text("\n".join(["before", *markers, "after"]))
    report.write(tmp_path, tmp_path)
    once = page.read_text()
    assert report.write(tmp_path, tmp_path) == [page] and page.read_text() == once
    assert once.startswith("before\n<!-- coreset:start -->\n|") and once.endswith("<!-- anomaly:end -->\nafter")
    assert "| plain PyTorch loop |" in once and "1,000 -> 10 at D = 4: 2 s" in once and "the command" in once
    score = found[1]["memory"]["coreset 16"]["by_class"][2]
    assert "| memory, bank of 16 |" in once and f"-> {score:.2f} |" in once
