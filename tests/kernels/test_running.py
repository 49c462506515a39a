"""Running sums against the reference on the rows that a plain list says are there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from bounds import SWEEP, VARIANTS, absolute_terms, draw, public
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_native
from torch import Tensor

import mow_kernels as mk
from mow_kernels.registry import OPS, TABLE

pytestmark = needs_native

UNBIASED = {"estimator": "unbiased"}


def running(
    op: str, options: dict, n: int, dim: int, dtype: torch.dtype = torch.float32, **more: Any
) -> mk.RunningSums:
    return mk.RunningSums(getattr(mk, op), n, dim, dtype=dtype, **public(options), **more)


def measured(sums: mk.RunningSums, z: Tensor, prior: Tensor | None = None) -> tuple[Tensor, Tensor]:
    live = z.detach().requires_grad_()
    value = sums.distance(live, prior)
    (gradient,) = torch.autograd.grad(value, live)
    assert value.dtype == gradient.dtype == z.dtype and value.shape == () and gradient.shape == z.shape
    alone, with_it = sums.gradient(z, prior)
    assert torch.equal(alone, gradient) and torch.equal(with_it, value) and not with_it.requires_grad
    return value.detach().double(), gradient.double()


def check(
    op: str,
    options: dict,
    sums: mk.RunningSums,
    z: Tensor,
    history: Tensor,
    fresh: Tensor | None = None,
    older: Tensor | None = None,
) -> None:
    """The error is at most twice the direct kernel's, plus 8 eps times the sum of the absolute terms."""
    prior = None if fresh is None else torch.cat([older, fresh])
    wide = None if prior is None else prior.double()
    live, live_z = z.double().requires_grad_(), z.detach().clone().requires_grad_()
    truth = OPS[op].reference(live, history.double(), wide, **options)
    (true_gradient,) = torch.autograd.grad(truth, live)
    direct = TABLE[op]["cpp"].run(live_z, history, prior, **options)
    (direct_gradient,) = torch.autograd.grad(direct, live_z)
    terms, gradient_terms = absolute_terms(op, z.double(), history.double(), wide, options)
    value, gradient = measured(sums, z, fresh)
    eps = 8 * torch.finfo(z.dtype).eps if z.dtype == torch.float32 else 2e-12
    assert (value - truth).abs() <= 2 * (direct - truth).abs() + eps * terms
    excess = (gradient - true_gradient).abs() - 2 * (direct_gradient - true_gradient).abs() - eps * gradient_terms
    assert excess.max() <= 1e-30


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    variant=st.sampled_from(VARIANTS),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    n=st.integers(2, 70),
    dim=st.sampled_from([2, 20, 40]),
    steps=st.lists(
        st.tuples(st.sampled_from(["as measured", "encoded again", "fill", "unmeasured"]), st.integers(1, 40)),
        max_size=12,
    ),
    far=st.booleans(),
    sampled=st.booleans(),
)
def test_random_steps(
    variant: tuple[str, dict],
    dtype: torch.dtype,
    n: int,
    dim: int,
    steps: list[tuple[str, int]],
    far: bool,
    sampled: bool,
) -> None:
    op, options = variant
    sampled = sampled or options.get("kernel") == "laplacian"
    sums, rows = running(op, options, n, dim, dtype, sampled=sampled), torch.empty(0, dim, dtype=dtype)
    prior = rows if sampled else None
    for number, (what, k) in enumerate(steps):
        z, again, drawn = ((draw(k, dim, 3 * number + i) + 30 * far).to(dtype) for i in range(3))
        fresh = drawn if sampled else None
        if what == "fill":
            sums.fill(z, number, fresh)
            rows, prior = z[-n:], None if fresh is None else fresh[-n:]
            continue
        if what == "unmeasured":
            z = again
        elif k <= n and not (options.get("estimator") == "unbiased" and min(len(rows), n - k) + k == 1):
            kept = slice(max(0, len(rows) - (n - k)), None)
            check(op, options, sums, z, rows[kept], fresh, None if prior is None else prior[kept])
        sums.push(again if what == "encoded again" else z, fresh)
        rows = torch.cat([rows, z if what == "as measured" else again])[-n:]
        prior = None if fresh is None else torch.cat([prior, fresh])[-n:]
        assert sums.rows == len(rows)


