"""Sliced-Wasserstein against the reference in float64 on the device, by tests/bounds.py."""

from __future__ import annotations

import pytest
import torch
from bounds import F32, F64, Sample, check_drawn, check_sliced, evaluate, lattice, smooth
from targets import Target

import mow_kernels as mk
from mow_kernels.registry import TABLE

POWERS = [(1, 38), (1.5, 19), (2, 19), (3, 26)]
"""p and m. Triton compiles for a power of two of n and of m, for p and for D: most tests share them."""

SIZES = [19, *(pytest.param(n, marks=pytest.mark.long) for n in (1, 2))]
LARGE_SIZES = [1000, 5000]
LARGER = [257, 1024, 1025]


def some(sample: Sample, target: Target) -> Sample:
    """On the device, and for the interpreter, which takes long for each, only two of the directions."""
    chosen = sample.directions[:, :2] if target.small else sample.directions
    return Sample(sample.current, sample.history, sample.prior, chosen).to(target.device)


def cases(n: int) -> list[tuple[int, int | None, float]]:
    """k, m and p."""
    k = max(1, n // 2)
    return [(1, None, 2), (n, n, 2), (k, n, 1.5), (k, n + 7, 3), (n, 2 * n, 1), (k, max(1, n // 3), 2)]


@pytest.mark.parametrize("dim", [20, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("n", SIZES)
def test_float32(target: Target, n: int, dim: int, randn) -> None:
    for k, m, p in cases(n):
        check_sliced(target.backend, some(smooth(randn, n, k, m, dim, F32), target), p)


@pytest.mark.parametrize("dim", [20, pytest.param(513, marks=pytest.mark.long)])
@pytest.mark.parametrize("n", [*LARGE_SIZES, *(pytest.param(n, marks=pytest.mark.long) for n in LARGER)])
def test_large_samples(gpu: Target, n: int, dim: int, randn) -> None:
    for k, m, p in cases(n)[: 2 if n in LARGE_SIZES and dim == 20 else None]:
        check_sliced(gpu.backend, some(smooth(randn, n, k, m, dim, F32), gpu), p)


@pytest.mark.parametrize("m", [19, None])
def test_more_rows_than_are_merged(gpu: Target, m: int | None, randn) -> None:
    """From 65,537 on "cuda" sorts by radix."""
    if gpu.backend != "cuda":
        pytest.skip("it sorts as many as any others")
    check_sliced(gpu.backend, some(smooth(randn, 66_000, 3, m, 20, F32), gpu), 2)
    check_sliced(gpu.backend, some(lattice(66_000, 100, 19, 20, F32), gpu), 2, exact_projections=True)


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
@pytest.mark.parametrize("n", SIZES)
def test_float64(target: Target, n: int, every: bool, randn) -> None:
    for k, m, p in cases(n) if every else cases(n)[:4:3]:
        check_sliced(target.backend, some(smooth(randn, n, k, m, 20, F64), target), p)


@pytest.mark.parametrize("dtype", [F32, pytest.param(F64, marks=pytest.mark.long)])
@pytest.mark.parametrize("n", SIZES)
def test_ties_go_by_row_index(target: Target, n: int, dtype: torch.dtype) -> None:
    for k, m, p in cases(n):
        if m is not None:
            check_sliced(target.backend, some(lattice(n, k, m, 20, dtype), target), p, exact_projections=True)


@pytest.mark.parametrize("scale", [2.0**-20, 2.0**20])
@pytest.mark.parametrize("p, m", POWERS)
def test_magnitudes(target: Target, p: float, m: int, scale: float) -> None:
    sample = some(lattice(19, 9, m, 20, F32, scale, spread=64), target)
    check_sliced(target.backend, sample, p, exact_projections=True)


@pytest.mark.parametrize("dtype", [F32, pytest.param(F64, marks=pytest.mark.long)])
def test_views(target: Target, dtype: torch.dtype, randn) -> None:
    base = randn(400, 60, dtype=dtype).to(target.device)
    strided = Sample(
        current=base[1:20:2, 3:23],
        history=base[41:50, 3:23].T.contiguous().T,
        prior=torch.stack([base, -base], -1)[200:219, 3:23, 0],
        directions=base[:20, 5:8].T.contiguous().T,
    )
    dense = Sample(*(view.contiguous() for view in vars(strided).values()))
    for expected, actual in zip(evaluate(target.backend, dense, 2), evaluate(target.backend, strided, 2), strict=True):
        torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.long), 3])
def test_any_number_of_directions(target: Target, count: int, randn) -> None:
    sample = smooth(randn, 19, 5, 19, 20, F32)
    directions = torch.nn.functional.normalize(randn(20, count, dtype=F32), dim=0)
    sample = Sample(sample.current, sample.history, sample.prior, directions)
    check_sliced(target.backend, sample.to(target.device), 2)


@pytest.mark.parametrize("m", [19, pytest.param(None, marks=pytest.mark.long)])
def test_draws_are_normalised(target: Target, m: int | None, randn) -> None:
    check_drawn(target.backend, some(smooth(randn, 19, 5, m, 20, F32), target), 2)


@pytest.mark.long
def test_draws_beyond_a_block_are_normalised(gpu: Target, randn) -> None:
    check_drawn(gpu.backend, smooth(randn, 1500, 5, 19, 20, F32).to(gpu.device), 2)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), pytest.param(-float("inf"), marks=pytest.mark.long)])
