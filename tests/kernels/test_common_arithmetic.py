"""The arithmetic that the CPU's and the GPU's kernels share (csrc/common), on the host against float64."""

from __future__ import annotations

import ctypes
import math

import pytest
import torch
from cuda_shim import library
from marks import needs_compiler
from torch import Tensor

from mow_kernels.ops import cramer_wold, mmd
from mow_kernels.reference import laplace
from mow_kernels.reference.mmd import KERNELS
from mow_kernels.reference.sliced_wasserstein import quantile_coupling

pytestmark = needs_compiler

F32, F64 = torch.float32, torch.float64
SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
DISTANCES = [0.0, *(10.0**x for x in range(-8, 38)), 3e38]  # the largest overflow the products of rational functions


def call(name: str, dtype: torch.dtype | None, table: Tensor, r: Tensor, *options: float) -> tuple[Tensor, Tensor]:
    """f and f' at r, in float64."""
    value, slope = torch.empty_like(r), torch.empty_like(r)
    arguments = [ctypes.c_void_p(table.data_ptr()), ctypes.c_int64(table.numel()), *map(ctypes.c_double, options)]
    if dtype is not None:
        arguments.insert(0, ctypes.c_bool(dtype is F32))
    arguments += [ctypes.c_void_p(r.data_ptr()), ctypes.c_int64(len(r))]
    function = getattr(library.load(), f"arithmetic_{name}")
    function.restype = ctypes.c_bool
    assert function(*arguments, ctypes.c_void_p(value.data_ptr()), ctypes.c_void_p(slope.data_ptr()))
    return value.double(), slope.double()


def check(value: Tensor, slope: Tensor, truth: Tensor, true_slope: Tensor, tolerance: float) -> None:
    """Relative errors, but for what a float cannot hold."""
    tiny = 1e-37
    assert ((value - truth).abs() <= tolerance * truth.abs() + tiny).all()
    assert ((slope - true_slope).abs() <= tolerance * true_slope.abs() + tiny).all()


@pytest.mark.parametrize("dtype, tolerance", [(F32, 4e-6), (F64, 1e-13)])
@pytest.mark.parametrize("scales", [SCALES, (1e-3, 1.0, 1e4), (2.0,), tuple(2.0**j for j in range(-8, 16))])
def test_sums_of_inverse_multiquadrics(scales: tuple[float, ...], dtype: torch.dtype, tolerance: float) -> None:
    dim = 20
    r = torch.tensor(DISTANCES, dtype=dtype)
    value, slope = call("mmd", dtype, mmd.table(dim, dtype, "imq", scales, "biased", False), r)
    c, exact = 2 * dim * torch.tensor(scales, dtype=F64), r.double()[:, None]
    check(value, slope, (c / (c + exact)).sum(1), (-c / (c + exact).square()).sum(1), tolerance)


@pytest.mark.parametrize("dtype, tolerance", [(F32, 2e-6), (F64, 1e-14)])
@pytest.mark.parametrize("scales", [SCALES, (0.3,)])
def test_sums_of_gaussians(scales: tuple[float, ...], dtype: torch.dtype, tolerance: float) -> None:
    dim = 20
    r = torch.cat([torch.linspace(0, 80, 101, dtype=dtype), torch.tensor([1e4, 1e30, math.inf], dtype=dtype)])
    value, slope = call("mmd", dtype, mmd.table(dim, dtype, "gaussian", scales, "biased", False), r)
    c, exact = 2 * dim * torch.tensor(scales, dtype=F64), r.double()[:, None]
    check(value, slope, torch.exp(-exact / c).sum(1), (-torch.exp(-exact / c) / c).sum(1), tolerance)


FURTHER = {
    "energy": [()],
    "laplacian": [(1.0,), (0.2, 3.0, 50.0)],
    "rational_quadratic": [(0.0, 0.2, 0.5, 1.0, 2.0, 5.0), (0.1, 0.7, 3.25), (0.0, 12.0)],
    "polynomial": [(3.0, 1.0, 0.05), (1.0, 0.0, 2.0), (6.0, -0.5, 0.3)],
}


