"""The native CPU kernels of MMD and Cramer-Wold against the reference in float64, by tests/bounds.py."""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from bounds import CRAMER_WOLD, STRIDES, SWEEP, UNBIASED, VARIANTS, check_pairs, draw, grows, priors, run, usable
from marks import needs_native
from torch import Tensor

from mow_kernels import native
from mow_kernels.registry import OPS, TABLE

pytestmark = needs_native

check = functools.partial(check_pairs, "cpp")

SIZES = [  # n, k, D
    *((1, 1, 1), (1, 1, 64), (2, 1, 513), (2, 2, 2), (63, 1, 20), (63, 31, 128), (64, 1, 64), (64, 64, 1)),
    *((65, 1, 2), (65, 32, 20)),
]
LARGE_SIZES = [(64, 32, 513), (65, 65, 128), (1000, 1, 20), (1000, 1000, 1)]
LARGE_SIZES += [pytest.param(1000, 500, 2, marks=pytest.mark.long)]


@pytest.mark.parametrize("n, k, dim", SIZES)
@pytest.mark.parametrize("op, options", SWEEP)
def test_value_and_gradient(op: str, options: dict, n: int, k: int, dim: int) -> None:
    if not usable(op, options, n, dim):
        pytest.skip("not defined there")
    window, prior = draw(n, dim, 0) * 1.1, draw(n + 3, dim, 1)
    for sample in priors(options, prior):
        check(op, options, window[n - k :], window[: n - k], sample)


@pytest.mark.parametrize("n, k, dim", LARGE_SIZES)
@pytest.mark.parametrize("op, options", [SWEEP[0], SWEEP[5], *SWEEP[7:]])
def test_value_and_gradient_of_large_samples(op: str, options: dict, n: int, k: int, dim: int) -> None:
    window, prior = draw(n, dim, 0) * 1.1, draw(n // 2, dim, 1)
    for sample in priors(options, prior):
        check(op, options, window[n - k :], window[: n - k], sample)


@pytest.mark.parametrize("h, k, m", [(2300, 3, 1700), (700, 70, 3000), (1000, 1100, 0), (0, 1100, 1300)])
@pytest.mark.parametrize("op, options", [VARIANTS[0], pytest.param(*VARIANTS[5], marks=pytest.mark.long)])
def test_samples_of_several_pieces(op: str, options: dict, h: int, k: int, m: int) -> None:
    """Cut within the history, the current rows and the prior, and between them."""
    window, prior = draw(h + k, 5, 14) * 1.1, draw(m, 5, 15)
    check(op, options, window[h:], window[:h], prior if m else None)


@pytest.mark.parametrize("op, options", SWEEP)
def test_double_precision(op: str, options: dict) -> None:
    for n, k, dim in ((2, 1, 2), (65, 33, 20), (70, 1, 64)):
        window, prior = draw(n, dim, 2), draw(30, dim, 3)
        for sample in priors(options, prior):
            check(op, options, window[n - k :], window[: n - k], sample, torch.float64)


@pytest.mark.parametrize("op, options", SWEEP)
@pytest.mark.parametrize("dim", [20, 40])  # on either side of the width from which distances come from products
@pytest.mark.parametrize("magnitude", [1e-6, 1e-3, 1e3, 1e6])
def test_magnitudes_with_duplicates(op: str, options: dict, magnitude: float, dim: int) -> None:
    if options.get("kernel") == "polynomial" and magnitude > 1e3:
        pytest.skip("beyond what float32 holds")
    window, prior = draw(33, dim, 4) * magnitude, draw(17, dim, 5) * magnitude
    window[20:25], prior[3:6] = window[4], window[4]
    window += magnitude  # far from the origin, so that an expansion of the squares would cancel
    prior += magnitude
    for sample in priors(options, prior):
        check(op, options, window[16:], window[:16], sample)


@pytest.mark.parametrize("op, options", SWEEP)
def test_few_close_pairs_among_many_far_ones(op: str, options: dict) -> None:
    """Some tiles of pairs cancel, and the others do not."""
    window, prior = draw(400, 48, 12), draw(300, 48, 13)
    for near in (window[390:], prior[100:120]):
        near[:] = 3 * window[5] + 1e-3 * near
    for sample in priors(options, prior):
        check(op, options, window[330:], window[:330], sample)


@pytest.mark.parametrize("dim", [8, 40])
@pytest.mark.parametrize("op, options", SWEEP)
def test_huge_numbers_are_no_nan(op: str, options: dict, dim: int) -> None:
    if grows(options):
        pytest.skip("its values are huge, too")
    window, prior = (draw(20, dim, seed).float() * 1e25 for seed in (6, 7))
    for sample in priors(options, prior):
        value = TABLE[op]["cpp"].run(window[10:], window[:10], sample, **options)
        torch.testing.assert_close(value, OPS[op].reference(window[10:], window[:10], sample, **options))


@pytest.mark.parametrize("op, options", [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0]), *VARIANTS[7:]])
def test_nan_is_passed_on(op: str, options: dict) -> None:
    window = draw(40, 8, 8).float()
    for row in (0, 39):
        spoilt = window.clone()
        spoilt[row, 3] = torch.nan
        for sample in priors(options, window):
            assert TABLE[op]["cpp"].run(spoilt[30:], spoilt[:30], sample, **options).isnan()
        assert TABLE[op]["cpp"].run(window[30:], window[:30], spoilt, **options).isnan()


