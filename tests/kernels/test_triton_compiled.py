"""The Triton kernels in machine code, which needs no GPU: they compile, and nothing spills where it counts."""

from __future__ import annotations

import pytest

from benchmarks import machine_code
from mow_kernels.backends import triton

pytestmark = pytest.mark.skipif(bool(triton.unavailable) or triton.INTERPRETED, reason="Triton has to compile here")


LIMBS = {"LIMBS": True, "COLUMNS": 32}  # what `pairs.compile_options` makes of them

each_nvidia = pytest.mark.parametrize("target", ["sm_90", pytest.param("sm_80", marks=pytest.mark.long)])


@pytest.fixture
def static():
    static = pytest.importorskip("benchmarks.gpu.static")
    if reason := static.missing():
        pytest.skip(reason)
    return static


def stays_in_registers(static, row: dict) -> bool:
    """Triton 3.6 has an older assembler: it keeps up to ten registers in local memory, outside of the inner loops."""
    return row["loop_spills"] == 0 and row["local"] <= (40 if is_older(static) else 0)


def is_older(static) -> bool:
    return static.triton.__version__.startswith("3.6.")


@each_nvidia
@pytest.mark.parametrize("distance, dim", [("mmd", 20), ("mmd", 64), ("cramer_wold", 256)])
def test_pairs_stay_in_registers(static, distance: str, dim: int, target: str) -> None:
    for kernel in static.pair_kernels(distance, dim):
        row = static.inspect(kernel, target)
        assert stays_in_registers(static, row), row
        assert row["registers"] * 32 * row["warps"] * (1 if "one" in kernel.name else 2) <= 2**16, row
        products = dim >= 32 and "alone" not in kernel.name  # a loop of which is mostly multiply-adds
        assert row["share"] > (0.6 if products else 0.2), row


@each_nvidia
def test_sliced_stays_in_registers(static, target: str) -> None:
    for kernel in static.sliced_kernels():
        if "1024" not in kernel.name:
            row = static.inspect(kernel, target)
            assert stays_in_registers(static, row), row


@pytest.mark.parametrize("target", ["gfx942", *(pytest.param(f"sm_{n}", marks=pytest.mark.long) for n in (100, 120))])
def test_other_targets(static, target: str) -> None:
    for kernel in (*static.pair_kernels("mmd", 64), next(static.sliced_kernels())):
        row = static.inspect(kernel, target)
        assert row["registers"] > 0 and row["shared"] < 2**16, row


@pytest.mark.parametrize("dim", [20, pytest.param(64, marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "kernel, numbers",
    [
        ("energy", ()),
        ("laplacian", (1.0, 3.0)),
        ("rational_quadratic", (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)),
        ("polynomial", (3.0, 1.0, 0.05)),
    ],
)
def test_further_kernels_compile(static, kernel: str, numbers: tuple[float, ...], dim: int) -> None:
    for closed_form in (False, True)[: 1 if kernel == "laplacian" else 2]:
        f, _, g, _, _ = static.mmd._radials(dim, static.torch.float32, kernel, numbers, closed_form)
        for one in (True, False):
            diagonal = kernel == "polynomial"
            constants, options = static.pairs.compile_options(f, g, True, dim, static.torch.float32, one, diagonal)
            function = static.pairs.one_kernel if one else static.pairs.pairs_kernel
            row = static.inspect(static.Kernel(kernel, function, constants, options), "sm_90")
            # the older assembler stores and loads one number of "rational_quadratic" a loop of hundreds of instructions
            spills = 2 if is_older(static) and kernel == "rational_quadratic" else 0
            assert row["loop_spills"] <= spills and row["shared"] < 2**16, row


@pytest.mark.long
@pytest.mark.parametrize(
    "target, instruction",
    [("sm_80", "mma.sync"), ("sm_90", "wgmma"), ("sm_100", "tcgen05.mma"), ("sm_120", "mma.sync"), ("gfx942", "mfma")],
)
@pytest.mark.parametrize("distance, dim", [("mmd", 64), ("cramer_wold", 256)])
def test_products_of_limbs_are_on_tensor_cores(static, distance: str, dim: int, target: str, instruction: str) -> None:
    *_, kernel, _ = static.pair_kernels(distance, dim)
    limbs = static.Kernel(f"{kernel.name}, limbs", kernel.function, {**kernel.constants, **LIMBS}, kernel.options)
    row, code = static.inspect(limbs, target), limbs.compile(target).asm
    assert instruction in code.get("ptx", code.get("amdgcn", "")) and row["shared"] < 2**16, row
    if target != "gfx942":  # two accumulators a pair leave few registers
        assert row["registers"] <= 128 and row["loop_spills"] <= 2 and row["local"] <= 256, row


def test_the_loop_is_found() -> None:
    """In machine code made up for it: a loop of four instructions, two multiply-adds and a spill, inside another."""
    code = "\n".join(
        [
            ".L_x_0:",
            "  /*0000*/   LDL R1, [R1] ;",
            ".L_x_1:",
            "  /*0010*/   FFMA R1, R2, R3, R1 ;",
            "  /*0020*/   @P0 FFMA R1, R2, R3, R1 ;",
            "  /*0030*/   STL [R1+0x4], R3 ;",
            "  /*0040*/   @!P1 BRA `(.L_x_1) ;",
            "  /*0050*/   @P2 BRA `(.L_x_0) ;",
        ]
    )
    assert machine_code.loop(code) == {"loop": 4, "share": 0.5, "loop_spills": 1}
