"""The native library's sources, and setup.py and `make gpu` where they do not compile: what is insisted on must."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from native_build import ROOT, build, failing

from mow_kernels.registry import OPS
from studies.cuda import compiler

GPU = """\
#!/bin/sh
case "$*" in
    *get_device_capability*) echo 90a ;;
    *build_ext*) echo "MOW_CUDA is '$MOW_CUDA', MOW_CUDA_ARCH is '$MOW_CUDA_ARCH'"; exit $BUILD ;;
    *benchmarks.gpu*) echo "the suite ran"; exit $SUITE ;;
esac
"""
"""What stands in for Python on a machine with a GPU."""


def test_an_op_of_the_library_is_named_in_its_own_files_alone() -> None:
    ops = {path.stem for path in (ROOT / "csrc/ops").glob("*.cpp")}
    assert ops == OPS.keys()
    for path in (ROOT / "csrc").rglob("*.[ch]*"):
        code = re.sub("//.*", "", path.read_text())
        others = [op for op in ops if path.stem != op and not path.stem.startswith(f"{op}_")]
        assert [op for op in others if re.search(rf"(?<![a-z]){op}(?![a-z])", code)] == [], path


def test_the_oldest_torch_is_the_same_everywhere() -> None:
    (needed,) = set(re.findall(r'torch>=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text()))
    target = re.search(r"TORCH_TARGET_VERSION=0x(\w\w)(\w\w)0", (ROOT / "CMakeLists.txt").read_text())
    checked = re.search(r"OLDEST_TORCH = \((\d+), (\d+)\)", (ROOT / "setup.py").read_text())
    assert target and checked
    assert (
        tuple(map(int, needed)) == tuple(int(part, 16) for part in target.groups()) == tuple(map(int, checked.groups()))
    )


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_without_a_library_that_does_not_compile_the_installation_goes_on_and_says_why(tmp_path: Path) -> None:
    status, said = build(sys.executable, tmp_path, MOW_CUDA="0", CXX=str(failing("c++", tmp_path)))
    assert status == 0 and not (tmp_path / "mow_kernels/_native.so").exists()
    log = (tmp_path / "mow_kernels/_native.log").read_text()
    assert log in said and "left out: mow_kernels._native: the build failed" in log and "this is no kernel" in log


@pytest.mark.long
@pytest.mark.skipif(compiler.nvcc is None, reason="no nvcc")
def test_cuda_kernels_that_are_insisted_on_must_compile(tmp_path: Path) -> None:
    nvcc = failing(str(compiler.nvcc), tmp_path)
    status, said = build(sys.executable, tmp_path, MOW_CUDA="1", MOW_CUDA_ARCH="90a", CUDACXX=str(nvcc))
    end = said[said.rindex("mow-kernels:") :]
    assert status != 0 and not (tmp_path / "mow_kernels/_native.so").exists()
    assert "left out: the CUDA kernels of mow_kernels._native" in end and "this is no kernel" in end


def make_gpu(folder: Path, *, nvcc: bool, build: int = 0, suite: int = 0) -> tuple[int, str]:
    """`make gpu` with those exit statuses of the build and the suite."""
    python = folder / "python"
    python.write_text(GPU)
    python.chmod(0o755)
    environment = os.environ | {"BUILD": str(build), "SUITE": str(suite), "CUDA_HOME": str(folder)}
    environment["CUDACXX"] = str(failing("nvcc", folder)) if nvcc else "no-nvcc"
    command = ["make", "gpu", f"PYTHON={python}"]
    finished = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return finished.returncode, finished.stdout


def test_make_gpu_is_red_when_cuda_was_not_built(tmp_path: Path) -> None:
    status, said = make_gpu(tmp_path, nvcc=True)
    assert status == 0 and "MOW_CUDA is '1', MOW_CUDA_ARCH is '90a'" in said
    status, said = make_gpu(tmp_path, nvcc=True, build=1)
    assert status != 0 and "the suite ran" in said  # for the other backend
    assert make_gpu(tmp_path, nvcc=True, suite=1)[0] != 0


def test_make_gpu_without_nvcc_builds_the_rest(tmp_path: Path) -> None:
    status, said = make_gpu(tmp_path, nvcc=False)
    assert status == 0 and "MOW_CUDA is ''" in said
