"""The CUDA kernels on the CPU (tests/cuda_shim), against the reference in float64 and within the C++ backend's bounds.

Small windows go through one launch, the others through several; `Plan` in csrc/cuda says which.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from bounds import (
    CRAMER_WOLD,
    F32,
    F64,
    STRIDES,
    SWEEP,
    UNBIASED,
    Sample,
    check_drawn,
    check_pairs,
    check_sliced,
    draw,
    lattice,
    priors,
    run,
    smooth,
    usable,
)
from cuda_shim import library
from marks import needs_compiler

import mow_kernels as mk
from mow_kernels.backends import cuda
from mow_kernels.registry import OPS, TABLE

pytestmark = needs_compiler

BOTH = [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0])]
SIZES = [  # n, k, m, D
    *((1, 1, 3, 1), (2, 1, 2, 513), (2, 2, 5, 2), (63, 1, 64, 20), (63, 31, 1, 2), (64, 1, 64, 20), (64, 32, 65, 64)),
    *((64, 64, 64, 128), (65, 1, 63, 128), (65, 32, 200, 1), (200, 1, 200, 20), (200, 100, 63, 2), (200, 200, 200, 65)),
]


@pytest.fixture(autouse=True)
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernels are the backend "cuda"; its device has clusters, and its threads take turns in ascending order."""
    for op, implementation in library.IMPLEMENTATIONS.items():
        monkeypatch.setitem(TABLE[op], "cuda", implementation)
    library.turn()
    yield
    library.turn()


def fits(op: str, options: dict, window: torch.Tensor, prior: torch.Tensor | None) -> bool:
    """Whether the closed form has no more terms than the kernels take; test_cuda_compile has the refusal."""
    return op != "mmd" or cuda._mmd_unsupported(window, window[:0], prior, **options) is None


@pytest.mark.parametrize("n, k, m, dim", SIZES)
@pytest.mark.parametrize("op, options", SWEEP)
def test_value_and_gradient(op: str, options: dict, n: int, k: int, m: int, dim: int) -> None:
    if not usable(op, options, min(n, m), dim):
        pytest.skip("not defined there")
    window, prior = draw(n, dim, 0) * 1.1, draw(m, dim, 1)
    for sample in priors(options, prior):
        if not fits(op, options, window.float(), sample):
            continue
        check_pairs("cuda", op, options, window[n - k :], window[: n - k], sample)


@pytest.mark.parametrize("op, options", SWEEP)
def test_double_precision(op: str, options: dict) -> None:
    for n, k, dim in ((2, 1, 2), (65, 33, 20), (200, 1, 35)):
        window, prior = draw(n, dim, 2), draw(30, dim, 3)
        for sample in priors(options, prior):
            if fits(op, options, window, sample):
                check_pairs("cuda", op, options, window[n - k :], window[: n - k], sample, F64)


@pytest.mark.parametrize("op, options", SWEEP)
@pytest.mark.parametrize("magnitude", [1e-6, 1e6])
def test_magnitudes_with_duplicates(op: str, options: dict, magnitude: float) -> None:
    if options.get("kernel") == "polynomial" and magnitude > 1:
        pytest.skip("beyond what float32 holds")
    window, prior = draw(33, 20, 4) * magnitude, draw(17, 20, 5) * magnitude
    window[20:25], prior[3:6] = window[4], window[4]
    window += magnitude  # far from the origin, so that an expansion of the squares would cancel
    prior += magnitude
    check_pairs("cuda", op, options, window[16:], window[:16], prior)


@pytest.mark.parametrize("op, options", BOTH)
def test_what_is_not_finite_stays_visible(op: str, options: dict) -> None:
    for n in (40, 300):
        window = draw(n, 8, 8).float()
        for row in (0, n - 1):
            spoilt = window.clone()
            spoilt[row, 3] = torch.nan
            assert getattr(library, op)(spoilt[n - 10 :], spoilt[: n - 10], None, **options).isnan()
            assert getattr(library, op)(window[n - 10 :], window[: n - 10], spoilt, **options).isnan()
    huge = (draw(20, 8, 6) * 1e25).float()
    value = getattr(library, op)(huge[10:], huge[:10], huge + 1e25, **options)
    torch.testing.assert_close(value, OPS[op].reference(huge[10:], huge[:10], huge + 1e25, **options))


@pytest.mark.parametrize("view", STRIDES)
@pytest.mark.parametrize("op, options", BOTH)
def test_views_give_the_bits_of_copies(op: str, options: dict, view: str) -> None:
    for rows in (40, 300):
        samples = [STRIDES[view](draw(count, 36, count).float()) for count in (5, rows, 33)]
        seen = run(getattr(library, op), *samples, options)
        copied = run(getattr(library, op), *(x.contiguous() for x in samples), options)
        assert all(map(torch.equal, seen, copied))


