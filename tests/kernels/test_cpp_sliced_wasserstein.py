"""The sliced-Wasserstein kernel of the backend "cpp" against the reference in float64.

Allowed is twice the error of the reference in the same precision, plus 8 eps times the sum of the absolute terms: of
the products inside the projections, carried to the result by the derivative of the cost, and of the costs themselves.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

import mow_kernels as mk
from mow_kernels.reference.sliced_wasserstein import normal_bins, quantile_coupling
from mow_kernels.registry import TABLE

_cpp = TABLE["sliced_wasserstein"]["cpp"]
pytestmark = pytest.mark.skipif(isinstance(_cpp, str), reason=f"no native library: {_cpp}")

F32, F64 = torch.float32, torch.float64
SIZES = [1, 2, 63, 64, 65, 1000]
WIDTHS = [1, 2, 20, 64, 128, 513]
POWERS = [1, 1.5, 2, 3]


@dataclass(frozen=True)
class Sample:
    """A window, a prior and directions, in float32 or float64."""

    current: Tensor
    history: Tensor
    prior: Tensor | None
    directions: Tensor

    def to(self, dtype: torch.dtype) -> Sample:
        prior = None if self.prior is None else self.prior.to(dtype)
        return Sample(self.current.to(dtype), self.history.to(dtype), prior, self.directions.to(dtype))

    @property
    def window(self) -> Tensor:
        return torch.cat([self.history, self.current])


def evaluate(backend: str, sample: Sample, p: float) -> tuple[Tensor, Tensor]:
    """The value and its gradient for current."""
    current = sample.current.detach().requires_grad_()
    prior = "normal" if sample.prior is None else sample.prior
    with mk.use_backend(backend):
        value = mk.sliced_wasserstein(current, sample.history, prior, directions=sample.directions, p=p)
        (g_current,) = torch.autograd.grad(value, current)
    return value.detach(), g_current


def absolute_terms(exact: Sample, p: float) -> tuple[Tensor, Tensor]:
    """What a relative error of the products and costs is relative to: of the value [], of the gradient [D]."""
    x = (exact.window @ exact.directions).sort(0).values
    inside = (exact.window.abs() @ exact.directions.abs()).amax(0)
    if exact.prior is None:
        y = normal_bins(len(x))[0][:, None].expand_as(x)
    else:
        y = (exact.prior @ exact.directions).sort(0).values
        inside = inside + (exact.prior.abs() @ exact.directions.abs()).amax(0)
    i, j, widths = quantile_coupling(len(x), len(y))
    d = (x[i] - y[j]).abs()
    value = (widths @ (d**p + p * d ** (p - 1) * inside)).mean()
    slope = p * d.amax(0) ** (p - 1) + (p * (p - 1) * d.amax(0) ** (p - 2) * inside if p >= 2 else 0)
    return value, exact.directions.abs() @ slope / (len(x) * len(slope))


def well_ordered(exact: Sample, eps: float) -> Tensor:
    """[k]: whether no other row's projection comes so close that rounding could exchange the two."""
    projections = exact.window @ exact.directions
    margin = 8 * eps * (exact.window.abs() @ exact.directions.abs()).amax(0)
    ascending, order = projections.sort(dim=0, stable=True)
    apart = torch.nn.functional.pad(ascending.diff(dim=0) > margin, (0, 0, 1, 1), value=True)
    alone = torch.zeros_like(projections, dtype=torch.bool).scatter(0, order, apart[1:] & apart[:-1])
    return alone.all(1)[len(exact.history) :]


def check(sample: Sample, p: float, *, exact_projections: bool = False) -> None:
    """cpp against the reference.

    Where projections are rounded, the ranks of neighbours are a matter of luck, and so is the slope for p < 2 at a
    small difference: there the gradient is compared for p >= 2 and well-ordered rows alone.
    """
    exact, eps = sample.to(F64), torch.finfo(sample.current.dtype).eps
    value, g_current = evaluate("reference", exact, p)
    plain_value, plain_g = evaluate("reference", sample, p)
    actual_value, actual_g = evaluate("cpp", sample, p)
    assert actual_value.dtype == actual_g.dtype == sample.current.dtype and actual_g.shape == sample.current.shape

    value_terms, g_terms = absolute_terms(exact, p)
    assert (actual_value - value).abs() <= 2 * (plain_value - value).abs() + 8 * eps * value_terms
    if exact_projections or p >= 2:
        rows = slice(None) if exact_projections else well_ordered(exact, eps)
        error, plain = ((g - g_current).abs()[rows] for g in (actual_g, plain_g))
        assert (error <= 2 * plain + 8 * eps * g_terms).all()


def smooth(randn, n: int, k: int, m: int | None, dim: int, dtype: torch.dtype) -> Sample:
    """Normal rows off the origin, and unit directions; 19 of them fill no whole number of vectors."""
    rows = 1.5 * randn(n, dim, dtype=dtype) + 0.25
    directions = torch.nn.functional.normalize(randn(dim, 19, dtype=dtype), dim=0)
    return Sample(rows[n - k :], rows[: n - k], None if m is None else randn(m, dim, dtype=dtype), directions)


def lattice(n: int, k: int, m: int, dim: int, dtype: torch.dtype, scale: float = 1.0, spread: int = 4) -> Sample:
    """Small integers times a power of two: every projection is exact and most of them are tied."""
    generator = torch.Generator().manual_seed(n + dim)

    def draw(*shape: int) -> Tensor:
        return torch.randint(-spread, spread + 1, shape, generator=generator).to(dtype)

    rows = draw(n, dim) * scale
    return Sample(rows[n - k :], rows[: n - k], draw(m, dim) * scale, draw(dim, 19))


def counts(n: int) -> list[int]:
    return sorted({1, max(1, n // 2), n})


def cases(n: int) -> Iterator[tuple[int, int, float]]:
    """k, m and p: every k with every m, and each m with several p."""
    for i, k in enumerate(counts(n)):
        for j, m in enumerate((1, n, n + 7, 2 * n)):
            yield k, m, POWERS[(i + j) % len(POWERS)]


@pytest.mark.parametrize("dim", WIDTHS)
@pytest.mark.parametrize("n", SIZES)
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
@pytest.mark.parametrize("dim", [1, 20, 513])
@pytest.mark.parametrize("n", SIZES)
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


@pytest.mark.parametrize("m", [3000, 3111])
def test_the_same_bits_with_any_number_of_threads(m: int, randn) -> None:
    s = smooth(randn, 3000, 1500, m, 64, F32)
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


def test_no_gradient_wanted(randn) -> None:
    s = smooth(randn, 64, 5, 64, 20, F32)
    with mk.use_backend("cpp"):
        value = mk.sliced_wasserstein(s.current, s.history, s.prior, directions=s.directions)
    assert torch.equal(value, evaluate("cpp", s, 2)[0])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_stays_visible(bad: float, randn) -> None:
    for place in ("current", "history", "prior"):
        s = smooth(randn, 64, 5, 64, 20, F32)
        getattr(s, place)[0, 0] = bad
        value, _ = evaluate("cpp", s, 2)
        assert not value.isfinite()