def pushed_and_filled(
    op: str, options: dict, n: int, stream: Tensor, prior: Tensor | None, sizes: tuple[int, ...]
) -> tuple[mk.RunningSums, mk.RunningSums]:
    """Two windows of the newest n rows of a stream: by pushes of these sizes, small ones measured first; by a fill."""
    pushed, filled = (running(op, options, n, stream.shape[1], sampled=prior is not None) for _ in range(2))
    at = 0
    for size in sizes:
        rows, fresh = stream[at : at + size], None if prior is None else prior[at : at + size]
        if size < 60:
            measured(pushed, rows, fresh)
        pushed.push(rows, fresh)
        at += size
    filled.fill(stream[at - n : at], at - n, None if prior is None else prior[at - n : at])
    return pushed, filled


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("op, options", SWEEP)
@pytest.mark.parametrize("dim", [20, 48])
def test_how_the_rows_came_in_leaves_no_trace(op: str, options: dict, dim: int, sampled: bool) -> None:
    """One fill, or pushes of any size, measured or not: the same bits for every later step."""
    if not sampled and options.get("kernel") == "laplacian":
        pytest.skip("no closed form")
    z, drawn = draw(7, dim, 0).float(), draw(7, dim, 2).float() if sampled else None
    stream = draw(260, dim, 1).float() + 5 * (torch.arange(260) % 9 == 0)[:, None]
    prior = draw(260, dim, 3).float() if sampled else None
    pushed, filled = pushed_and_filled(op, options, 100, stream, prior, (60, 1, 1, 30, 7, 64, 3, 94))
    assert all(map(torch.equal, measured(pushed, z, drawn), measured(filled, z, drawn)))


@pytest.mark.parametrize("sampled", [pytest.param(False, marks=pytest.mark.long), True])
@pytest.mark.parametrize(
    "op, options",
    [VARIANTS[0], VARIANTS[5], *(pytest.param(*VARIANTS[i], marks=pytest.mark.long) for i in (9, 11))],
)
def test_large_windows_and_threads(op: str, options: dict, sampled: bool) -> None:
    """Several tasks and both threads; the bits do not depend on them."""
    n, dim, results = 1600, 24, []
    rows, z, prior, drawn = (draw(count, dim, i).float() for i, count in enumerate((n, 70, n, 70)))
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            sums = running(op, options, n, dim, sampled=sampled)
            sums.fill(rows, 1234, prior if sampled else None)
            fresh = (drawn, drawn[:1]) if sampled else (None, None)
            first = measured(sums, z, fresh[0])
            if threads == 2:
                check(op, options, sums, z, rows[70:], fresh[0], prior[70:] if sampled else None)
            sums.push(z, fresh[0])
            results.append((*first, *measured(sums, z[:1], fresh[1])))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))


def test_the_measured_rows_are_not_taken_for_changed_ones() -> None:
    for change in (lambda z: z.mul_(2), lambda z: z.copy_(z.flip(0))):
        sums, other = running("mmd", UNBIASED, 50, 4), running("mmd", UNBIASED, 50, 4)
        rows, z = draw(50, 4, 0).float(), draw(3, 4, 1).float()
        for each in (sums, other):
            each.fill(rows)
        measured(sums, z)
        change(z)
        sums.push(z)
        other.push(z)
        assert all(map(torch.equal, measured(sums, z), measured(other, z)))


def test_the_measured_prior_rows_are_not_taken_for_others() -> None:
    sums, other = (running("mmd", UNBIASED, 50, 4, sampled=True) for _ in range(2))
    rows, z, prior, drawn = (draw(count, 4, i).float() for i, count in enumerate((50, 3, 50, 3)))
    for each in (sums, other):
        each.fill(rows, 0, prior)
    measured(sums, z, drawn)
    for each in (sums, other):
        each.push(z, drawn.flip(0))
    assert all(map(torch.equal, measured(sums, z, drawn), measured(other, z, drawn)))


