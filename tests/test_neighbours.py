"""The comparison of the neighbours: what it scores and counts is right, and its page says what was measured."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mow import fit_critical_batch
from mow.app.data import PictureData
from mow.files import append_json_line, read_json_lines
from studies.neighbours import critical, grid, report, speed, window
from studies.neighbours.__main__ import app
from studies.neighbours.step_memory import step_mib

ON = {
    "created": "2026-01-02T00:00:00+00:00",
    "command": "",
    "machine": {"cpu": "A processor", "instructions": "AVX2"},
    "versions": {"torch": "2.13.0", "mow-kernels": "0.1.0"},
}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison of 640 small pictures."""
    random = torch.Generator().manual_seed(0)
    train, test = (torch.randint(0, 256, (n, 1, 4, 4), generator=random, dtype=torch.uint8) for n in (700, 50))
    monkeypatch.setattr(window, "_pictures", lambda: PictureData("noise", train, test, "noise, found in a test"))
    monkeypatch.setattr(window, "PICTURES", 640)


def test_the_grid_is_scored() -> None:
    modes = grid.modes()
    assert modes.shape == (25, 2) and modes.min() == -4 and modes.unique().tolist() == [-4, -2, 0, 2, 4]
    assert grid.score(modes) == {"modes": 25, "high_quality": 1.0, "kl": pytest.approx(0, abs=1e-12)}
    assert grid.score(modes + 0.3) == {"modes": 0, "high_quality": 0.0, "kl": 0.0}
    one = grid.score(torch.cat([modes[:1].repeat(10, 1), modes[3:13] + 0.5]))
    assert one == {"modes": 1, "high_quality": 0.5, "kl": pytest.approx(math.log(25))}
    drawn = grid.score(grid.draw(5000, torch.Generator().manual_seed(0)))
    assert drawn["modes"] == 25 and drawn["high_quality"] > 0.999 and drawn["kl"] < 0.01


def test_the_memory_of_a_step_is_what_it_gives_back() -> None:
    kept: list[torch.Tensor] = []

    def step() -> None:
        kept[:] = [torch.zeros(2**18)]  # 1 MiB that stays, in place of that of the step before
        torch.zeros(2**19).add_(1)  # 2 MiB that do not

    assert step_mib(step) == pytest.approx(2, abs=0.01)


def test_two_passes_are_the_full_batch_and_pieces_are_not(small: None) -> None:
    results = {
        method: window.run({"method": method, "k": k, "seed": 0, "pictures": 640})
        for method, k in (("full", 64), ("two-pass", 5), ("pieces", 5), ("window", 5))
    }
    assert all(result["pictures"][-1] >= 640 for result in results.values())
    for name in ("test_reconstruction", "test_cramer_wold"):
        assert results["two-pass"][name] == pytest.approx(results["full"][name], rel=1e-3)
        assert results["pieces"][name] != pytest.approx(results["full"][name], rel=1e-3)


def test_a_method_sees_64_pictures_a_call(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(window, "_METHODS", {"noting": lambda *_: (16, lambda x: taken.append(len(x)))})
    window.prepare("noting", 16)()
    assert taken == [16] * 4


def test_what_is_measured_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(speed, "jobs", lambda: [{"seed": seed} for seed in range(3)])
    monkeypatch.setattr(speed, "run", lambda settings: asked.append(settings["seed"]) or {"ms": 1})
    words = ["run", "speed", "--out", str(tmp_path)]
    assert CliRunner().invoke(app, [*words, "--only", '{"seed": 1}']).exit_code == 0
    assert CliRunner().invoke(app, words).exit_code == 0
    assert asked == [1, 0, 2]
    lines = read_json_lines(tmp_path / "speed.jsonl")
    assert [line["settings"]["seed"] for line in lines] == asked
    assert lines[0]["ms"] == 1 and lines[0]["on"]["command"] == "python -m studies.neighbours run speed"


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "fit_critical_batch", partial(fit_critical_batch, resamples=10))