@pytest.mark.parametrize("n, k, m", [(64, 3, 64), (130, 66, 140)])
def test_bits_depend_neither_on_the_order_of_threads_nor_on_the_run(n: int, k: int, m: int) -> None:
    """A cluster adds up in another order than a single block, but each of them always in its own."""
    window, prior = draw(n, 20, 9).float(), draw(m, 20, 10).float()
    directions = torch.nn.functional.normalize(draw(20, 5, 11), dim=0).float()
    for op, options in (*BOTH, ("sliced_wasserstein", {"directions": directions, "p": 2})):
        for major in (8, 9):
            results = []
            for order in (0, 1, 2):
                library.turn(major=major, order=order)
                results.append(run(getattr(library, op), window[n - k :], window[: n - k], prior, options))
            assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(results[0], result, strict=True))


@pytest.mark.parametrize("major", [8, 9])
def test_with_clusters_and_without(major: int, randn) -> None:
    """A single block takes the directions of a sliced-Wasserstein distance in several groups."""
    library.turn(major=major)
    check_sliced("cuda", smooth(randn, 200, 10, 200, 3, F32), 2)
    window, prior = draw(64, 20, 12), draw(64, 20, 13)
    for op, options in BOTH:
        for sample in priors(options, prior):
            check_pairs("cuda", op, options, window[63:], window[:63], sample)


@pytest.mark.parametrize("n, k, m, dim", SIZES)
def test_sliced_wasserstein(n: int, k: int, m: int, dim: int, randn) -> None:
    for index, dtype in enumerate((F32, F64)):
        p = (1, 1.5, 2, 3)[(n + dim + index) % 4]
        check_sliced("cuda", smooth(randn, n, k, m, dim, dtype), p)
    check_sliced("cuda", smooth(randn, n, k, None, dim, F32), 2)


@pytest.mark.parametrize("n, k, m, dim", [(64, 1, 64, 20), (64, 64, None, 33), (200, 70, 63, 2), (300, 3, 40, 5)])
def test_draws_are_normalised(n: int, k: int, m: int | None, dim: int, randn) -> None:
    for dtype in (F32, F64):
        check_drawn("cuda", smooth(randn, n, k, m, dim, dtype), 2)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("n, k, m, dim", SIZES)
def test_ties_go_by_row_index(n: int, k: int, m: int, dim: int, dtype: torch.dtype) -> None:
    check_sliced("cuda", lattice(n, k, m, dim, dtype), 2, exact_projections=True)


@pytest.mark.parametrize("n, m, dtype", [(4097, 300, F32), (2049, 4099, F64)])
def test_sorts_of_several_runs(n: int, m: int, dtype: torch.dtype) -> None:
    sample = lattice(n, 9, m, 2, dtype)
    sample = Sample(sample.current, sample.history, sample.prior, sample.directions[:, :2])
    check_sliced("cuda", sample, 2, exact_projections=True)


