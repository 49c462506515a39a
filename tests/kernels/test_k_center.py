"""Greedy k-centre: every backend takes the rows that the definition takes, to the last tie."""

from __future__ import annotations

import math
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import oracle
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from marks import needs_native
from torch import Tensor

import mow_kernels as mk
from mow_kernels.registry import OPS, TABLE

DTYPES = [torch.float32, torch.float64]


def same(one: tuple, other: tuple) -> bool:
    return all(map(torch.equal, one, other))


def on(backend: str, x: Tensor, k: int, start: int | Tensor) -> mk.Centers:
    with mk.use_backend(backend):
        return mk.k_center(x, k, start=start)


# What it is


def test_by_hand(backend: str) -> None:
    x = torch.tensor([[0.0], [1.0], [10.0], [4.0], [11.0]])
    centers = mk.k_center(x, 3, start=1)
    assert centers.indices.tolist() == [1, 4, 3]  # 11 is 10 away, then 4 is 3 away
    assert centers.counts.tolist() == [2, 2, 1] and centers.radius == 1
    indices, radius, counts = centers
    assert indices is centers.indices and indices.dtype == counts.dtype == torch.int64 and radius.shape == ()


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_indices_of_the_naive_implementation(backend: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(1)

    def number(least: int, most: int) -> int:
        return int(torch.randint(least, most + 1, (), generator=generator))

    for trial in range(60):
        n, dim = number(1, 150), number(1, 40)
        k, start = number(1, n), number(0, n - 1)
        if trial % 2:  # small integers: ties and duplicates, and exact in every precision
            x = torch.randint(-2, 3, (n, dim), generator=generator).to(dtype)
        else:
            x = torch.randn(n, dim, generator=generator).to(dtype)
        indices, radius, counts = oracle.k_center(x, k, start)
        found = mk.k_center(x, k, start=start)
        assert found.indices.tolist() == indices
        assert found.counts.tolist() == counts
        assert float(found.radius) == pytest.approx(radius, rel=1e-6)


def test_ties_and_duplicates_go_to_the_lowest_index_and_no_row_is_taken_twice(backend: str) -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    centers = mk.k_center(x, 6, start=1)
    assert centers.indices.tolist() == [1, 0, 2, 5, 3, 4]
    assert centers.counts.tolist() == [2, 2, 1, 1, 0, 0] and centers.radius == 0
    assert mk.k_center(torch.zeros(5, 3), 4, start=2).indices.tolist() == [2, 0, 1, 3]


def test_the_radius_is_within_twice_the_best(backend: str, randn) -> None:
    x = randn(12, 2)
    best = min(
        torch.cdist(x, x[torch.tensor([a, b, c])]).min(1).values.max()
        for a in range(12)
        for b in range(a)
        for c in range(b)
    )
    for start in range(12):
        assert best <= mk.k_center(x, 3, start=start).radius <= 2 * best


def test_rows_that_are_no_numbers_are_infinitely_far(backend: str) -> None:
    """Where they are not refused: on a device that would have to be waited for."""
    x = torch.tensor([[0.0], [1.0], [math.nan], [3.0], [math.nan]])
    run = TABLE["k_center"][backend].run
    indices, squared_radius, counts = run(x, k=3, start=0)
    assert indices.tolist() == [0, 2, 4] and counts.tolist() == [3, 1, 1] and squared_radius == 9
    assert run(x, k=2, start=2)[1] == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rows", [[0], [3], [6], [2, 5]])
@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("start", [0, 3, [1, 4], None])
def test_a_row_that_is_not_finite_is_named(backend: str, value: float, rows: list, k: int, start) -> None:
    x = torch.arange(14.0).view(7, 2)
    x[rows, 1] = value
    with pytest.raises(ValueError, match=rf"x\[{rows[0]}\] holds NaN or infinite values.*; rows must be finite"):
        mk.k_center(x, k, start=start)


def test_finite_rows_that_are_far_apart_are_not_refused(backend: str) -> None:
    x = torch.tensor([[0.0, 0.0], [3e38, 3e38], [-3e38, 3e38]])
    assert mk.k_center(x, 1, start=0).radius == math.inf
    assert mk.k_center(x, 3, start=0).indices.tolist() == [0, 1, 2]


# Rows that are centres already


def naive_with_given(x: Tensor, given: list[int], k: int) -> tuple[list[int], float, list[int]]:
    """Sener and Savarese's greedy choice: the labelled rows, then k new ones."""
    distances = (x[:, None] - x[None]).square().sum(2)
    centers = list(given)
    for _ in range(k):
        nearest = distances[:, centers].min(1).values
        nearest[centers] = -1
        centers.append(int(nearest.argmax()))
    to_all = distances[:, centers]
    owners = to_all.argmin(1).tolist()  # the first of equally near ones
    counts = [owners.count(len(given) + j) for j in range(k)]
    return centers[len(given) :], float(to_all.min(1).values.max().sqrt()), counts


@pytest.mark.parametrize("dtype", DTYPES)
def test_given_centres(backend: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(5)
    for trial in range(40):
        n = 12 + trial
        if trial % 2:
            x = torch.randint(-2, 3, (n, 3), generator=generator).to(dtype)
        else:
            x = torch.randn(n, 3, generator=generator).to(dtype)
        given = torch.randperm(n, generator=generator)[: 1 + trial % 6].sort().values
        k = 1 + trial % 5
        indices, radius, counts = naive_with_given(x.double(), given.tolist(), k)
        for form in (given, given.tolist(), tuple(given.tolist()), given.numpy(), given.int(), given.repeat(2).flip(0)):
            found = mk.k_center(x, k, start=form)
            assert found.indices.tolist() == indices and found.counts.tolist() == counts
            assert float(found.radius) == pytest.approx(radius, rel=1e-6)


def test_one_given_centre_is_not_the_first_of_the_k(backend: str, randn) -> None:
    x = randn(20, 3)
    first, given = mk.k_center(x, 5, start=3), mk.k_center(x, 4, start=[3])
    assert torch.equal(given.indices, first.indices[1:]) and given.radius == first.radius
    assert torch.equal(given.counts, first.counts[1:])
    assert same(mk.k_center(x, 5, start=torch.tensor(3)), first)


def test_all_others_beside_given_centres_and_none_given(backend: str, randn) -> None:
    x = randn(6, 2)
    found = mk.k_center(x, 4, start=[1, 4])
    assert sorted(found.indices.tolist()) == [0, 2, 3, 5] and found.radius == 0 and found.counts.tolist() == [1] * 4
    for none in ([], torch.empty(0, dtype=torch.int64)):
        drawn = [mk.k_center(x, 2, start=s, generator=torch.Generator().manual_seed(1)) for s in (None, none)]
        assert same(*drawn)


def test_one_row_and_all_rows(backend: str, randn) -> None:
    x = randn(9, 4)
    assert [t.tolist() for t in mk.k_center(x[:1], 1)] == [[0], 0, [1]]
    everything = mk.k_center(x, 9, start=3)
    assert sorted(everything.indices.tolist()) == list(range(9)) and everything.radius == 0
    assert everything.counts.tolist() == [1] * 9


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_widened(backend: str, randn, dtype: torch.dtype) -> None:
    x = randn(40, 5, dtype=dtype)
    found = mk.k_center(x, 7, start=0)
    assert found.radius.dtype == torch.float32 and same(found, mk.k_center(x.float(), 7, start=0))


def test_no_gradient(backend: str, randn) -> None:
    assert not mk.k_center(randn(5, 3).requires_grad_(), 2).radius.requires_grad


# Every backend the same


def rounded_ties(n: int, dim: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """The origin, and rows that are equally far from it but for rounding: shuffles of one row."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.randn(dim, generator=generator).to(dtype)
    return torch.stack([0 * row, *(row[torch.randperm(dim, generator=generator)] for _ in range(n - 1))])


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 2, 15, 64, 200])
def test_the_backends_round_alike(dim: int, dtype: torch.dtype) -> None:
    x = rounded_ties(300, dim, dtype)
    assert same(on("cpp", x, 50, 0), on("reference", x, 50, 0))


LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.T.contiguous().T,
    "strided": lambda x: torch.cat([x, x + 1], 1)[:, ::2],
    "offset": lambda x: torch.cat([x[:1], x])[1:],
    "reversed": lambda x: x.flip(0),
    "expanded": lambda x: x[:1].expand(len(x), -1),
}


@needs_native
@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(1, 300),
    dim=st.integers(1, 70),
    share=st.floats(0, 1),
    start=st.floats(0, 1, exclude_max=True),
    given_rows=st.integers(0, 4),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(sorted(LAYOUTS)),
    kind=st.sampled_from(["normal", "integers", "rounded ties"]),
    magnitude=st.sampled_from([1e-12, 1.0, 1e12, 1e30]),
)
def test_the_backends_agree_to_the_bit(n, dim, share, start, given_rows, dtype, layout, kind, magnitude) -> None:
    generator = torch.Generator().manual_seed(n + 1000 * dim)
    if kind == "normal":
        x = torch.randn(n, dim, generator=generator).to(dtype)
    elif kind == "integers":
        x = torch.randint(-1, 2, (n, dim), generator=generator).to(dtype)
    else:
        x = rounded_ties(n, dim, dtype, n)
    x = LAYOUTS[layout](x * magnitude)
    given_rows = min(given_rows, n - 1)
    k, first = 1 + int(share * (n - given_rows - 1)), int(start * n)
    chosen = torch.randperm(n, generator=generator)[:given_rows] if given_rows else first
    assert same(on("cpp", x, k, chosen), on("reference", x, k, chosen))


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
def test_threads_do_not_matter(dtype: torch.dtype, randn) -> None:
    x = randn(70_000, 64, dtype=dtype)  # many tasks, and above the limit from which other threads are woken
    x[60_000:] = x[:10_000].clone()
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(on("cpp", x, 20, 7))
    finally:
        torch.set_num_threads(before)
    assert same(found[0], found[1]) and same(found[0], found[2])
    assert same(found[0], on("reference", x, 20, 7))


LARGE = torch.randn(70_000, 64, generator=torch.Generator().manual_seed(2))  # made before the fork: torch uses threads


def of_large() -> list[int]:
    return mk.k_center(LARGE, 5, start=0).indices.tolist()


@needs_native
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_works_in_a_forked_process() -> None:
    torch.set_num_threads(2)
    expected = of_large()  # has woken the threads, which a fork does not copy
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(of_large).get(timeout=60) == expected


def digest() -> list[list[float]]:
    return [t.tolist() for dtype in DTYPES for t in mk.k_center(rounded_ties(200, 33, dtype), 40, start=5)]


@needs_native
@pytest.mark.parametrize("isa", [pytest.param("baseline", marks=pytest.mark.long), "avx2"])
def test_instruction_sets_agree(isa: str) -> None:
    script = "import sys; sys.path[:0] = sys.argv[1:]; import test_k_center as t; print(t.digest())"
    paths = map(str, (Path(__file__).parent, Path(__file__).parents[1], Path(mk.__file__).parents[1]))
    command = [sys.executable, "-c", script, *paths]
    environment = {**os.environ, "MOW_ISA": isa, "MOW_BACKEND": "cpp"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == str(digest())


@needs_native
def test_opcheck(randn) -> None:
    for given_rows in (None, torch.tensor([3, 17])):
        torch.library.opcheck(torch.ops.mow_kernels.k_center.default, (randn(20, 3), 4, 2, given_rows))


@pytest.mark.usefixtures("backend")
def test_compiles_into_one_graph(randn) -> None:
    x = randn(30, 4)

    def spread(x: Tensor) -> Tensor:
        return x[mk.k_center(2 * x, 5, start=1).indices].sum(0)

    torch.compiler.reset()
    torch.testing.assert_close(torch.compile(spread, fullgraph=True, backend="aot_eager")(x), spread(x))


# The public function


def test_the_start_is_drawn_from_the_generator(randn) -> None:
    x = randn(1000, 3)

    def first(seed: int) -> int:
        return int(mk.k_center(x, 2, generator=torch.Generator().manual_seed(seed)).indices[0])

    assert first(3) == first(3) and len({first(seed) for seed in range(5)}) > 1
    torch.manual_seed(4)
    drawn = mk.k_center(x, 2)
    torch.manual_seed(4)
    assert same(mk.k_center(x, 2), drawn)
    state = torch.random.get_rng_state()
    mk.k_center(x, 2, start=0)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("error", "message", "x", "k", "options"),
    [
        (TypeError, "x is list", [[1.0]], 1, {}),
        (TypeError, "x has dtype torch.int64", torch.zeros(3, 2).long(), 1, {}),
        (ValueError, r"x has shape \[3\]", torch.zeros(3), 1, {}),
        (ValueError, "x has shape.*at least one row", torch.zeros(0, 2), 1, {}),
        (ValueError, "k is 0; .* from 1 to 3", torch.zeros(3, 2), 0, {}),
        (ValueError, "k is 4; .* from 1 to 3", torch.zeros(3, 2), 4, {}),
        (TypeError, "k is 2.0", torch.zeros(3, 2), 2.0, {}),
        (TypeError, "k is True", torch.zeros(3, 2), True, {}),
        (ValueError, "start is 3; .* from 0 to 2", torch.zeros(3, 2), 1, {"start": 3}),
        (ValueError, "start is -1", torch.zeros(3, 2), 1, {"start": -1}),
        (TypeError, "start is 'first'", torch.zeros(3, 2), 1, {"start": "first"}),
        (ValueError, "start holds 3; .* from 0 to 2", torch.zeros(3, 2), 1, {"start": [0, 3]}),
        (ValueError, "start holds -1; .* from 0 to 2", torch.zeros(3, 2), 1, {"start": torch.tensor([-1, 1])}),
        (TypeError, "start holds torch.bool; .*nonzero", torch.zeros(3, 2), 1, {"start": torch.ones(3).bool()}),
        (TypeError, "start holds torch.float32", torch.zeros(3, 2), 1, {"start": [0.0, 1.0]}),
        (ValueError, r"start has shape \[1, 2\]", torch.zeros(3, 2), 1, {"start": [[0, 1]]}),
        (ValueError, "k is 2; .* from 1 to 1", torch.zeros(3, 2), 2, {"start": [0, 1]}),
        (TypeError, "start is True", torch.zeros(3, 2), 1, {"start": True}),
        (TypeError, "generator is 5", torch.zeros(3, 2), 1, {"generator": 5}),
    ],
)
def test_bad_input(error, message, x, k, options) -> None:
    with pytest.raises(error, match=message):
        mk.k_center(x, k, **options)


def test_what_is_not_finite_is_named_when_asked_to_check() -> None:
    with mk.check_finite(), pytest.raises(ValueError, match="x holds NaN"):
        mk.k_center(torch.tensor([[math.nan]]), 1)


def test_explain_draws_nothing_and_runs_nothing() -> None:
    many = torch.zeros(1, 1).expand(10_000_000, 8)
    state = torch.random.get_rng_state()
    with mk.use_backend("reference"):
        explanation = mk.explain(mk.k_center, many, 1_000_000)
    assert explanation.backend == "reference" and explanation.op == "k_center"
    assert explanation.reasons.keys() == TABLE["k_center"].keys() - {"reference"}
    assert torch.equal(torch.random.get_rng_state(), state)
    with pytest.raises(ValueError, match="k is 0"):
        mk.explain(mk.k_center, many, 0)


def test_it_is_in_the_table_like_the_distances() -> None:
    assert TABLE["k_center"]["reference"].run is OPS["k_center"].reference
    assert TABLE["k_center"].keys() == TABLE["mmd"].keys()
    with mk.use_backend("cuda"), pytest.raises(ValueError, match="cannot run this k_center"):
        mk.k_center(torch.zeros(2, 2), 1)