def test_what_is_not_finite_stays_visible(target: Target, bad: float, randn) -> None:
    for place in ("current", "history", "prior"):
        sample = some(smooth(randn, 19, 5, 19, 20, F32), target)
        getattr(sample, place)[0, 0] = bad
        value, _ = evaluate(target.backend, sample, 2)
        assert not value.isfinite()


@pytest.mark.parametrize("dtype", [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.long)])
def test_half_types(target: Target, dtype: torch.dtype, randn) -> None:
    sample = some(smooth(randn, 19, 5, 19, 20, F32), target).to(dtype)
    value, gradient = evaluate(target.backend, sample, 2)
    right, right_gradient = evaluate("reference", sample.to(F32), 2)
    assert value.dtype == F32 and gradient.dtype == dtype
    torch.testing.assert_close(value, right, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradient.float(), right_gradient, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


def test_the_same_bits_again(target: Target, randn) -> None:
    n = 19 if target.small else 5000
    sample = some(smooth(randn, n, n // 2, n, 20, F32), target)
    for first, again in zip(evaluate(target.backend, sample, 2), evaluate(target.backend, sample, 2), strict=True):
        assert torch.equal(first, again)


def test_no_gradient_wanted(target: Target, randn) -> None:
    sample = some(smooth(randn, 19, 5, 19, 20, F32), target)
    with mk.use_backend(target.backend):
        value = mk.sliced_wasserstein(sample.current, sample.history, sample.prior, directions=sample.directions)
    assert torch.equal(value, evaluate(target.backend, sample, 2)[0])


@pytest.mark.parametrize("sampled", [True, pytest.param(False, marks=pytest.mark.long)])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(
    "n, k, m", [(19, 3, 19), *(pytest.param(*size, marks=pytest.mark.long) for size in ((19, 3, 12), (80, 70, 80)))]
)
def test_the_gradient_alone(target: Target, dtype: torch.dtype, n: int, k: int, m: int, sampled: bool) -> None:
    """Ranks are counted for few rows, in the block that would sort, and where torch would."""
    entry = TABLE["sliced_wasserstein"][target.backend].gradient
    sample = some(lattice(n, k, m, 20, dtype), target)
    given = (sample.current, sample.history, sample.prior if sampled else None)
    both, _ = entry(True, *given, directions=sample.directions, p=2)
    alone, nothing = entry(False, *given, directions=sample.directions, p=2)
    assert nothing is None and torch.equal(alone, both)
