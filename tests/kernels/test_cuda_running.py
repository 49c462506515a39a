"""Running sums on the backend "cuda", its kernels compiled for the CPU: what test_running.py asks of "cpp"."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from bounds import SWEEP, VARIANTS, draw
from cuda_shim import library
from marks import needs_compiler, needs_native
from test_running import check, measured, pushed_and_filled, running
from torch import Tensor

import mow
import mow_kernels as mk
from mow_kernels.backends import cuda
from mow_kernels.registry import OPS, TABLE

pytestmark = [
    needs_compiler,
    needs_native,
]


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for op, implementation in library.IMPLEMENTATIONS.items():
        monkeypatch.setitem(TABLE[op], "cuda", implementation)
    with mk.use_backend("cuda"):
        yield
    library.turn()


def fits(op: str, options: dict, like: Tensor, sampled: bool) -> bool:
    """Whether there are passes for it, and its closed form fits (test_cuda_compile has the refusal)."""
    if op != "mmd":
        return True
    kept = options["kernel"] not in cuda.FIELDS["mmd"]["keeps_none"][1]
    closed = sampled or options["kernel"] != "laplacian"
    return kept and closed and cuda._mmd_unsupported(like, like, like if sampled else None, **options) is None


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 6))])
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("op, options", SWEEP)
def test_random_steps(op: str, options: dict, dtype: torch.dtype, sampled: bool, seed: int) -> None:
    """Fills, and pushes with a measurement and without, of other rows than those measured, of more than fit."""
    choose = random.Random(seed)
    n, dim, far = choose.choice([2, 5, 40, 70]), choose.choice([2, 20, 40]), choose.random() < 0.3
    if not fits(op, options, torch.empty(2, dim, dtype=dtype), sampled):
        pytest.skip("nothing is kept for it, or its closed form has more terms than fit")
    sums, rows = running(op, options, n, dim, dtype, sampled=sampled), torch.empty(0, dim, dtype=dtype)
    prior = rows
    for number in range(9):
        library.turn(order=number % 3)
        k = choose.choice([1, 1, 2, 7, 40])
        z, again, drawn = ((draw(k, dim, 3 * number + i + 100 * seed) + 30 * far).to(dtype) for i in range(3))
        fresh = drawn if sampled else None
        what = choose.choice(["as measured", "encoded again", "fill", "unmeasured", "fewer"])
        if what == "fill":
            sums.fill(z, number, fresh)
            rows, prior = z[-n:], drawn[-n:]
            continue
        if (
            what != "unmeasured"
            and k <= n
            and not (options.get("estimator") == "unbiased" and min(len(rows), n - k) + k == 1)
        ):
            kept = slice(max(0, len(rows) - (n - k)), None)
            check(op, options, sums, z, rows[kept], fresh, prior[kept] if sampled else None)
        pushed = z if what == "as measured" else again
        if what == "fewer":
            pushed, drawn = pushed[:1], drawn[:1]
        sums.push(pushed, drawn if sampled else None)
        rows, prior = torch.cat([rows, pushed])[-n:], torch.cat([prior, drawn])[-n:]


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("op, options", [VARIANTS[0], VARIANTS[5]])
def test_how_the_rows_came_in_leaves_no_trace(op: str, options: dict, sampled: bool) -> None:
    z, drawn = draw(3, 8, 0).float(), draw(3, 8, 2).float() if sampled else None
    stream, prior = draw(420, 8, 1).float(), draw(420, 8, 3).float() if sampled else None
    pushed, filled = pushed_and_filled(op, options, 300, stream, prior, (250, 1, 1, 30, 7, 64, 3, 64))
    results = []
    for order in range(3):
        library.turn(order=order)
        results += [measured(pushed, z, drawn), measured(filled, z, drawn)]
    assert all(torch.equal(a, b) for result in results for a, b in zip(results[0], result, strict=True))


def test_the_ring_goes_on_in_device_memory() -> None:
    """As in the replay of a captured step, which gives every call the numbers of the host as they were then."""
    n, dim = 20, 4
    first, other = (running("mmd", {}, n, dim) for _ in range(2))
    stream = draw(60, dim, 4).float()
    for sums in (first, other):
        sums.fill(stream[:n])
        sums.gradient(stream[:1])
    frozen: dict[str, Any] = {"_head": other._head, "rows": other.rows}
    for at in range(n, 50):
        expected, seen = first.gradient(stream[at : at + 1]), other.gradient(stream[at : at + 1])
        assert all(map(torch.equal, expected, seen))
        for sums in (first, other):
            sums.push(stream[at : at + 1])
        vars(other).update(frozen)


def directions_of(dim: int, count: int, dtype: torch.dtype) -> Tensor:
    return torch.nn.functional.normalize(draw(dim, count, 99), dim=0).to(dtype)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 40))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sorted_projections_over_random_steps(dtype: torch.dtype, seed: int) -> None:
    """The gradient is the direct one, to the bit in float32, which is a matter of ranks; half of the time with ties,
    whose projections are exact."""
    choose = random.Random(seed)
    n, dim, count = choose.choice([1, 5, 40, 70]), choose.choice([1, 3, 20]), choose.choice([1, 7, 37])
    tied = seed % 2 == 0
    directions = draw(dim, count, 99).round().to(dtype) if tied else directions_of(dim, count, dtype)
    kept, rows = mk.SortedProjections(n, directions), torch.empty(0, dim, dtype=dtype)
    for number in range(9):
        library.turn(order=number % 3)
        k = choose.choice([1, 1, 2, 7, 40])
        z, again = (draw(k, dim, 2 * number + i + 100 * seed).to(dtype) for i in range(2))
        if tied:
            z, again = z.round(), again.round()
        what = choose.choice(["as measured", "encoded again", "fill", "unmeasured", "fewer"])
        if what == "fill":
            kept.fill(z, number)
            rows = z[-n:]
            continue
        if what != "unmeasured" and k <= n:
            value, gradient = measured(kept, z)
            history = rows[max(0, len(rows) - (n - k)) :]
            direct = TABLE["sliced_wasserstein"]["cuda"].gradient(True, z, history, None, directions=directions, p=2)
            otherwise_added = 0 if dtype == torch.float32 else 1e-14
            assert (gradient - direct[0]).abs().max() <= otherwise_added
            live = z.double().requires_grad_()
            right = OPS["sliced_wasserstein"].reference(
                live, history.double(), None, directions=directions.double(), p=2
            )
            torch.testing.assert_close(value, right.detach(), rtol=16 * torch.finfo(dtype).eps * dim, atol=0)
            if tied:
                (expected,) = torch.autograd.grad(right, live)
                torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-6)
        pushed = {"as measured": z, "fewer": again[:1]}.get(what, again)
        kept.push(pushed)
        rows = torch.cat([rows, pushed])[-n:]


def test_sorted_projections_of_a_large_window() -> None:
    """More rows than a block sorts, that enter and leave at once; the same bits however they came in."""
    n, directions, results = 2100, directions_of(3, 2, torch.float64), []
    stream, z = draw(4207, 3, 0), draw(7, 3, 1)
    for order, sizes in enumerate(((2100, 2100, 7), (4207,))):
        library.turn(order=order)
        kept, at = mk.SortedProjections(n, directions), 0
        for size in sizes:
            kept.push(stream[at : at + size])
            at += size
        results.append(measured(kept, z))
    assert all(map(torch.equal, *results))
    direct = TABLE["sliced_wasserstein"]["cuda"].gradient(True, z, stream[-2093:], None, directions=directions, p=2)
    torch.testing.assert_close(results[0][1], direct[0], rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(results[0][0], direct[1], rtol=1e-12, atol=0)


def test_nan_leaves_sorted_projections_with_its_row() -> None:
    kept, z = mk.SortedProjections(4, directions_of(2, 3, torch.float32)), draw(1, 2, 0).float()
    for row in (draw(5, 2, 1).float(), torch.full((1, 2), torch.nan), *draw(3, 2, 2).float().split(1)):
        kept.push(row)
    assert kept.distance(z).isfinite()  # it is over the newest 3
    kept.push(torch.full((2, 2), torch.nan))
    assert kept.distance(z).isnan()


def test_the_ring_of_sorted_projections_goes_on_in_device_memory() -> None:
    n, dim = 20, 4
    first, other = (mk.SortedProjections(n, directions_of(dim, 5, torch.float32)) for _ in range(2))
    stream = draw(60, dim, 4).float()
    for kept in (first, other):
        kept.fill(stream[:n])
        kept.gradient(stream[:1])
    frozen: dict[str, Any] = {"_head": other._head, "rows": other.rows, "_list": other._list}
    for at in range(n, 50):
        expected, seen = first.gradient(stream[at : at + 1]), other.gradient(stream[at : at + 1])
        assert all(map(torch.equal, expected, seen))
        for kept in (first, other):
            kept.push(stream[at : at + 1] + (at % 3 == 0))
        vars(other).update(frozen)


@pytest.mark.parametrize("name, sampled", [("mmd", False), ("mmd", True), ("sliced", False)])
def test_a_window_on_a_device_keeps_them(monkeypatch: pytest.MonkeyPatch, name: str, sampled: bool) -> None:
    """From the second step on; a change of the window by other means than a push sets them up anew."""
    monkeypatch.setattr(mow.MovingWindow, "is_on_host", property(lambda window: False))
    n, dim = 150, 5
    window = mow.MovingWindow(n, dim)
    prior = mow.PriorWindow(n, dim) if sampled else "normal"
    sliced = mow.SlicedWasserstein(directions=directions_of(dim, 6, torch.float32))
    distance = mow.MMD(prior) if name == "mmd" else sliced
    stream = draw(200, dim, 5).float()
    window.fill(stream[: n - 1])
    for at in range(n - 1, 165):
        z = stream[at : at + 1]
        if at == 158:
            window.latents[3] += 1
        g_z, value = distance.gradient(z, window, measure=True)
        assert bool(window.kept.following) == (at not in (n - 1, 158))
        history = window.history(1)
        drawn = prior.newest(n) if sampled else "normal"
        options = {
            key: value.double() if isinstance(value, Tensor) else value for key, value in distance.options(z).items()
        }
        with mk.use_backend("reference"):
            right, of = mk.gradient(
                distance.function,
                z.double(),
                history.double(),
                drawn.double() if sampled else drawn,
                measure=True,
                **options,
            )
        torch.testing.assert_close(value.double(), of, rtol=1e-4, atol=2e-6)
        torch.testing.assert_close(g_z.double(), right, rtol=1e-4, atol=1e-7)
        window.push(z)
