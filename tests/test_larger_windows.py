"""The study of larger windows: what is run, and what its page makes of it."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import mow
from mow.app import grid
from mow.files import json_text
from studies import collected
from studies.larger_windows import adaptive, adaptive_report, experiment, remedies, report
from studies.larger_windows.__main__ import _run


def test_the_page_on_larger_windows_has_means_and_paired_differences() -> None:
    runs = [
        {
            "resolved": {"n": n, "k": k, "refresh": refresh, "seed": seed, "lr": 1e-4},
            "data": "pictures",
            "pictures": 60000,
            "test_cwae_distance_exact": 0.002 / n**0.5 + 0.001 * seed,
            "test_mmd": 0.01,
            "test_sliced_wasserstein": 0.02,
            "test_reconstruction": 15.0 + seed - (n == 256) * (k + seed % 2 + (refresh is not None)),
        }
        for n, k, refresh in ((256, 4, None), (256, 1, 64), (256, 1, None), (64, 1, None))
        for seed in range(3)
    ]
    page = report.text({"runs": runs}, "well").splitlines()
    assert sum(line.startswith("| 64 | 1 | 12.5 (2.5 – 22.5) |") for line in page) == 3
    lines = [line for line in page if line.startswith(("| 256 | 1 | -1.25 ± ", "| 256 | 4 | -1.25 ± "))]
    assert [line.rpartition(" | ")[2] for line in lines] == ["-1.33 ± 1.4 |", "-2.33 ± 1.4 |", "-4.33 ± 1.4 |"]
    # for k = 1 the differences are -1, -2, -1: 4.303 * 0.577 / sqrt(3)


def test_the_windows_of_the_other_ways_are_no_older_than_the_smallest() -> None:
    options = [cell.options for cell in experiment.cells(60_000)]
    assert {(o.n, o.k, o.refresh, o.steps) for o in options} == {
        (64, 1, None, 60_000),
        *((n, 1, refresh, 60_000) for n in (256, 1024, 4096) for refresh in (None, 64)),
        (256, 4, None, 15_000), (1024, 16, None, 3_750), (4096, 64, None, 938),
    }  # fmt: skip
    assert len(options) == 30


def adapted(window: str, seed: int, exact: float, reconstruction: float = 17.0, **changed: Any) -> dict[str, Any]:
    options = {"n": None, "adaptive": False, "refresh": None, **adaptive.WINDOWS[window]}
    resolved = {"seed": seed, "model": "cwae", "data": "fashion-mnist", "schedule": "cosine", **options, **changed}
    scores = {"test_cwae_distance_exact": exact, "test_mmd": 0.03, "test_sliced_wasserstein": 0.05}
    return {
        "name": window,
        "data": "some",
        "resolved": resolved,
        "pictures": 18000,
        "test_reconstruction": reconstruction,
        **scores,
    }


def test_runs_of_other_pictures_are_not_held_against_each_other() -> None:
    runs = [adapted("64", 0, 0.01), {**adapted("256", 0, 0.01), "data": "a few"}]
    with pytest.raises(ValueError, match="256 is of a few, but other runs of fashion-mnist are of some"):
        adaptive_report.groups({"runs": runs})


def test_a_run_that_the_results_have_is_not_run_again(tmp_path: Path) -> None:
    """Also one from before an option was there; but one of other options is, and one that is new."""
    (first, second, third), file = adaptive.cells(100)[:3], tmp_path / "results.json"
    resolved = {**dataclasses.asdict(first.options), "lr": 7.0}
    del resolved["correct_drift"]
    changed = {"name": second.name, "resolved": {**dataclasses.asdict(second.options), "steps": 99}}
    same = dataclasses.replace(first.options, correct_drift=False, lr=None, data_dir="elsewhere")
    file.write_text(json_text({"runs": [{"name": first.name, "resolved": resolved}, changed]}))
    cells = [grid.Cell(first.name, same), second, third]
    ran = _run(cells, tmp_path / "runs", math.inf, file, lambda cell, at: {"name": cell.name, "at": at})
    assert [run["name"] for run in ran] == [cell.name for cell in cells]
    assert [run.get("at") for run in ran] == [None, tmp_path / "runs" / second.name, tmp_path / "runs" / third.name]
    assert len(_run(cells, tmp_path / "runs", 0, file, lambda cell, at: {})) == 1
    assert collected.held(tmp_path / "none.json") == {}


def test_whether_the_span_does_what_it_is_for() -> None:
    """-30 % and -20 % by seed are -25 %; 0.0075 is above the 0.007 of n = 256; the errors are 0.1 and -0.3 apart."""
    runs = [
        adapted("adaptive", 0, 0.007, 17.1), adapted("adaptive", 1, 0.008, 16.7),
        adapted("64", 0, 0.010), adapted("64", 1, 0.010),
        adapted("256", 0, 0.007), adapted("256, refreshed", 0, 0.001),
    ]  # fmt: skip
    (line,) = adaptive_report.verdicts(adaptive_report.groups({"runs": runs})).splitlines()[2:]
    assert "| -25.0 % (-88.5 % to +38.5 %) |" in line and "| 75.0 against 70.0 (n = 256) |" in line
    verdict = "25 % below n = 64: yes; not above the best fixed n, 256: no; reconstruction no worse: yes"
    assert verdict in line and line.endswith(" 2 |")


def test_a_reconstruction_that_is_worse_within_its_interval_is_told_from_one_that_is_worse() -> None:
    """+0.1, +0.3 and -0.1 are no more than chance; +0.1, +0.11 and +0.09 are."""
    for errors, said in (((0.1, 0.3, -0.1), "within the interval"), ((0.1, 0.11, 0.09), "no"), ((0.1, -0.3, 0), "yes")):
        runs = [adapted("64", seed, 0.01) for seed in range(3)]
        runs += [adapted("adaptive", seed, 0.01, 17 + error) for seed, error in enumerate(errors)]
        (line,) = adaptive_report.verdicts(adaptive_report.groups({"runs": runs})).splitlines()[2:]
        assert f"reconstruction no worse: {said} |" in line


def test_another_window_is_judged_as_the_adaptive_one_is() -> None:
    runs = [
        adapted(window, seed, exact) for window, exact in (("64", 0.01), ("1024, refreshed", 0.007)) for seed in (0, 1)
    ]
    found = adaptive_report.groups({"runs": runs})
    assert adaptive_report.verdicts(found) == "Not run."
    assert "| -30.0 % (-30.0 % to -30.0 %) |" in adaptive_report.verdicts(found, "1024, refreshed")


def test_another_constant_stands_beside_the_default_one() -> None:
    small = [adapted("64", seed, 0.01) for seed in range(3)]
    found = adaptive_report.groups({"runs": [*small, adapted("adaptive", 2, 0.007, 16.9)]})
    other = {"staleness": 1.0, "runs": [adapted("adaptive", seed, 0.009, 17.5) for seed in range(2)]}
    heads, _, line = adaptive_report.constants(found, other).splitlines()
    assert "staleness 1 | seeds | staleness 1/3 | seeds |" in heads
    assert line == "| CWAE, Fashion-MNIST, cosine | -10.0 %, +0.50 | 2 | -30.0 %, -0.10 | 1 |"


def test_what_was_not_run_is_said() -> None:
    runs = [adapted(window, seed, 0.01) for window in adaptive.WINDOWS for seed in range(3)]
    said = adaptive_report.missing(adaptive_report.groups({"runs": runs[1:]}))
    assert "CWAE on Fashion-MNIST, cosine (adaptive);" in said and "SWAE on MNIST, constant (all)" in said
    assert "CWAE on Fashion-MNIST, cosine" not in adaptive_report.missing(adaptive_report.groups({"runs": runs}))


def test_the_cells_that_decide_most_come_first() -> None:
    cells = adaptive.cells(18_000)
    assert len(cells) == len({cell.name for cell in cells}) == 2 * 3 * 2 * 8 * 3
    first = [cell.options for cell in cells[:24]]
    data = "fashion-mnist", "mnist"
    assert {(o.data, o.model, o.schedule) for o in first} == {(d, m, "cosine") for d in data for m in ("cwae", "wae")}
    assert {(o.n, o.correct_drift) for o in first} == {(64, False), (512, True)}


def test_what_is_kept_of_a_run(tmp_path: Path) -> None:
    """Its scores on the way, and the looks after the first."""
    lines = [
        {"step": 0, "span": 64, "drift": {}, "test_cramer_wold": 0.5},
        {"step": 300, "span": 16, "drift": {"16": 0.123456}},
        {"step": 600, "span": 20, "drift": {"16": 0.1}, "test_cramer_wold": 0.25},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json_text(line) + "\n" for line in lines))
    found = adaptive.kept({**adapted("adaptive", 0, 0.01), "options": {}}, tmp_path)
    assert found["way"] == [{"step": 0, "cramer_wold": 0.5}, {"step": 600, "cramer_wold": 0.25}]
    assert [(look["step"], look["span"], look["drift"]) for look in found["looks"]] == [
        (300, 16, {"16": 0.1235}), (600, 20, {"16": 0.1}),
    ]  # fmt: skip
    assert "looks" not in adaptive.kept({**adapted("64", 0, 0.01), "options": {}}, tmp_path)
    with pytest.raises(ValueError, match="has none of the windows"):
        adaptive.window_of(adapted("64", 0, 0.01, n=100))


def test_in_short_is_what_carrying_rows_along_gains() -> None:
    assert adaptive_report.in_short({"runs": [adapted("64", 0, 0.01)]}) == "we do not know where: not run"
    runs = [
        *(adapted("64", seed, 0.01, 17.0) for seed in (0, 1)),
        *(adapted(adaptive_report.CORRECTED, seed, exact, 16.5) for seed, exact in ((0, 0.005), (1, 0.007))),
    ]
    said = adaptive_report.in_short({"runs": runs})
    assert "by -40 to -40 % (CWAE), in 1 tasks, and" in said and "by -0.50 to -0.50" in said


def test_rows_that_weigh_alike_are_the_distance_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = torch.randn(9, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert float(remedies.by_age(9).sum()) == pytest.approx(1)
    assert float(remedies.by_age(9)[-1] / remedies.by_age(9)[-2]) == pytest.approx(math.exp(1 / remedies.MEAN_AGE))
    monkeypatch.setattr(remedies, "MEAN_AGE", 1e12)
    expected = mow.CramerWold()(rows[7:], rows[:7])
    torch.testing.assert_close(remedies.ByAge()(rows[7:], rows[:7]), expected)


def test_rows_of_a_slow_encoder() -> None:
    """Its weights follow those that are trained, and the window has what it makes of the new elements."""
    torch.manual_seed(0)
    encoder, decoder, window = nn.Linear(5, 2), nn.Linear(2, 5), mow.MovingWindow(12, 2)
    trainer = remedies.MomentumTrainer(encoder, decoder, mow.CramerWold(), window, k=2)
    window.fill(torch.randn(10, 2))
    first, x = encoder.weight.detach().clone(), torch.randn(2, 5)
    trainer.step(x)
    expected = remedies.MOMENTUM * first + (1 - remedies.MOMENTUM) * encoder.weight
    torch.testing.assert_close(trainer.slow.weight, expected.detach())
    torch.testing.assert_close(window.newest(2), trainer.slow(x))


def test_the_remedies_stand_beside_a_window_of_64() -> None:
    ours = [adapted(name, seed, exact) for name, exact in (("64", 0.01), ("512, corrected", 0.005)) for seed in (0, 1)]
    found = adaptive_report.groups({"runs": ours})
    runs = [{**adapted("256", seed, 0.012, 17.5), "remedy": "momentum"} for seed in (0, 1)]
    lines = adaptive_report.others(found, {"runs": runs}).splitlines()[-2:]
    assert lines == [
        "| momentum, n = 256, Fashion-MNIST | +20.0 % (+20.0 % to +20.0 %) | +0.50 (+0.50 to +0.50) | 2 |",
        "| n = 512, corrected, Fashion-MNIST | -50.0 % (-50.0 % to -50.0 %) | +0.00 (+0.00 to +0.00) | 2 |",
    ]
    assert adaptive_report.others(found, {"runs": []}) == "Not run."
    assert len([*remedies.cells(100)]) == 2 * 2 * 3