@pytest.mark.parametrize("n, m, count", [(300, 260, 19), (257, None, 260), (900, 40, 2)])
def test_sorts_by_radix(n: int, m: int | None, count: int) -> None:
    """Float32 alone; ties go by row, and each group of directions is one list. By its plain twin here."""
    with library.environment(MOW_CUDA_RADIX="257"):
        for number, dtype in enumerate((F32, F64) if count < 100 else (F32,)):
            library.turn(order=number)
            sample = lattice(n, 9, m or n, 2, dtype)
            directions = sample.directions.repeat(1, -(-count // sample.directions.shape[1]))[:, :count]
            sample = Sample(sample.current, sample.history, sample.prior if m else None, directions)
            check_sliced("cuda", sample, 2, exact_projections=True)


def test_no_gradient_wanted() -> None:
    window, prior = draw(40, 8, 14).float(), draw(30, 8, 15).float()
    directions = torch.nn.functional.normalize(draw(8, 5, 16), dim=0).float()
    for op, options in (*BOTH, ("sliced_wasserstein", {"directions": directions, "p": 2})):
        function = getattr(library, op)
        value, _ = run(function, window[30:], window[:30], prior, options)
        torch.testing.assert_close(function(window[30:], window[:30], prior, **options).double(), value)


@pytest.mark.parametrize("major", [pytest.param(8, marks=pytest.mark.long), 9])
@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(
    "n, k, m, dim", [(2, 1, 3, 3), (64, 1, 64, 20), (64, 64, 30, 8), (300, 7, 299, 5), (400, 130, 90, 4)]
)
def test_the_gradient_alone_has_the_bits_of_the_one_with_the_value(
    n: int, k: int, m: int, dim: int, dtype: torch.dtype, major: int
) -> None:
    """Ties and all; of k = 130 rows the ranks are not counted."""
    library.turn(major=major)
    window, prior = (draw(rows, dim, rows).to(dtype).mul(4).round() for rows in (n, m))
    directions = torch.nn.functional.normalize(draw(dim, 70 if n < 100 else 3, 20), dim=0).to(dtype)
    for op, options in (*BOTH, ("sliced_wasserstein", {"directions": directions, "p": 2})):
        for sample in (prior, None):
            gradient = library.IMPLEMENTATIONS[op].gradient
            assert gradient is not None
            both, value = gradient(True, window[n - k :], window[: n - k], sample, **options)
            alone, nothing = gradient(False, window[n - k :], window[: n - k], sample, **options)
            assert nothing is None and value is not None and value.isfinite()
            assert both.isfinite().all() and torch.equal(alone, both)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize(
    "n, rows, k, dim", [(1, 1, 1, 1), (64, 63, 1, 20), (40, 7, 3, 5), (270, 263, 7, 33), (300, 299, 70, 2)]
)
def test_a_ring_is_read_where_it_is(n: int, rows: int, k: int, dim: int, dtype: torch.dtype) -> None:
    """To the bits of a copy of its newest rows, wherever its head stands."""
    slots, prior = (draw(count, dim, count).to(dtype) for count in (n, 50))
    current = draw(k, dim, 3).to(dtype)
    directions = torch.nn.functional.normalize(draw(dim, 3, 20), dim=0).to(dtype)
    for op, options in (*BOTH, ("sliced_wasserstein", {"directions": directions, "p": 2})):
        implementation = library.IMPLEMENTATIONS[op]
        assert implementation.ring is not None and implementation.gradient is not None
        for head, measure, sample in ((0, True, prior), (n // 3, False, None), (n - 1, False, prior)):
            past = mk.Ring(slots, torch.tensor(head)).last(rows)
            seen = implementation.ring(measure, current, past, sample, **options)
            copied = implementation.gradient(measure, current, past.rows(), sample, **options)
            assert torch.equal(seen[0], copied[0]) and (seen[1] == copied[1] if measure else seen[1] is None)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("n, k, dim", [(1, 1, 1), (5, 5, 3), (256, 9, 7), (257, 2, 1030), (700, 6, 2)])
def test_k_center(n: int, k: int, dim: int, dtype: torch.dtype) -> None:
    """In one launch and in one a round. Small integers tie in every way; of duplicates all but one are zero away from a
    centre."""
    some = draw(n, dim, 17).to(dtype)
    spoilt = some.clone()
    spoilt[n // 3 : n // 3 + 3, 0], spoilt[-1, -1] = torch.nan, torch.inf  # more than some k
    strided = draw(dim, 2 * n, 18).to(dtype).T[::2]
    for order, x in enumerate((some, some.round(), spoilt, strided)):
        library.turn(major=9 - order % 2, order=order % 3)
        for given in (None, torch.tensor([0, n // 2]).unique()):
            taken = k if given is None else min(k, n - len(given))
            if taken > 0:
                options = {"k": taken, "start": n // 2, "given": given}
                expected = OPS["k_center"].reference(x, **options)
                assert all(map(torch.equal, library.k_center(x, **options), expected))


@pytest.mark.parametrize("dtype, together", [(F32, "1"), (F64, "1"), (F32, "0")])
def test_k_center_in_rounds_of_all_blocks(dtype: torch.dtype, together: str) -> None:
    """Blocks that wait for each other, of which the device has eight at once for nine times their rows, or a launch a
    round. Ties in every way, also across blocks."""
    some = draw(2200, 2, 21).to(dtype)
    for order, x in enumerate((some, some.mul(2).round(), torch.ones_like(some))):
        with library.environment(MOW_CUDA_SINGLE_COVER="0", MOW_CUDA_TOGETHER=together):
            library.turn(major=8 + order % 2, order=order)
            for options in (
                {"k": 4, "start": 700, "given": None},
                {"k": 3, "start": 0, "given": torch.tensor([2199, 3])},
                {"k": 1, "start": 2, "given": None},
            ):
                expected = OPS["k_center"].reference(x, **options)
                assert all(map(torch.equal, library.k_center(x, **options), expected))


@pytest.mark.long
def test_k_center_visits_more_rows_than_a_round_has_threads() -> None:
    x = (draw(512 * 256 + 300, 1, 19) * 1000).float()
    assert all(map(torch.equal, library.k_center(x, k=3, start=7), OPS["k_center"].reference(x, k=3, start=7)))


@pytest.mark.parametrize(
    "why, major, blocks, rows, threads, shared, team",
    [
        (None, 9, 16, 1, 256, 99 << 10, 8),
        (None, 8, 100, 3, 1024, 0, 1),
        (None, 9, 1, 1, 256, 227 << 10, 1),
        ("more shared memory than the device has", 9, 1, 1, 256, (227 << 10) + 1, 1),
        ("more shared memory than every device has", 8, 1, 1, 256, (99 << 10) + 1, 1),
        ("a cluster of more than eight blocks", 9, 16, 1, 256, 0, 16),
        ("a device without clusters", 8, 2, 1, 256, 0, 2),
        ("no multiple of the cluster", 9, 3, 1, 256, 0, 2),
        ("too many threads", 9, 1, 1, 1056, 0, 1),
        ("too many rows of blocks", 9, 1, 65536, 32, 0, 1),
        ("no block", 9, 0, 1, 32, 0, 1),
    ],
)
def test_a_launch_that_a_device_would_refuse(
    why: str | None, major: int, blocks: int, rows: int, threads: int, shared: int, team: int
) -> None:
    library.turn(major=major)
    status = library.load().cuda_shim_launch(blocks, rows, threads, ctypes.c_int64(shared), team)
    assert (status != 0) == (why is not None)


def on_tensor_cores(product: str) -> dict[str, str]:
    """Every window is a large one; a block has a tile with all that it meets, and loads what comes next early."""
    return {"MOW_CUDA_PRODUCT": product, "MOW_CUDA_SINGLE": "0", "MOW_CUDA_BLOCKS": "1"}


PRODUCTS = {"tensor": "0", "wgmma": "wgmma"}
SWEEPS: dict[str, dict[str, str]] = {
    "all": {"MOW_CUDA_RADIX": "100"},
    **{name: on_tensor_cores(of) for name, of in PRODUCTS.items()},
}


def sweep(sanitizer: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs tests/cuda_shim/sweep.cpp under sanitizers; the first argument is one of SWEEPS."""
    flags = (f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all", "-g", "-O1", "-Wno-clobbered")
    sources = [*library.KERNELS, *library.DEVICE, library.SHIM / "sweep.cpp"]
    program = library.build(f"sweep-{sanitizer}", sources, *flags)
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1", **SWEEPS[arguments[0]]}
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=900, env=environment)


def test_blocks_that_wait_for_each_other_have_to_fit_together() -> None:
    """The stand-in runs eight at once."""
    assert [library.load().cuda_shim_launch_together(blocks) for blocks in (1, 8, 9)] == [0, 0, 1]


@pytest.mark.long
@pytest.mark.parametrize("what", SWEEPS)
@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
def test_sanitizers_find_nothing(sanitizer: str, what: str) -> None:
    """AddressSanitizer knows the exact size of every buffer, ThreadSanitizer the barriers and nothing else."""
    finished = sweep(sanitizer, what)
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.long
def test_no_barrier_can_be_left_out() -> None:
    """Without one of them ThreadSanitizer finds a race, or the bits depend on the order of turns."""
    found: dict[str, list[str]] = {}
    for what in SWEEPS:
        complete = sweep("thread", what)
        assert complete.returncode == 0
        for line in complete.stdout.splitlines():
            if line.startswith("site "):
                found.setdefault(line.removeprefix("site "), []).append(what)
    assert {f"{path.name}:{line}" for path, line in barriers()} <= set(found)
    unneeded = [
        site for site, sweeps in found.items() if all(sweep("thread", what, site).returncode == 0 for what in sweeps)
    ]
    assert unneeded == []


def barriers() -> Iterator[tuple[Path, int]]:
    """Where the kernels have one."""
    for path in (library.ROOT / "csrc/cuda").glob("*.cu*"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "__syncthreads()" in line and path.name != "team.cuh":
                yield path, number


@pytest.mark.parametrize("single, sliced", [(None, None), ("9", None), ("0", "0"), (None, "799")])
def test_thresholds_can_be_set_for_measuring(single: str | None, sliced: str | None) -> None:
    program = library.build("plan", [library.SHIM / "plan.cpp"], libraries=[library.kernels()])
    variables = {"MOW_CUDA_SINGLE": single, "MOW_CUDA_SINGLE_SLICED": sliced}
    environment = os.environ | {name: value for name, value in variables.items() if value is not None}
    seen = subprocess.run([program], capture_output=True, text=True, check=True, env=environment).stdout.split()
    assert seen == [str(int(single is not None)), str(int(sliced is not None))]


@pytest.mark.parametrize("architectures, blocks", [("800", 1), ("800,900", 8)])
def test_clusters_are_for_code_that_knows_of_them(architectures: str, blocks: int) -> None:
    """Code for older devices alone, which a device with clusters can run, takes a small window for one block's."""
    program = library.build(
        f"team-{architectures}",
        [library.SHIM / "team.cpp"],
        f"-D__CUDA_ARCH_LIST__={architectures}",
        libraries=[library.kernels()],
    )
    assert int(subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout) == blocks
