"""The CUDA kernels with products on tensor cores, on the CPU, whose instruction is studies/cuda/tensor_cores.py's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from adversaries import ADVERSARIES
from bounds import CRAMER_WOLD, FURTHER, STRIDES, SWEEP, UNBIASED, check_pairs, draw, priors, run, usable
from cuda_shim import library
from marks import needs_compiler
from test_cuda_kernels import PRODUCTS, on_tensor_cores
from torch import Tensor

from mow_kernels.backends import cuda
from mow_kernels.registry import TABLE
from studies.cuda import tensor_cores

pytestmark = needs_compiler

BOTH = [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0])]
OF_PRODUCTS = ("mmd", FURTHER[4])
USUAL = (*BOTH, OF_PRODUCTS)


@pytest.fixture(autouse=True, params=PRODUCTS)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for op, implementation in library.IMPLEMENTATIONS.items():
        monkeypatch.setitem(TABLE[op], "cuda", implementation)
    with library.environment(**on_tensor_cores(PRODUCTS[request.param])):
        library.turn(order=1)
        yield
    library.turn()


def check(op: str, options: dict, n: int, k: int, m: int, dim: int) -> None:
    window, prior = draw(n, dim, 0) * 1.1, draw(m, dim, 1)
    for sample in priors(options, prior):
        if op != "mmd" or cuda._mmd_unsupported(window.float(), window[:0], sample, **options) is None:
            check_pairs("cuda", op, options, window[n - k :], window[: n - k], sample)


@pytest.mark.parametrize("op, options", USUAL)
def test_value_and_gradient(op: str, options: dict) -> None:
    """Of two tiles, of which one has a gradient; in more coordinates than shared memory holds at once, and in fewer."""
    check(op, options, 70, 3, 20, 85)
    check(op, options, 70, 3, 70, 20)


@pytest.mark.long
@pytest.mark.parametrize("n, k, m, dim", [(2, 1, 2, 513), (64, 64, 64, 64), (130, 66, 140, 20), (200, 1, 65, 1)])
@pytest.mark.parametrize("op, options", SWEEP)
def test_more_sizes(op: str, options: dict, n: int, k: int, m: int, dim: int) -> None:
    if usable(op, options, min(n, m), dim):
        check(op, options, n, k, m, dim)


@pytest.mark.parametrize("spoil", ADVERSARIES)
@pytest.mark.parametrize("op, options", [BOTH[0], pytest.param(*BOTH[1], marks=pytest.mark.long)])
def test_adversaries(op: str, options: dict, spoil: Callable[[Tensor, Tensor], None]) -> None:
    window, prior = draw(40, 48, 3), draw(30, 48, 4)
    spoil(window, prior)
    check_pairs("cuda", op, options, window[31:], window[:31], prior)


@pytest.mark.parametrize("op, options", [BOTH[0], pytest.param(*BOTH[1], marks=pytest.mark.long), OF_PRODUCTS])
def test_the_bits(op: str, options: dict) -> None:
    """They are those of any order of threads, of a strided view, and with the value or without; and not those of
    float32's multiply-adds, or this file would test nothing."""
    samples = [STRIDES["every second column"](draw(rows, 70, rows).float()) for rows in (9, 61, 33)]
    results = []
    for order in (0, 1, 2):
        library.turn(order=order)
        results.append(run(getattr(library, op), *samples, options))
    results.append(run(getattr(library, op), *(x.contiguous() for x in samples), options))
    gradient = library.IMPLEMENTATIONS[op].gradient
    assert gradient is not None
    results.append((results[0][0], gradient(False, *samples, **options)[0].double()))
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(results[0], result, strict=True))
    with library.environment(MOW_CUDA_PRODUCT="1000"):
        plain = run(getattr(library, op), *samples, options)
    assert not torch.equal(plain[1], results[0][1])


@pytest.mark.parametrize("op, options", USUAL)
def test_what_is_not_finite_stays_visible(op: str, options: dict) -> None:
    window = draw(40, 8, 8).float()
    spoilt = window.clone()
    spoilt[39, 3] = torch.nan
    assert getattr(library, op)(spoilt[30:], spoilt[:30], window, **options).isnan()
    assert getattr(library, op)(window[30:], window[:30], spoilt, **options).isnan()


def test_the_instruction_is_that_of_the_emulation() -> None:
    generator = np.random.default_rng(0)
    for spread in (1, 8):
        a, b = (
            (generator.normal(size=(rows, 16)) * np.exp2(generator.integers(-spread, spread, (rows, 16))))
            for rows in (16, 8)
        )
        a, b = a.astype(np.float16), b.astype(np.float16)
        c = generator.normal(size=(16, 8)).astype(np.float32)
        expected = tensor_cores.mma(a.astype(float), b.astype(float), c.astype(float))
        pointers = (ctypes.c_void_p(x.ctypes.data) for x in (a, b, c))
        assert library.load().cuda_shim_multiply_add(*pointers) == 0
        assert np.array_equal(c, expected)
