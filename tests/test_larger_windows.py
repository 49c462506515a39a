"""The study of larger windows: what is run, and what its page makes of it."""

from __future__ import annotations

from studies.larger_windows import experiment, report


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
    page = report.text({"runs": runs}).splitlines()
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
