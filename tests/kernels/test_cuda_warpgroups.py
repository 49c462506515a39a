"""The CUDA kernels with products by warpgroups, on the CPU, beside those by warps."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from bounds import CRAMER_WOLD, FURTHER, UNBIASED, check_pairs, draw, run
from cuda_shim import library
from marks import needs_compiler
from test_cuda_kernels import on_tensor_cores

from mow_kernels.registry import TABLE
from studies.cuda import tensor_cores

pytestmark = needs_compiler

RIGHT = [
    ("mmd", UNBIASED),
    *(pytest.param(*each, marks=pytest.mark.long) for each in (("cramer_wold", CRAMER_WOLD[0]), ("mmd", FURTHER[4]))),
]


@pytest.fixture(autouse=True)
def in_order() -> Iterator[None]:
    with library.environment(**on_tensor_cores("wgmma")):
        yield
        library.turn()


@pytest.mark.parametrize("op, options", RIGHT)
def test_both_forms_find_the_same_distances(op: str, options: dict) -> None:
    """The gradient, whose sums are in the same order, has the same bits: no pair is evaluated again that one of them
    need not. Of rows of both warpgroups, in more coordinates than can stay in shared memory; and where there are no
    warpgroups it is the other form."""
    window, prior = draw(80, 260, 5).float(), draw(9, 260, 6).float()
    gradients = []
    for major, product in ((9, "0"), (9, "wgmma:1"), (8, "wgmma:89"), (9, "wgmma:90")):
        with library.environment(**on_tensor_cores(product)):
            library.turn(major=major)
            gradients.append(run(getattr(library, op), window[60:], window[:60], prior, options)[1])
            library.turn()
    assert all(torch.equal(found, gradients[0]) for found in gradients[1:3])
    assert not torch.equal(gradients[3], gradients[0]), "from so many rows on"


@pytest.mark.parametrize("op, options", RIGHT)
def test_every_order_of_turns(op: str, options: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a tile of rows that is full and one that is not, and slots that hold what ends a visit each time."""
    window, prior = draw(140, 60, 0) * 1.1, draw(10, 60, 1)
    results = []
    for order in (0, 1, 2):
        library.turn(order=order)
        results.append(run(getattr(library, op), window[137:].float(), window[:137].float(), prior.float(), options))
    assert all(torch.equal(a, b) for result in results[1:] for a, b in zip(results[0], result, strict=True))
    monkeypatch.setitem(TABLE[op], "cuda", library.IMPLEMENTATIONS[op])
    check_pairs("cuda", op, options, window[137:], window[:137], prior)


@pytest.mark.long
@pytest.mark.parametrize("dim", [32, 33, 128, 256, 257, 600])
@pytest.mark.parametrize("op, options", [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0])])
def test_more_widths(op: str, options: dict, dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Around a slab's, and around what stays in shared memory, each in another order of turns."""
    monkeypatch.setitem(TABLE[op], "cuda", library.IMPLEMENTATIONS[op])
    window, prior = draw(150, dim, 0) * 1.1, draw(70, dim, 1)
    library.turn(order=dim % 3)
    check_pairs("cuda", op, options, window[100:], window[:100], prior)


def test_a_slab_is_swizzled_as_the_instruction_reads_it() -> None:
    """Of 64 rows of 64 numbers, 16 columns at a time."""
    generator = np.random.default_rng(1)
    a, b = (generator.normal(size=(64, 64)).astype(np.float16) for _ in range(2))
    c = generator.normal(size=(64, 64)).astype(np.float32)
    for order, byte in ((0, 0), (1, 32), (2, 96)):
        library.turn(order=order)
        columns, seen = slice(byte // 2, byte // 2 + 16), c.copy()
        pointers = [ctypes.c_void_p(x.ctypes.data) for x in (a, b, seen)]
        assert library.load().cuda_shim_warpgroup_multiply(*pointers[:2], byte, pointers[2]) == 0
        expected = tensor_cores.mma(a[:, columns].astype(float), b[:, columns].astype(float), c.astype(float))
        assert np.array_equal(seen, expected)