@pytest.mark.parametrize("dtype, tolerance", [(F32, 4e-6), (F64, 1e-13)])
@pytest.mark.parametrize("kernel, numbers", [(kernel, each) for kernel, some in FURTHER.items() for each in some])
def test_further_kernels(kernel: str, numbers: tuple[float, ...], dtype: torch.dtype, tolerance: float) -> None:
    r = torch.cat([torch.logspace(-12, 6, 120), torch.linspace(0.5, 80, 60)]).to(dtype)
    if kernel == "polynomial":
        r = torch.cat([-r[r < 1e3], r[r < 1e3]])
    exact = r.double().requires_grad_()
    truth = KERNELS[kernel].of(exact, 20, numbers)
    (true_slope,) = torch.autograd.grad(truth.sum(), exact)
    value, slope = call("mmd", dtype, mmd.table(20, dtype, kernel, numbers, "biased", False), r)
    if kernel == "polynomial":  # relative to what is added up before the power
        degree, c, g = numbers
        base = (g * exact.detach().abs() + abs(c)).pow(degree - 1)
        assert ((value - truth.detach()).abs() <= tolerance * base * (g * exact.detach().abs() + abs(c))).all()
        assert ((slope - true_slope).abs() <= tolerance * degree * g * base + 1e-37).all()
    else:
        check(value, slope, truth.detach(), true_slope, tolerance)


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("kernel", ["energy", "laplacian"])
def test_rows_that_coincide_have_no_slope(kernel: str, dtype: torch.dtype) -> None:
    r = torch.tensor(
        [0.0, torch.finfo(dtype).smallest_normal / 4, torch.finfo(dtype).smallest_normal, 1.0], dtype=dtype
    )
    numbers = (1.0,) if kernel == "laplacian" else ()
    value, slope = call("mmd", dtype, mmd.table(3, dtype, kernel, numbers, "biased", False), r)
    assert slope[:2].tolist() == [0, 0] and bool((slope[2:] < 0).all())
    assert value[:2].tolist() == [len(numbers)] * 2


@pytest.mark.parametrize("dtype", [F32, F64])
@pytest.mark.parametrize("kernel, numbers", [("laplacian", (1.0, 3.0)), ("rational_quadratic", (0.0, 0.2, 0.5, 2.0))])
def test_what_is_infinitely_far_adds_next_to_nothing(kernel: str, numbers: tuple, dtype: torch.dtype) -> None:
    r = torch.tensor([math.inf], dtype=dtype)
    value, slope = call("mmd", dtype, mmd.table(3, dtype, kernel, numbers, "biased", False), r)
    assert 0 <= float(value) < 1e-7 and -1e-30 < float(slope) <= 0


@pytest.mark.parametrize("kernel", ["energy", "rational_quadratic", "polynomial"])
@pytest.mark.parametrize("dim", [2, 3, 20, 64])
def test_further_expectations_under_the_normal(dim: int, kernel: str) -> None:
    for numbers in FURTHER[kernel]:
        table = mmd.table(dim, F64, kernel, numbers, "biased", True)
        r = torch.linspace(0, 8 * dim, 101, dtype=F64)
        if table.numel() > 350 and kernel == "rational_quadratic":
            continue  # it takes more numbers than there is room for
        value, slope = call("normal_mean", None, table, r)
        rows = torch.zeros(len(r), dim, dtype=F64)
        rows[:, 0] = r.sqrt()
        live = rows.requires_grad_()
        truth = KERNELS[kernel].mean(live, numbers)
        (pull,) = torch.autograd.grad(truth.sum(), live)
        apart = r > 0
        check(value[apart], slope[apart], truth.detach()[apart], (pull[:, 0] / (2 * r.sqrt()))[apart], 1e-11)


@pytest.mark.parametrize("kernel", ["imq", "gaussian"])
@pytest.mark.parametrize("dim", [1, 2, 20, 64])
def test_expectations_under_the_normal(dim: int, kernel: str) -> None:
    r = torch.linspace(0, 8 * dim, 101, dtype=F64).requires_grad_()
    value, slope = call("normal_mean", None, mmd.table(dim, F64, kernel, SCALES, "biased", True), r.detach())
    if kernel == "imq":
        truth = laplace.imq_mean(r, dim, SCALES)
    else:
        c = 2 * dim * torch.tensor(SCALES, dtype=F64)
        truth = ((c / (c + 2)) ** (dim / 2) * torch.exp(-r[:, None] / (c + 2))).sum(1)
    (true_slope,) = torch.autograd.grad(truth.sum(), r)
    check(value, slope, truth.detach(), true_slope, 1e-12)