def test_nan_leaves_with_its_row() -> None:
    sums, z = running("mmd", UNBIASED, 20, 4), draw(2, 4, 0).float()
    sums.fill(draw(20, 4, 1).float())
    sums.push(torch.full((1, 4), torch.nan))
    assert sums.distance(z).isnan()
    for number in range(18):
        sums.push(draw(1, 4, 2 + number).float())
    assert sums.distance(z).isfinite()


def directions_of(dim: int, count: int, dtype: torch.dtype) -> Tensor:
    return torch.nn.functional.normalize(draw(dim, count, 99), dim=0).to(dtype)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    dtype=st.sampled_from([torch.float32, torch.float64]),
    n=st.integers(1, 70),
    dim=st.sampled_from([1, 3, 20]),
    count=st.sampled_from([1, 7, 16, 37]),
    steps=st.lists(
        st.tuples(st.sampled_from(["as measured", "encoded again", "fill", "unmeasured"]), st.integers(1, 40)),
        max_size=12,
    ),
    ties=st.booleans(),
)
def test_sorted_projections_over_random_steps(
    dtype: torch.dtype, n: int, dim: int, count: int, steps: list[tuple[str, int]], ties: bool
) -> None:
    """The gradient to the bit: it is a matter of ranks."""
    directions = directions_of(dim, count, dtype)
    kept, rows = mk.SortedProjections(n, directions), torch.empty(0, dim, dtype=dtype)
    for number, (what, k) in enumerate(steps):
        z, again = (draw(k, dim, 2 * number + i).to(dtype) for i in range(2))
        if ties:
            z, again = z.round(), again.round()
        if what == "fill":
            kept.fill(z, first=number)
            rows = z[-n:]
            continue
        if what == "unmeasured":
            z = again
        elif k <= n:
            value, gradient = measured(kept, z)
            live, history = z.clone().requires_grad_(), rows[max(0, len(rows) - (n - k)) :]
            direct = TABLE["sliced_wasserstein"]["cpp"].run(live, history, None, directions=directions, p=2.0)
            (expected,) = torch.autograd.grad(direct, live)
            torch.testing.assert_close(value, direct.detach().double(), rtol=8 * torch.finfo(dtype).eps, atol=0)
            assert torch.equal(gradient, expected.double())
        kept.push(again if what == "encoded again" else z)
        rows = torch.cat([rows, z if what == "as measured" else again])[-n:]
        assert kept.rows == len(rows)


def test_sorted_projections_of_large_windows_and_threads() -> None:
    n, directions, results, before = 9000, directions_of(24, 100, torch.float32), [], torch.get_num_threads()
    rows, z = draw(n, 24, 0).float(), draw(70, 24, 1).float()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            kept = mk.SortedProjections(n, directions)
            kept.fill(rows, first=1234)
            first = measured(kept, z)
            kept.push(z)
            results.append((*first, *measured(kept, z[:1])))
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, *results))
    value, gradient = TABLE["sliced_wasserstein"]["cpp"].gradient(
        True, z, rows[70:], None, directions=directions, p=2.0
    )[::-1]
    torch.testing.assert_close(results[0][0], value.double(), rtol=1e-6, atol=0)
    assert torch.equal(results[0][1], gradient.double())


@pytest.mark.parametrize("op, options", [VARIANTS[0], VARIANTS[5]])
def test_double_backward(op: str, options: dict) -> None:
    sums, rows = running(op, options, 12, 3, torch.float64), draw(12, 3, 0)
    sums.fill(rows)
    z = draw(2, 3, 1).requires_grad_()

    def penalty(value: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(value, z, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), z)[0]

    seen = penalty(sums.distance(z, samples=lambda: (rows[2:], None)))
    torch.testing.assert_close(seen, penalty(OPS[op].reference(z, rows[2:], None, **options)))
    with pytest.raises(RuntimeError, match="create_graph"):
        penalty(sums.distance(z))
    late = sums.distance(z, samples=lambda: (rows[2:], None))
    sums.push(z)
    with pytest.raises(RuntimeError, match="before the next push"):
        penalty(late)


