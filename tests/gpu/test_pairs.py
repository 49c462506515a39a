"""MMD and Cramer-Wold against the reference in float64 on the device, by tests/bounds.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from adversaries import ADVERSARIES
from bounds import CRAMER_WOLD, FURTHER, STRIDES, SWEEP, UNBIASED, VARIANTS, check_pairs, draw, priors, run, usable
from targets import Target

import mow_kernels as mk
from mow_kernels.registry import OPS, TABLE

# n, k, D; products begin at D = 32. Triton compiles for each D, function, type and way to spread the work: what is not
# for the long tests has D = 20 or 70, which leaves a part of a block and of a run in every loop, and 1 once.
BOTH = [("mmd", UNBIASED), ("cramer_wold", CRAMER_WOLD[0])]


def long(*values: Any) -> Any:
    return pytest.param(*values, marks=pytest.mark.long)


SIZES = [(17, 1, 20), *(long(*size) for size in ((1, 1, 1), (2, 2, 31), (3, 1, 513)))]
FEW_SIZES = [(2, 1, 20), (31, 3, 70), (65, 2, 70), (130, 3, 20)]
MORE_SIZES = [(6, 6, 1), (3, 1, 513), (2, 1, 2), (31, 3, 32), (64, 1, 64), (130, 3, 5), (65, 2, 33)]
LARGE_SIZES = [(64, 64, 70), (257, 65, 70), (1000, 1, 20), (1000, 500, 20), (4096, 64, 70)]
LARGER = [long(64, 64, 513), long(257, 65, 128), long(1000, 500, 2), long(1000, 1000, 64)]
MMD_FIRST = [BOTH[0], long(*BOTH[1])]  # for what does not depend on the function


def samples(target: Target, n: int, k: int, m: int, dim: int, seed: int = 0) -> tuple[torch.Tensor, ...]:
    """current, history and prior in float64."""
    window, prior = draw(n, dim, seed).to(target.device) * 1.1, draw(m, dim, seed + 1).to(target.device)
    return window[n - k :], window[: n - k], prior


def check(
    target: Target, op: str, options: dict, n: int, k: int, dim: int, dtype=torch.float32, last: bool = False
) -> None:
    if not usable(op, options, n, dim):
        pytest.skip("not defined there")
    current, history, prior = samples(target, n, k, n + 3, dim)
    for sample in priors(options, prior)[-last:]:
        check_pairs(target.backend, op, options, current, history, sample, dtype)


@pytest.mark.parametrize("closed", [True, long(False)])
@pytest.mark.parametrize("n, k, dim", SIZES)
@pytest.mark.parametrize("op, options", SWEEP)
def test_value_and_gradient(target: Target, op: str, options: dict, n: int, k: int, dim: int, closed: bool) -> None:
    """To N(0, I) where that has a closed form: the function of pairs stands there too."""
    check(target, op, options, n, k, dim, last=closed)


@pytest.mark.parametrize("n, k, dim", [*FEW_SIZES, *(long(*size) for size in MORE_SIZES)])
@pytest.mark.parametrize("op, options", [*BOTH, *(long("mmd", options) for options in FURTHER[::2])])
def test_more_sizes(target: Target, op: str, options: dict, n: int, k: int, dim: int) -> None:
    check(target, op, options, n, k, dim)


@pytest.mark.parametrize("n, k, dim", [*LARGE_SIZES, *LARGER])
@pytest.mark.parametrize("op, options", BOTH)
def test_large_samples(gpu: Target, op: str, options: dict, n: int, k: int, dim: int) -> None:
    check(gpu, op, options, n, k, dim)


@pytest.mark.parametrize("closed", [True, long(False)])
@pytest.mark.parametrize("dim", [20, long(2), long(5), long(65)])
@pytest.mark.parametrize("op, options", [*BOTH, *(long(*each) for each in VARIANTS if each not in BOTH)])
def test_double_precision(target: Target, op: str, options: dict, dim: int, closed: bool) -> None:
    for n, k in ((2, 1), (34, 2), (4, 1)):
        check(target, op, options, n, k, dim, torch.float64, last=closed)


@pytest.mark.parametrize(
    "magnitude, dim", [(1e-6, 20), (1e6, 70), *(long(size, dim) for size in (1e-3, 1e3) for dim in (20, 40))]
)
@pytest.mark.parametrize("op, options", [*BOTH, long(*VARIANTS[3])])
def test_magnitudes_with_duplicates(target: Target, op: str, options: dict, magnitude: float, dim: int) -> None:
    current, history, prior = (magnitude * x for x in samples(target, 20, 9, 17, dim, 4))
    current[4:8], prior[3:6] = history[4], history[4]
    offset = [x + magnitude for x in (current, history, prior)]  # an expansion of the squares would cancel
    for sample in priors(options, offset[2]):
        check_pairs(target.backend, op, options, offset[0], offset[1], sample)


@pytest.mark.parametrize("dim", [long(20), 70])
@pytest.mark.parametrize("op, options", BOTH)
def test_far_from_the_origin(target: Target, op: str, options: dict, dim: int) -> None:
    """Where |x|^2 + |y|^2 - 2xy would keep no digit; two clusters, since a tile is taken around one of its rows."""
    current, history, prior = (x + 1000 for x in samples(target, 20, 3, 33, dim, 6))
    check_pairs(target.backend, op, options, current, history, prior)
    history[::2], prior[::2] = history[::2] - 2000, prior[::2] - 2000
    check_pairs(target.backend, op, options, current, history, prior)


@pytest.mark.parametrize("dim", [70, 300])
@pytest.mark.parametrize("spoil", ADVERSARIES)
@pytest.mark.parametrize("op, options", BOTH)
def test_what_is_hard_on_limbs(
    gpu: Target, op: str, options: dict, spoil: Callable[[torch.Tensor, torch.Tensor], None], dim: int
) -> None:
    """In several tiles. test_triton.py has the same."""
    if gpu.backend != "cuda":
        pytest.skip("for each of these sizes Triton compiles")
    window, prior = draw(300, dim, 3), draw(140, dim, 4)
    spoil(window, prior)
    window, prior = window.to(gpu.device), prior.to(gpu.device)
    check_pairs("cuda", op, options, window[290:], window[:290], prior)


@pytest.mark.parametrize("dim", [long(20), 70])
@pytest.mark.parametrize("op, options", MMD_FIRST)
def test_huge_numbers_are_no_nan(target: Target, op: str, options: dict, dim: int) -> None:
    current, history, prior = (x.float() * 1e25 for x in samples(target, 20, 10, 20, dim, 6))
    for sample in (prior, None):
        value, _ = run(TABLE[op][target.backend].run, current, history, sample, options)
        torch.testing.assert_close(value.float(), OPS[op].reference(current, history, sample, **options))


@pytest.mark.parametrize("dim", [20, long(8), long(40)])
@pytest.mark.parametrize("op, options", SWEEP)
def test_nan_is_passed_on(target: Target, op: str, options: dict, dim: int) -> None:
    samples_ = [x.float() for x in samples(target, 35, 4, 17, dim, 8)]
    for spoilt in range(3 if (op, options) in BOTH or len(priors(options, samples_[2])) == 1 else 0):
        given = [x.clone() for x in samples_]
        given[spoilt][-1, 3] = torch.nan
        assert run(TABLE[op][target.backend].run, *given, options)[0].isnan()
    given = [samples_[0], samples_[1].clone(), priors(options, samples_[2])[-1]]
    given[1][0, 0] = torch.nan
    assert run(TABLE[op][target.backend].run, *given, options)[0].isnan()


@pytest.mark.parametrize(
    "view", [view if view in ("every second column", "rows apart", "offset") else long(view) for view in STRIDES]
)
@pytest.mark.parametrize("op, options", MMD_FIRST)
def test_views_give_the_bits_of_copies(target: Target, op: str, options: dict, view: str) -> None:
    given = [STRIDES[view](draw(rows, 20, rows).float().to(target.device)) for rows in (5, 40, 33)]
    seen = run(TABLE[op][target.backend].run, *given, options)
    copied = run(TABLE[op][target.backend].run, *(x.contiguous() for x in given), options)
    assert all(map(torch.equal, seen, copied))


@pytest.mark.parametrize("sampled", [True, long(False)])
@pytest.mark.parametrize(
    "op, dtype",
    [
        ("mmd", torch.float16),
        ("cramer_wold", torch.bfloat16),
        long("mmd", torch.bfloat16),
        long("cramer_wold", torch.float16),
    ],
)
def test_half_types(target: Target, op: str, dtype: torch.dtype, sampled: bool) -> None:
    current, history, prior = (x.to(dtype) for x in samples(target, 40, 3, 20, 20, 10))
    current.requires_grad_()
    for sample in (prior if sampled else "normal",):
        with mk.use_backend(target.backend):
            value = getattr(mk, op)(current, history, sample)
        (gradient,) = torch.autograd.grad(value, current)
        with mk.use_backend("reference"):
            right = getattr(mk, op)(current, history, sample)
        (right_gradient,) = torch.autograd.grad(right, current)
        assert value.dtype == torch.float32 and gradient.dtype == dtype
        torch.testing.assert_close(value, right, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(gradient, right_gradient, rtol=2 * torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("op, options", BOTH)
def test_the_same_bits_again(target: Target, op: str, options: dict) -> None:
    n, dim = (40, 20) if target.small else (3000, 70)
    current, history, prior = (x.float() for x in samples(target, n, n // 3, n, dim, 12))
    first, again = (run(TABLE[op][target.backend].run, current, history, prior, options) for _ in range(2))
    assert all(map(torch.equal, first, again))


@pytest.mark.parametrize("op, options", MMD_FIRST)
def test_no_gradient_wanted(target: Target, op: str, options: dict) -> None:
    current, history, prior = (x.float() for x in samples(target, 40, 5, 33, 20, 14))
    value = TABLE[op][target.backend].run(current, history, prior, **options)
    assert torch.equal(value.double(), run(TABLE[op][target.backend].run, current, history, prior, options)[0])


@pytest.mark.parametrize("op, options", [*MMD_FIRST, long(*VARIANTS[3])])
def test_compiles_into_one_graph(target: Target, op: str, options: dict) -> None:
    current, history, prior = (x.float() for x in samples(target, 9, 3, 6, 20, 16))

    def loss(current: torch.Tensor, sample: torch.Tensor | None) -> torch.Tensor:
        return 2 * TABLE[op][target.backend].run(current.tanh(), history, sample, **options)

    for sample in (prior, None):
        torch.compiler.reset()
        eager, compiled = (current.clone().requires_grad_() for _ in range(2))
        expected = loss(eager, sample)
        expected.backward()
        value = torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled, sample)
        value.backward()
        torch.testing.assert_close(value, expected)
        torch.testing.assert_close(compiled.grad, eager.grad)


@pytest.mark.parametrize("op, options", BOTH)
def test_offsets_beyond_32_bits(gpu: Target, op: str, options: dict) -> None:
    step = 2**31 // 64
    if torch.cuda.mem_get_info()[0] < 8 * 2**30:
        pytest.skip("needs 8 GiB")
    buffer = torch.zeros(70 * step, dtype=torch.bfloat16, device=gpu.device)
    rows = buffer.as_strided((70, 20), (step, 1))
    rows.copy_(draw(70, 20, 18))
    entry = TABLE[op][gpu.backend].run
    seen = entry(rows[60:], rows[:60], None, **options) if gpu.backend == "triton" else None
    copied = entry(rows[60:].contiguous().float(), rows[:60].contiguous().float(), None, **options)
    if seen is not None:
        torch.testing.assert_close(seen, copied, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(entry(rows[60:].float(), rows[:60].float(), None, **options), copied)


@pytest.mark.parametrize("sampled", [True, long(False)])
@pytest.mark.parametrize("op, options", BOTH)
def test_the_gradient_alone(target: Target, op: str, options: dict, sampled: bool) -> None:
    entry = TABLE[op][target.backend].gradient
    current, history, prior = (x.float() for x in samples(target, 40, 5, 33, 20, 14))
    both, _ = entry(True, current, history, prior if sampled else None, **options)
    alone, nothing = entry(False, current, history, prior if sampled else None, **options)
    assert nothing is None and torch.equal(alone, both)
