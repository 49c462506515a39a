"""The gradient by itself: the bits of the one that comes with the value, from every backend that runs here."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bounds import STRIDES, draw
from marks import needs_native
from torch import Tensor

import mow_kernels as mk

CALLS: list[tuple[Any, dict[str, Any]]] = [
    (mk.mmd, {}),
    (mk.mmd, {"kernel": "gaussian", "estimator": "biased"}),
    (mk.cramer_wold, {}),
    (mk.sliced_wasserstein, {}),
    (mk.sliced_wasserstein, {"p": 1}),
    (mk.sliced_wasserstein, {"p": 3}),
]
SIZES = [(2, 1, 2, 3), (9, 9, 4, 5), (64, 1, 20, 64), (65, 33, 33, 40), (300, 7, 5, 299), (700, 130, 8, 500)]
LARGE = (2600, 3, 4, 1700)  # several pieces
CASES = [
    *(("reference", *size) for size in SIZES),
    pytest.param("reference", *LARGE, marks=pytest.mark.long),
    *(pytest.param("cpp", *size, marks=needs_native) for size in (*SIZES, LARGE)),
]


@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backend, n, k, dim, m", CASES)
@pytest.mark.parametrize("function, options", CALLS)
def test_it_is_the_gradient_of_the_value(
    backend: str, function: Any, options: dict, n: int, k: int, dim: int, m: int, dtype: torch.dtype, sampled: bool
) -> None:
    if not sampled and options.get("p", 2) != 2:
        pytest.skip("no closed form")
    check(backend, function, options, draw(n, dim, 0).to(dtype), k, draw(m, dim, 1).to(dtype) if sampled else "normal")


@pytest.mark.parametrize("function, options", CALLS)
@pytest.mark.parametrize("k", [1, 9, 90])
@pytest.mark.parametrize("neighbours", [1, 3])
def test_ties_go_by_row(function: Any, options: dict, neighbours: int, k: int) -> None:
    """Rows that coincide within the history, within current and between them, apart or side by side, few and many."""
    window, prior = draw(200, 4, 2).round(), draw(100, 4, 3).round()
    check("auto", function, options, window[torch.arange(200) // neighbours % 30], k, prior)


@pytest.mark.parametrize("view", STRIDES)
@pytest.mark.parametrize("function, options", CALLS)
def test_views(function: Any, options: dict, view: str) -> None:
    window, prior = (STRIDES[view](draw(rows, 9, rows).float()) for rows in (40, 30))
    check("auto", function, options, window, 3, prior)


def check(backend: str, function: Any, options: dict, window: Tensor, k: int, prior: Tensor | str) -> None:
    history, current = window[:-k], window[-k:].detach().requires_grad_()
    if function is mk.sliced_wasserstein:
        options = {
            "directions": torch.nn.functional.normalize(draw(window.shape[1], 37, 4).to(window), dim=0),
            **options,
        }
    with mk.use_backend(backend):
        value = function(current, history, prior, **options)
        (expected,) = torch.autograd.grad(value, current)
        alone, nothing = mk.gradient(function, current, history, prior, **options)
        both = mk.gradient(function, current, history, prior, measure=True, **options)
    assert nothing is None and torch.equal(alone, expected)
    assert torch.equal(both[0], expected) and torch.equal(both[1], value)
    assert not any(x.requires_grad for x in (alone, *both))


def test_bits_do_not_depend_on_threads() -> None:
    window, prior, before = draw(2900, 40, 5).float(), draw(2800, 40, 6).float(), torch.get_num_threads()
    options = {"directions": torch.nn.functional.normalize(draw(40, 100, 7).float(), dim=0)}
    results = []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            results.append(mk.gradient(mk.mmd, window[400:900], window[:400], prior[:800])[0])
            results.append(mk.gradient(mk.mmd, window[2830:], window[:2830], prior)[0])
            results.append(mk.gradient(mk.sliced_wasserstein, window[850:900], window[:850], prior, **options)[0])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(result, results[i % 3]) for i, result in enumerate(results))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [mk.mmd, mk.cramer_wold, mk.sliced_wasserstein])
def test_half_rows_have_a_float32_gradient_which_can_be_scaled(function: Any, dtype: torch.dtype) -> None:
    current, history = (
        draw(1, 4, 8).to(dtype),
        draw(65_535 if function is mk.sliced_wasserstein else 4095, 4, 9).to(dtype),
    )
    options = {"directions": torch.eye(4)} if function is mk.sliced_wasserstein else {}
    g_current, value = mk.gradient(function, current, history, measure=True, **options)
    assert g_current.dtype == value.dtype == torch.float32
    wide, _ = mk.gradient(function, current.float(), history.float(), **options)
    n = 1 + len(history)
    torch.testing.assert_close((n * g_current).to(dtype), (n * wide).to(dtype))
    assert not (n * wide).to(dtype).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("function", [mk.mmd, mk.cramer_wold, mk.sliced_wasserstein])
@pytest.mark.parametrize("half_history", [False, True])
def test_half_rows_go_with_float32_ones(function: Any, dtype: torch.dtype, half_history: bool) -> None:
    current, history, prior = draw(3, 4, 8).to(dtype), draw(5, 4, 9).float(), draw(6, 4, 10).float()
    history = history.to(dtype) if half_history else history
    options = {"directions": torch.eye(4)} if function is mk.sliced_wasserstein else {}
    expected = function(current.float(), history.float(), prior, **options)
    live = current.clone().requires_grad_()
    value = function(live, history, prior, **options)
    assert torch.equal(value, expected)
    value.backward()
    assert live.grad is not None and live.grad.dtype == dtype
    with pytest.raises(TypeError, match="history has dtype torch.float64"):
        function(current, history.double(), prior, **options)


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.long)])
def test_it_runs_in_a_compiled_graph(compiler: str) -> None:
    current, history = draw(2, 4, 10).float(), draw(6, 4, 11).float()

    def scaled(current: Tensor) -> Tensor:
        return 2 * mk.gradient(mk.mmd, current.tanh(), history)[0]

    compiled = torch.compile(scaled, fullgraph=True, backend=compiler)
    torch.testing.assert_close(compiled(current), scaled(current))


def test_what_is_no_distance_is_refused() -> None:
    with pytest.raises(ValueError, match="function is .*k_center.*; it must be mmd, cramer_wold or sliced_wasserstein"):
        mk.gradient(mk.k_center, draw(2, 4, 0))
    with pytest.raises(ValueError, match="current has shape"):
        mk.gradient(mk.mmd, draw(0, 4, 0))