def test_double_backward_with_a_prior_sample() -> None:
    sums, rows, prior, drawn = (
        running("mmd", UNBIASED, 12, 3, torch.float64, sampled=True),
        *(draw(count, 3, seed) for seed, count in enumerate((12, 12, 2))),
    )
    sums.fill(rows, 0, prior)
    z, every = draw(2, 3, 3).requires_grad_(), torch.cat([prior[2:], drawn])
    values = sums.distance(z, drawn, samples=lambda: (rows[2:], every)), mk.mmd(z, rows[2:], every)
    penalties = []
    for value in values:
        (gradient,) = torch.autograd.grad(value, z, create_graph=True)
        penalties.append(torch.autograd.grad(gradient.square().sum(), z)[0])
    torch.testing.assert_close(*penalties)


@pytest.mark.parametrize(
    "use, error, message",
    [
        (lambda: mk.RunningSums(mk.sliced_wasserstein, 4, 2), ValueError, "no sum over pairs"),
        (lambda: mk.RunningSums(mk.k_center, 4, 2), ValueError, "must be mmd, cramer_wold or sliced_wasserstein"),
        (lambda: mk.SortedProjections(0, torch.ones(2, 3)), ValueError, "n is 0"),
        (lambda: mk.SortedProjections(4, 50), ValueError, "directions"),
        (lambda: mk.SortedProjections(4, torch.ones(2, 0)), ValueError, "directions has shape"),
        (lambda: mk.SortedProjections(4, torch.ones(2, 3)).distance(torch.ones(5, 2)), ValueError, "at most n = 4"),
        (lambda: mk.SortedProjections(4, torch.ones(2, 3)).push(torch.ones(2, 3)), ValueError, r"\[2, 3\]"),
        (lambda: mk.RunningSums(mk.cramer_wold, 4, 2), ValueError, "gamma is None"),
        (lambda: mk.RunningSums(mk.mmd, 0, 2), ValueError, "n is 0"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2.0), TypeError, "dim is 2.0"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2, dtype=torch.float16), ValueError, "float16"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2, kernel="cubic"), ValueError, "kernel is 'cubic'"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2).distance(torch.ones(5, 2)), ValueError, "at most n = 4"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2).distance(torch.ones(1, 2)), ValueError, "'unbiased'"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2).distance(torch.ones(2, 3)), ValueError, r"\[2, 3\]"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2).push(torch.ones(2, 2).double()), ValueError, "float64"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2).push(torch.ones(2, 2).half()), ValueError, "rows is torch.float16"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2).distance(torch.ones(2, 2).bfloat16()), ValueError, "bfloat16"),
        (
            lambda: mk.RunningSums(mk.mmd, 4, 2, sampled=True).push(torch.ones(2, 2), torch.ones(2, 2).half()),
            TypeError,
            "prior has dtype torch.float16",
        ),
        (
            lambda: mk.SortedProjections(4, torch.ones(2, 3)).push(torch.ones(2, 2).half()),
            ValueError,
            "rows is torch.float16",
        ),
        (
            lambda: mk.RunningSums(mk.mmd, 4, 2).push(torch.ones(2, 2), torch.ones(2, 2)),
            ValueError,
            "prior is a sample",
        ),
        (lambda: mk.RunningSums(mk.mmd, 4, 2, sampled=True).push(torch.ones(2, 2)), ValueError, "prior is None"),
        (
            lambda: mk.RunningSums(mk.mmd, 4, 2, sampled=True).distance(torch.ones(2, 2), torch.ones(3, 2)),
            ValueError,
            r"prior has shape \[3, 2\]; it must be \[2, 2\], as current",
        ),
        (lambda: mk.RunningSums(mk.mmd, 4, 2).push([1.0, 2.0]), TypeError, "rows is list"),
        (lambda: mk.RunningSums(mk.mmd, 4, 2).push(torch.ones(0, 2)), ValueError, r"\[0, 2\]"),
    ],
)
def test_bad_arguments(use: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        use()


def test_another_backend_has_none() -> None:
    with mk.use_backend("reference"), pytest.raises(ValueError, match="another backend"):
        mk.RunningSums(mk.mmd, 4, 2)
