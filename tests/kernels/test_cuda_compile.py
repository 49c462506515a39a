"""The CUDA backend where there is no GPU: nvcc compiles it, and the rest of the package knows that it is not there."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

import mow_kernels as mk
from benchmarks import ROOT, page
from mow_kernels.backends import cuda
from mow_kernels.ops.mmd import ALPHAS
from studies.cuda import compiler, floors, tensor_cores
from studies.cuda.__main__ import PAGE, RESULTS

needs_nvcc = pytest.mark.skipif(compiler.nvcc is None, reason="no nvcc")
for_each_architecture = pytest.mark.parametrize("architecture", compiler.ARCHITECTURES)


@for_each_architecture
def test_every_kernel_compiles(architecture: str) -> None:
    """The record says so of the sources that it names: others have to be compiled, which takes most of a minute."""
    recorded = json.loads((RESULTS / "compiler.json").read_text())
    if recorded["sources"] == compiler.sources():
        kernels = [row for row in recorded["kernels"] if row["architecture"] == architecture]
    elif compiler.nvcc is None or architecture != "90a":
        pytest.skip("the record is of other sources: python -m studies.cuda run renews it")
    else:
        kernels = compiler.compile_all([architecture])["kernels"]
    built = {(row["kernel"], row["family"], row["type"], row["architecture"]) for row in kernels}
    for dtype in ("float", "double"):
        for kernel in ("pairwise_window", "pairwise_tiles", "running_pass"):
            families = set(compiler.FAMILIES.values()) - ({"polynomial"} if kernel == "running_pass" else set())
            assert families == {of for one, of, *rest in built if one == kernel and rest == [dtype, architecture]}
        for kernel in (
            "pairwise_finish",
            "sliced_window",
            "project",
            "sort_tiles",
            "merge_runs",
            "match_ranks",
            "normalise",
            "exchange",
            "gather_oldest",
            "store_keys",
            "push_rows",
            "copy_newest",
            "write_rows",
        ):
            assert (kernel, "", dtype, architecture) in built
        assert {("cover_round", "", dtype, architecture), ("cover_rounds", "", dtype, architecture)} <= built
    for kernel in ("find_centre", "split_rows"):
        assert (kernel, "", "float", architecture) in built
    on_tensor_cores = {row["family"]: row for row in kernels if row["kernel"] == compiler.TENSOR_TILES}
    assert set(on_tensor_cores) == set(compiler.FAMILIES.values())
    for row in on_tensor_cores.values():  # two steps of 16 coordinates, each of three products of 2 x 2
        assert row["tensor"] == 24 and row["tensor"] / row["tensor_loop"] > 0.17, row
    by_warpgroups = {row["family"]: row for row in kernels if row["kernel"] == compiler.WARPGROUP_TILES}
    assert set(by_warpgroups) == (set(compiler.FAMILIES.values()) if architecture == "90a" else set())
    for row in by_warpgroups.values():  # 32 coordinates, and the sums of 64 accumulators; one that waits has no share
        assert row["tensor"] == 6 and row["tensor"] / row["tensor_loop"] > 0.035 and row["spilled_bytes"] == 0, row
    for row in kernels:
        threads = 1024 if row["kernel"] == "sort_tiles" else 256
        assert row["registers"] * threads <= 65536, row  # or the launch fails
        assert row["spilled_bytes"] <= 96, row
        assert row["static_shared_bytes"] <= 48 << 10, row
        if (row["kernel"], row["type"]) == (compiler.TILES, compiler.SINGLE):
            assert row["share"] > 0.42, row  # of a difference and its square in each pair and coordinate, at most 0.5


@pytest.mark.long
@needs_nvcc
@for_each_architecture
def test_the_table_of_the_docs_is_up_to_date(architecture: str) -> None:
    recorded, result = json.loads((RESULTS / "compiler.json").read_text()), compiler.compile_all([architecture])
    if recorded["nvcc"] != result["nvcc"]:
        pytest.skip(f"the table is nvcc {recorded['nvcc']}'s, this is {result['nvcc']}")
    of_this = [row for row in recorded["kernels"] if row["architecture"] == architecture]
    assert of_this == result["kernels"], "python -m studies.cuda run renews it"


def test_the_docs_show_the_emulated_errors() -> None:
    recorded = json.loads((RESULTS / "errors.json").read_text())
    assert tensor_cores.table(recorded) in (page.DOCS / PAGE).read_text()


def test_the_docs_show_the_recorded_table() -> None:
    recorded = json.loads((RESULTS / "compiler.json").read_text())
    for table in (compiler.tables(recorded), floors.table()):
        assert table in (page.DOCS / PAGE).read_text()


@pytest.mark.skipif(compiler.nvcc is None or shutil.which("g++") is None, reason="no nvcc or no g++")
def test_the_ops_compile_against_the_stable_abi() -> None:
    """What registers them with torch, by the headers that are installed; tests/test_oldest_torch.py has the oldest."""
    include = Path(torch.__file__).parent / "include"
    home = Path(str(shutil.which("ptxas") or compiler.nvcc)).resolve().parents[1]
    toolkits = [path for path in (home, Path("/usr/local/cuda")) if (path / "include/cuda_runtime_api.h").exists()]
    if not toolkits:
        pytest.skip("no CUDA headers")
    command = ["g++", "-std=c++20", "-fsyntax-only", "-fvisibility=hidden", "-Wall", "-Wextra", "-Werror"]
    command += ["-DTORCH_TARGET_VERSION=0x020b000000000000", '-DMOW_CUDA_CODES="sm_90a"', f"-I{ROOT / 'csrc'}"]
    command += [f"-isystem{include}", f"-isystem{toolkits[0] / 'include'}"]
    sources = map(str, (ROOT / "csrc/cuda").glob("*.cpp"))
    finished = subprocess.run([*command, *sources], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_backend_says_why_it_does_not_run() -> None:
    current = torch.randn(4, 3)
    reason = mk.explain(mk.mmd, current).reasons["cuda"]
    assert "CUDA" in reason
    with mk.use_backend("cuda"), pytest.raises(ValueError, match="CUDA|not built"):
        mk.mmd(current)


def test_what_the_kernels_have_no_room_for() -> None:
    class OnDevice:
        is_cuda, shape, dtype = True, (4, 20), torch.float32

    def reason(prior: object, scales: tuple[float, ...]) -> str | None:
        options = {"kernel": "imq", "scales": scales, "estimator": "biased"}
        return cuda._mmd_unsupported(OnDevice(), None, prior, **options)  # type: ignore[arg-type]  # a stand-in for a tensor

    assert reason(None, mk.SCALES) is None and reason(object(), tuple(range(1, 25))) is None
    assert "24 at most" in str(reason(object(), tuple(range(1, 26))))
    assert "pass a sample" in str(reason(None, (1e-3, 1.0, 1e4)))
    assert reason(object(), (1e-3, 1.0, 1e4)) is None

    def of(kernel: str, numbers: tuple[float, ...], dtype: torch.dtype, dim: int = 20) -> str | None:
        OnDevice.dtype, OnDevice.shape = dtype, (4, dim)
        options = {"kernel": kernel, "scales": numbers, "estimator": "biased"}
        return cuda._mmd_unsupported(OnDevice(), None, None, **options)  # type: ignore[arg-type]  # as above

    powers = (0.0, *ALPHAS)
    assert of("rational_quadratic", powers, torch.float32, 5) is of("rational_quadratic", powers, torch.float64) is None
    assert "numbers" not in str(of("energy", (), torch.float32, 1)) and of("energy", (), torch.float64, 2) is None
    assert "352 at most (pass a sample)" in str(of("rational_quadratic", powers, torch.float64, 3))
    assert of("polynomial", (126.0, 1.0, 0.1), torch.float32) is None
    assert "64 at most (pass a sample)" in str(of("polynomial", (128.0, 1.0, 0.1), torch.float32))
    assert "alphas has 25 numbers; it takes 24 at most" == of("rational_quadratic", (0.0, *range(1, 26)), torch.float32)