@pytest.mark.parametrize("dtype, tolerance", [(F32, 2e-6), (F64, 1e-11)])
@pytest.mark.parametrize("dim", [1, 2, 3, 8, 20, 64, 513])
def test_phi(dim: int, dtype: torch.dtype, tolerance: float) -> None:
    width = 0.8
    r = torch.cat([torch.zeros(1), torch.logspace(-6, 2, 60)]).to(dtype)
    value, slope = call("phi", dtype, cramer_wold.table(dim, dtype, "exact"), r, width)
    exact = r.double().requires_grad_()
    truth = laplace.phi(exact / width, dim)
    (true_slope,) = torch.autograd.grad(truth.sum(), exact)
    check(value, slope, truth.detach(), true_slope, tolerance)


NUMBERS = [-math.inf, -3e38, -1.0, -1e-40, 0.0, 1e-40, 1.0, 1.0000001, 3e38, math.inf]


@pytest.mark.parametrize("single", [True, False])
def test_entries_are_in_the_order_of_their_numbers_then_rows(single: bool) -> None:
    before = library.load().arithmetic_before
    before.restype = ctypes.c_bool
    values = (ctypes.c_double * 2)()

    def comes_before(a: float, row_a: int, b: float, row_b: int) -> bool:
        return before(single, ctypes.c_double(a), row_a, ctypes.c_double(b), row_b, values)

    for i, a in enumerate(NUMBERS):
        for j, b in enumerate(NUMBERS):
            for row_a, row_b in ((0, 0), (3, 2**31), (2**31, 3)):
                assert comes_before(a, row_a, b, row_b) == (i < j or (i == j and row_a < row_b))
                assert list(values) == [ctypes.c_float(x).value if single else x for x in (a, b)]
    assert comes_before(-0.0, 1, 0.0, 2) and comes_before(0.0, 1, -0.0, 2)  # both zeros are equal
    assert comes_before(math.inf, 9, math.nan, 0) and math.isnan(values[1])


def test_count_below() -> None:
    ascending = [0.0, 1.0, 1.0, 1.0, 2.0]
    entries = (ctypes.c_float * 5)(*ascending)
    for count in range(6):
        for x in (-1.0, 0.0, 1.0, 1.5, 2.0, 3.0):
            for row in range(6):
                found = library.load().arithmetic_count_below(entries, ctypes.c_int64(count), ctypes.c_float(x), row)
                assert found == sum((y, i) < (x, row) for i, y in enumerate(ascending[:count]))


@pytest.mark.parametrize("n, m", [(1, 1), (1, 7), (7, 1), (6, 4), (64, 64), (65, 40), (100, 250)])
def test_steps_of_the_quantile_coupling(n: int, m: int) -> None:
    rows, priors, widths = (ctypes.c_int64 * (n + m))(), (ctypes.c_int64 * (n + m))(), (ctypes.c_double * (n + m))()
    count = library.load().arithmetic_steps(ctypes.c_int64(n), ctypes.c_int64(m), rows, priors, widths)
    expected = quantile_coupling(n, m)
    assert rows[:count] == expected[0].tolist() and priors[:count] == expected[1].tolist()
    assert widths[:count] == pytest.approx(expected[2].tolist(), rel=1e-15)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, 3.0])
def test_cost(p: float) -> None:
    cost, slope = ctypes.c_double(), ctypes.c_double()
    for d in (-2.5, -1e-3, 0.0, 1.0, 7.0):
        library.load().arithmetic_cost(ctypes.c_double(p), ctypes.c_double(d), ctypes.byref(cost), ctypes.byref(slope))
        assert cost.value == pytest.approx(abs(d) ** p, rel=1e-14)
        assert slope.value == pytest.approx(p * abs(d) ** (p - 1) * ((d > 0) - (d < 0)), rel=1e-14)
