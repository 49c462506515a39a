"""The sliced-Wasserstein kernel of the backend "cpp" against the reference in float64, by tests/bounds.py."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bounds import F32, F64, Sample, check_sliced, evaluate, lattice, smooth

import mow_kernels as mk
from mow_kernels.registry import TABLE

_cpp = TABLE["sliced_wasserstein"]["cpp"]
pytestmark = pytest.mark.skipif(isinstance(_cpp, str), reason=f"no native library: {_cpp}")

check = functools.partial(check_sliced, "cpp")

SIZES = [1, 2, 63, 64, 65, 1000]
WIDTHS = [1, 2, 20, 64, 128, 513]
POWERS = [1, 1.5, 2, 3]


def shapes(widths: list[int]) -> list[Any]:
    """n and D; the largest takes as long as all others."""
    largest = max(SIZES), max(widths)
    return [pytest.param(n, dim, marks=[pytest.mark.long] * ((n, dim) == largest)) for n in SIZES for dim in widths]


def counts(n: int) -> list[int]:
    return sorted({1, max(1, n // 2), n})


def cases(n: int) -> Iterator[tuple[int, int, float]]:
    """k, m and p: every k with every m, and each m with several p."""
    for i, k in enumerate(counts(n)):
        for j, m in enumerate((1, n, n + 7, 2 * n)):
            yield k, m, POWERS[(i + j) % len(POWERS)]


@pytest.mark.parametrize("n, dim", shapes(WIDTHS))
def test_float32_within_twice_the_error_of_plain_torch(n: int, dim: int, randn) -> None:
    for k in counts(n):
        check(smooth(randn, n, k, None, dim, F32), 2)
        check(smooth(randn, n, k, n, dim, F32), 2)
    for k, m, p in cases(n):
        check(smooth(randn, n, k, m, dim, F32), p)


@pytest.mark.parametrize("n", SIZES)
def test_float64(n: int, randn) -> None:
    for k in counts(n):
        check(smooth(randn, n, k, None, 20, F64), 2)
        check(smooth(randn, n, k, n, 20, F64), 2)
    for k, m, p in cases(n):
        check(smooth(randn, n, k, m, 20, F64), p)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("n, dim", shapes([1, 20, 513]))
def test_ties_go_by_row_index(n: int, dim: int, dtype: torch.dtype) -> None:
    for k, m, p in cases(n):
        check(lattice(n, k, m, dim, dtype), p, exact_projections=True)


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
def test_magnitudes(scale: float, p: float, randn) -> None:
    check(lattice(65, 32, 72, 20, F32, scale, spread=64), p, exact_projections=True)
    s = smooth(randn, 65, 32, 72, 20, F32)
    check(Sample(s.current * scale, s.history * scale, s.prior * scale, s.directions), p)


@pytest.mark.parametrize("scale", [1.0, 1e6])
def test_all_rows_equal(scale: float, randn) -> None:
    row = randn(1, 20, dtype=F32) * scale
    directions = torch.nn.functional.normalize(randn(20, 19, dtype=F32), dim=0)
    same = Sample(row.repeat(32, 1), row.repeat(33, 1), row.repeat(65, 1), directions)
    value, g_current = evaluate("cpp", same, 2)
    assert value == 0 and (g_current == 0).all()

    prior = randn(65, 20, dtype=F32)
    value, g_current = evaluate("cpp", Sample(same.current, same.history, prior, directions), 2)
    projections = row.double() @ directions.double()  # the ranks of the current rows are 33, 34, ...
    differences = projections - (prior.double() @ directions.double()).sort(0).values[33:]
    expected = 2 / (65 * 19) * differences @ directions.double().T
    torch.testing.assert_close(g_current.double(), expected, rtol=1e-5, atol=1e-7 * scale)


@pytest.mark.parametrize("dtype", [F32, F64])
def test_views(dtype: torch.dtype, randn) -> None:
    base = randn(400, 60, dtype=dtype)
    strided = Sample(
        current=base[1:40:2, 3:43],
        history=base[41:130, 3:43].T.contiguous().T,
        prior=torch.stack([base, -base], -1)[200:309, 3:43, 0],
        directions=base[:40, 5:38].T.contiguous().T,
    )
    dense = Sample(*(view.contiguous() for view in vars(strided).values()))
    for expected, actual in zip(evaluate("cpp", dense, 2), evaluate("cpp", strided, 2), strict=True):
        assert torch.equal(actual, expected)
    repeated = Sample(dense.current, dense.history[:1].expand(9, 40), dense.prior[:1].expand(50, 40), dense.directions)
    check(repeated, 2, exact_projections=True)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("count", [1, 16, 17, 256, 300])
def test_any_number_of_directions(count: int, dtype: torch.dtype, randn) -> None:
    s = smooth(randn, 64, 5, 64, 20, dtype)
    directions = torch.nn.functional.normalize(randn(20, count, dtype=dtype), dim=0)
    check(Sample(s.current, s.history, s.prior, directions), 2)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("n", [255, 256, 257, 600, 1025])
def test_a_few_directions_beyond_the_last_full_vector(n: int, dtype: torch.dtype, randn) -> None:
    """They share vectors in another way: any number of them, with rows that do and do not divide into equal pieces."""
    few, tied = smooth(randn, n, 40, n - 1, 20, dtype), lattice(n, n // 2, n + 1, 20, dtype)
    for count in (1, 2, 3, 4, 5, 7, 8, 9, 18):
        check(Sample(few.current, few.history, few.prior, few.directions[:, :count]), 2)
        check(Sample(tied.current, tied.history, tied.prior, tied.directions[:, :count]), 2, exact_projections=True)


@pytest.mark.parametrize("isa", [pytest.param("baseline", marks=pytest.mark.long), "avx2"])
def test_a_few_directions_on_narrower_vectors(isa: str) -> None:
    """The test above, with the numbers of lanes that other instruction sets have."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", __file__, "-k", "last_full_vector"]
    finished = subprocess.run(command, env={**os.environ, "MOW_ISA": isa}, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stdout


@pytest.mark.parametrize("n, m", [(3000, 3000), (3000, 3111), (600, 650)])
def test_the_same_bits_with_any_number_of_threads(n: int, m: int, randn) -> None:
    """Nor with the number of directions that a task takes together, which depends on the threads where rows are few."""
    s = smooth(randn, n, n // 2, m, 64, F32)
    s = Sample(s.current, s.history, s.prior, torch.nn.functional.normalize(randn(64, 300, dtype=F32), dim=0))
    results = []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        results.append(evaluate("cpp", s, 2))
    for value, g_current in results[1:]:
        assert torch.equal(value, results[0][0]) and torch.equal(g_current, results[0][1])


def test_large_sorts(randn) -> None:
    """More rows than a power of two, over several levels of the network and of the prior's steps."""
    for n, m in ((4097, 4096), (9000, 9000)):
        check(smooth(randn, n, 40, m, 3, F32), 2)


def test_memory_is_used_again(randn) -> None:
    """After a call that needed more than what is kept between calls, and after one that needed less."""
    cases = [smooth(randn, n, 2, n, 2, F32) for n in (150_000, 64, 150_000, 3000)]
    found = [evaluate("cpp", s, 2) for s in cases]
    for s, (value, g_current) in zip(cases, found, strict=True):
        again = evaluate("cpp", s, 2)
        assert torch.equal(again[0], value) and torch.equal(again[1], g_current)


def test_no_gradient_wanted(randn) -> None:
    s = smooth(randn, 64, 5, 64, 20, F32)
    with mk.use_backend("cpp"):
        value = mk.sliced_wasserstein(s.current, s.history, s.prior, directions=s.directions)
    assert torch.equal(value, evaluate("cpp", s, 2)[0])


@pytest.mark.parametrize("n", [64, 600])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_visible(bad: float, n: int, randn) -> None:
    for place in ("current", "history", "prior"):
        s = smooth(randn, n, n // 2, n, 20, F32)
        s.current[:] = s.current[0]  # ties are counted, not looked for
        getattr(s, place)[0, 0] = bad
        value, _ = evaluate("cpp", s, 2)
        assert not value.isfinite()
