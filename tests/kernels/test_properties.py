"""Whatever is thrown at the public functions: the right answer, or an error that names an argument."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import mow_kernels as mk

pytestmark = pytest.mark.usefixtures("backend")

CHECKED = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
SIZES = st.integers(1, 70)
WIDTHS = st.sampled_from([1, 2, 3, 8, 17, 64, 130])
DTYPES = st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16])

OPTIONS = st.one_of(
    st.tuples(
        st.just(mk.mmd),
        st.fixed_dictionaries(
            {
                "kernel": st.sampled_from(["imq", "gaussian"]),
                "estimator": st.sampled_from(["unbiased", "biased"]),
                "scales": st.lists(st.floats(0.01, 100), min_size=1, max_size=9),
            }
        ),
    ),
    st.tuples(
        st.just(mk.cramer_wold),
        st.fixed_dictionaries(
            {
                "phi": st.sampled_from(["exact", "asymptotic"]),
                "gamma": st.one_of(st.none(), st.floats(1e-3, 10)),
            }
        ),
    ),
    st.tuples(
        st.just(mk.sliced_wasserstein),
        st.fixed_dictionaries({"p": st.sampled_from([1, 1.5, 2, 3]), "directions": st.integers(1, 20)}),
    ),
)


def rows(count: int, width: int, dtype: torch.dtype, layout: str, generator: torch.Generator) -> Tensor:
    """Standard normal rows in memory that is contiguous, transposed, strided or offset."""
    drawn = torch.randn(count, width, generator=generator).to(dtype)
    if layout == "transposed":
        return drawn.t().contiguous().t()
    wide = torch.full((2 * count + 1, width + 3), float("nan"), dtype=dtype)  # what lies around must not be read
    view = wide[1::2, 2:-1] if layout == "strided" else wide[1 : count + 1, 3:]
    view.copy_(drawn)
    return drawn if layout == "contiguous" else view


def value_and_gradient(function: Any, current: Tensor, history: Tensor, prior: Tensor | str, options: dict) -> tuple:
    leaf = current.detach().requires_grad_()
    torch.manual_seed(0)
    value = function(leaf, history, prior, **options)
    value.backward()
    return value.detach(), leaf.grad


@CHECKED
@given(
    OPTIONS,
    SIZES,
    st.integers(0, 70),
    st.one_of(st.none(), SIZES),
    WIDTHS,
    DTYPES,
    st.sampled_from(["contiguous", "transposed", "strided", "offset"]),
)
def test_the_right_answer_or_a_clear_error(call, k, h, m, width, dtype, layout):
    function, options = call
    generator = torch.Generator().manual_seed(k + 100 * h + 10_000 * width)
    current, history = (rows(count, width, dtype, layout, generator) for count in (k, h))
    prior = "normal" if m is None else rows(m, width, dtype, layout, generator)
    refused = (
        ("estimator" if options.get("estimator") == "unbiased" and 1 in (k + h, m) else None)
        or ("phi" if options.get("phi") == "asymptotic" and width == 1 else None)
        or ("p is" if m is None and options.get("p", 2) != 2 else None)
    )
    if refused:
        with pytest.raises(ValueError, match=refused):
            value_and_gradient(function, current, history, prior, options)
        return

    value, gradient = value_and_gradient(function, current, history, prior, options)
    assert value.dtype == (torch.float64 if dtype == torch.float64 else torch.float32) and value.dim() == 0
    assert gradient.dtype == dtype and gradient.shape == current.shape

    exact = [prior if m is None else prior.double(), options]
    with mk.use_backend("reference"):
        right, right_gradient = value_and_gradient(function, current.double(), history.double(), *exact)
    size = 4 * len(options.get("scales", [1])) + right.abs()  # the terms whose difference the value is
    gradient_size = right_gradient.abs().max() + size / (k + h)
    for ours, truth, scale, precision in (
        (value, right, size, value.dtype),
        (gradient, right_gradient, gradient_size, dtype),
    ):
        error = (ours.double() - truth).abs().max()
        assert error <= 100 * torch.finfo(precision).eps * scale


BAD = [None, "rows", 3, torch.ones(3), torch.ones(2, 3, 4), torch.ones(2, 3).int(), torch.ones(0, 3), torch.ones(2, 0)]


@CHECKED
@given(
    st.sampled_from([mk.mmd, mk.cramer_wold, mk.sliced_wasserstein]),
    st.sampled_from(["current", "history", "prior"]),
    st.sampled_from(BAD[1:] + [torch.ones(2, 5), torch.ones(2, 3).double(), torch.ones(2, 3, requires_grad=True)]),
)
def test_bad_rows_are_named(function, name, bad):
    arguments = {"current": torch.ones(2, 3), "history": torch.ones(4, 3), "prior": torch.ones(5, 3)}
    arguments[name] = bad
    if name == "current" and isinstance(bad, Tensor) and bad.requires_grad:
        function(**arguments)
        return
    if name == "history" and isinstance(bad, Tensor) and bad.shape == (0, 3):
        function(**arguments)
        return
    with pytest.raises((ValueError, TypeError), match="current|history|prior"):
        function(**arguments)