def result_lines() -> dict[str, list[dict[str, Any]]]:
    """Results of made-up runs."""
    pictures = [window.PICTURES // 2, window.PICTURES, 3 * window.PICTURES]
    methods = sorted({(job["method"], job["k"]) for job in window.jobs()})
    curves = {"pictures": pictures, "test_reconstruction": [30.0, 20.0, 10.0], "test_cramer_wold": [0.3, 0.2, 0.1]}
    grids = sorted({(job["batch"], job["coreset"]) for job in grid.jobs()})
    ends = {"modes": [1] * 7 + [23, 24, 25], "high_quality": [0.1] * 7 + [0.5] * 3, "kl": [2.0] * 7 + [0.25] * 3}
    found = {
        "window": [
            {"settings": {"method": m, "k": k, "seed": seed}, "data": "pictures", "step_mib": 0.5, **curves}
            for m, k in methods
            for seed in range(2)
        ],
        "critical": [
            {"settings": job, "data": "pictures", "curve": [19.0, 5.5, 4.9] + [4.5] * (100 // job["batch"]) + [3.9]}
            for job in critical.jobs()
        ],
        "grid": [{"settings": job, "step_mib": 0.25, **ends} for job in grid.jobs()],
        "speed": [
            {
                "optimizer_ms": 0.9,
                "window": [{"method": m, "k": k, "ms": 20.0 if m == "window" else 10.0} for m, k in methods],
                "grid": [{"batch": b, "coreset": c, "ms": 3.25} for b, c in grids],
            }
        ],
    }
    for line in found["critical"]:
        line["steps"] = 10 * len(line["curve"])
    return {part: [{**line, "on": ON} for line in lines] for part, lines in found.items()}


def written(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> Path:
    for part, lines in parts.items():
        for line in lines:
            append_json_line(folder / f"{part}.jsonl", line)
    names = ("machine", "window", "time", "critical", "grid")
    marked = (f"<!-- {name}:start -->\nwas here\n<!-- {name}:end -->\n" for name in names)
    (folder / "neighbours.md").write_text("".join(marked))
    return folder


def test_the_page_says_what_was_measured(few_resamples: None, tmp_path: Path) -> None:
    folder = written(tmp_path, result_lines())
    paths = report.write(folder, folder)
    assert {path.name for path in paths} == {
        "neighbours.md",
        *(f"neighbours-{name}.svg" for name in ("window", "critical", "grid")),
    }
    text = (folder / "neighbours.md").read_text()
    assert "was here" not in text
    assert "| moving window | 4 | 512 KiB | 12 s | 20.0 (20.0 to 20.0) | 0.2000 (0.2000 to 0.2000) |" in text
    # Twice as fast as the window, it has seen twice the pictures in that time: between those of the scores 20 and 10.
    assert "| classical, batch k | 4 | 12 s | 76,800 | 15.0 (15.0 to 15.0) | 0.1500 (0.1500 to 0.1500) |" in text
    assert "| 64 | core-set | 24.0 (24.0 to 24.0) | 0.50 (0.50 to 0.50) | 0.25 (0.25 to 0.25) | 3.25 ms | 256 K" in text
    assert "| 1 | 10 | 1,040 (1,040 to 1,040) | 1,040 |" in text and "0 of 100 runs missed" in text
    assert "pictures. A processor (AVX2), one thread; PyTorch 2.13.0, mow-kernels 0.1.0; 2026-01-02." in text
    first = {path.name: path.read_bytes() for path in paths}
    assert {path.name: path.read_bytes() for path in report.write(folder, folder)} == first


def test_a_run_that_missed_the_threshold_is_counted_and_left_out(few_resamples: None, tmp_path: Path) -> None:
    parts = result_lines()
    parts["critical"][0].update(curve=[19.0, 5.5, 4.9], steps=None)
    report.write(written(tmp_path, parts), tmp_path)
    text = (tmp_path / "neighbours.md").read_text()
    assert "1 of 100 runs missed" in text and "| 1 | 9 | 1,040" in text


def test_without_results_or_markers_nothing_is_written(few_resamples: None, tmp_path: Path) -> None:
    parts = result_lines()
    folder = written(tmp_path, {**parts, "grid": []})
    with pytest.raises(FileNotFoundError, match="run grid"):
        report.write(folder, folder)
    for line in parts["grid"]:
        append_json_line(folder / "grid.jsonl", line)
    page = folder / "neighbours.md"
    page.write_text(page.read_text().replace("<!-- grid:end -->", ""))
    before = page.read_text()
    with pytest.raises(ValueError, match="grid:start"):
        report.write(folder, folder)
    assert page.read_text() == before and not (folder / "images").exists()