@pytest.mark.parametrize("view", STRIDES)
@pytest.mark.parametrize("op, options", [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0])])
def test_views_give_the_bits_of_copies(op: str, options: dict, view: str) -> None:
    samples = [STRIDES[view](draw(rows, 37, rows).float()) for rows in (5, 40, 33)]
    seen = run(TABLE[op]["cpp"].run, *samples, options)
    copied = run(TABLE[op]["cpp"].run, *(x.contiguous() for x in samples), options)
    assert all(map(torch.equal, seen, copied))


@pytest.mark.parametrize("op, options", [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0])])
def test_bits_do_not_depend_on_threads(op: str, options: dict) -> None:
    window, prior = draw(700, 40, 9).float(), draw(500, 40, 10).float()
    window[100:300] += 100  # where products cancel, and are given up
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7, 2):
            torch.set_num_threads(threads)
            results.append(run(TABLE[op]["cpp"].run, window[400:], window[:400], prior, options))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(results[0], result, strict=True))


def _large_mmd() -> float:
    window = draw(700, 24, 11).float()
    return float(TABLE["mmd"]["cpp"].run(window[400:], window[:400], window.flip(0) + 1, **UNBIASED))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_works_in_a_forked_process() -> None:
    expected = _large_mmd()  # has woken the threads, which a fork does not copy
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply_async(_large_mmd).get(timeout=60) == expected


@pytest.mark.parametrize("isa", ["baseline", "avx2", "avx512"])
def test_instruction_sets_agree(isa: str) -> None:
    """Sets that the processor lacks fall back to one that it has."""
    environment = {**os.environ, "MOW_ISA": isa}
    script = (
        "import sys; sys.path[:0] = sys.argv[1:]; import test_cpp_kernels as t; "
        "print(t.small_values(t.torch.float32), t.small_values(t.torch.float64))"
    )
    paths = [*map(str, Path(__file__).parents[:2]), str(Path(native.__file__).parents[1])]
    finished = subprocess.run(
        [sys.executable, "-c", script, *paths], env=environment, capture_output=True, text=True, check=True
    )
    seen = [float(number) for number in finished.stdout.replace("[", " ").replace("]", " ").replace(",", " ").split()]
    # A distance is a difference of means of the size of 7, which a float32 sum knows to 1e-6.
    assert seen == pytest.approx(small_values(torch.float32) + small_values(torch.float64), rel=1e-5, abs=1e-6)


def small_values(dtype: torch.dtype) -> list[float]:
    window, prior = draw(37, 9, 24).to(dtype), draw(21, 9, 25).to(dtype)
    results = []
    for op, options in VARIANTS:
        for sample in priors(options, prior):
            value, gradient = run(TABLE[op]["cpp"].run, window[20:], window[:20], sample, options)
            results += [value.item(), *gradient[3, :2].tolist()]
    return results


@pytest.mark.parametrize("op, options", SWEEP)
def test_penalty_on_the_gradient_is_differentiated(op: str, options: dict) -> None:
    """A mixed penalty: value plus squared gradient, through an encoder."""
    history, prior, x = draw(6, 3, 12), draw(7, 3, 13), draw(4, 5, 14)

    def parameter_gradient(function: Callable) -> Tensor:
        weight = draw(5, 3, 15).requires_grad_()
        current = (x @ weight).tanh()
        value = function(current, history, prior, **options)
        (pull,) = torch.autograd.grad(3 * value, current, create_graph=True)
        (value + pull.square().sum()).backward()
        return weight.grad

    torch.testing.assert_close(parameter_gradient(TABLE[op]["cpp"].run), parameter_gradient(OPS[op].reference))


def test_history_may_be_overwritten_before_backward() -> None:
    current, history = draw(2, 4, 16).requires_grad_(), draw(6, 4, 17)
    (expected,) = torch.autograd.grad(TABLE["mmd"]["cpp"].run(current, history, None, **UNBIASED), current)
    value = TABLE["mmd"]["cpp"].run(current, history, None, **UNBIASED)
    history.zero_()
    assert torch.equal(torch.autograd.grad(value, current)[0], expected)


@pytest.mark.parametrize("op, options", [VARIANTS[0], VARIANTS[3], VARIANTS[5]])
@pytest.mark.parametrize("with_prior", [True, False])
def test_opcheck(op: str, options: dict, with_prior: bool) -> None:
    current, history, prior = draw(3, 4, 18).float(), draw(5, 4, 19).float(), draw(6, 4, 20).float()
    arguments = OPS[op].fused_arguments(current, 8, not with_prior, options)
    samples = (current, history, prior if with_prior else None, *arguments)
    for needs_grad in (False, True):
        torch.library.opcheck(getattr(torch.ops.mow_kernels, f"{op}_fwd").default, (*samples, needs_grad))
    torch.library.opcheck(getattr(torch.ops.mow_kernels, f"{op}_gradient").default, samples)


@pytest.mark.parametrize("op, options", [VARIANTS[0], VARIANTS[3], VARIANTS[5]])
@pytest.mark.parametrize("with_prior", [True, False])
def test_compiles_into_one_graph(op: str, options: dict, with_prior: bool) -> None:
    history, prior = draw(5, 4, 21).float(), draw(6, 4, 22).float() if with_prior else None

    def loss(current: Tensor) -> Tensor:
        return 2 * TABLE[op]["cpp"].run(current.tanh(), history, prior, **options)

    torch.compiler.reset()
    eager, compiled = (draw(3, 4, 23).float().requires_grad_() for _ in range(2))
    expected = loss(eager)
    expected.backward()
    value = torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled)
    value.backward()
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(compiled.grad, eager.grad)
