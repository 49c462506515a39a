"""The native library with the oldest PyTorch that the package supports: compiled against its headers, loaded by it.

The environment variable MOW_OLDEST_TORCH names a Python that has it. Otherwise it is installed into build/oldest-torch,
once: some gigabytes where the registry has it with CUDA only.
"""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import venv
from pathlib import Path

import pytest
from native_build import ROOT, build, failing

from studies.cuda import compiler

pytestmark = pytest.mark.long

OLDEST = re.search(r'torch>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())[1]

LOAD = """
import json, torch
import mow_kernels as mk

found = {key: torch._C._dispatch_get_registrations_for_dispatch_key(key) for key in ("CPU", "CUDA")}
ops = {key: sorted(n.split("::")[1] for n in names if n.startswith("mow_kernels::")) for key, names in found.items()}
codes = torch.ops.mow_kernels.cuda_architectures() if ops["CUDA"] else ""
torch.manual_seed(0)
current, history, prior = (torch.randn(rows, 5, dtype=torch.float64) for rows in (2, 6, 7))
current.requires_grad_()
directions = {"directions": torch.eye(5, dtype=torch.float64)}
results = []
for function, options in ((mk.mmd, {}), (mk.cramer_wold, {}), (mk.sliced_wasserstein, directions)):
    for backend in ("cpp", "reference"):
        with mk.use_backend(backend):
            distance = function(current, history, prior, **options)
            results.append([*torch.autograd.grad(distance, current)[0].flatten().tolist(), distance.item()])
for function, options in ((mk.mmd, {}), (mk.cramer_wold, {}), (mk.sliced_wasserstein, directions)):
    for backend in ("cpp", "reference"):
        for sample in (prior, "normal"):
            torch.compiler.reset()
            with mk.use_backend(backend):
                for call in (function, torch.compile(function, fullgraph=True, backend="eager")):
                    value = call(current, history, sample, **options)
                    results.append([*torch.autograd.grad(value, current)[0].flatten().tolist(), value.item()])
why = mk.explain(mk.mmd, current, history, prior).reasons["cuda"]
print(json.dumps({"torch": torch.__version__, "ops": ops, "codes": codes, "results": results, "why": why}))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """A Python with the oldest PyTorch and what a build takes."""
    if "MOW_OLDEST_TORCH" in os.environ:
        return Path(os.environ["MOW_OLDEST_TORCH"])
    folder = ROOT / "build/oldest-torch"
    python, done = folder / "bin/python", folder / ".installed"
    if not done.exists():
        venv.create(folder, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", f"torch=={OLDEST}.*", "setuptools>=77", "wheel"]
        finished = subprocess.run(install, capture_output=True, text=True)
        if re.search("ConnectionError|ConnectTimeout|from versions: none", finished.stderr):
            pytest.skip(f"torch {OLDEST} is not at hand, and there is no network: {finished.stderr.splitlines()[-1]}")
        assert finished.returncode == 0, finished.stderr
        done.touch()
    return python


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests build, one after the other: what they have in common is compiled once."""
    return tmp_path_factory.mktemp("oldest")


def load(python: Path, folder: Path) -> dict:
    """What that torch finds in the library, by the package."""
    environment = os.environ | {"MOW_NATIVE": str(folder / "mow_kernels/_native.so"), "PYTHONPATH": str(ROOT)}
    environment.pop("MOW_BACKEND", None)
    finished = subprocess.run([python, "-c", LOAD], cwd=folder, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    found = json.loads(finished.stdout)
    assert found["torch"].startswith(OLDEST)
    assert found["ops"]["CPU"] == names("ops", r'm\.def\(\s*"(\w+)\(')
    for native, reference in zip(found["results"][::2], found["results"][1::2], strict=True):
        assert native == pytest.approx(reference, rel=1e-9)
    return found


def names(folder: str, pattern: str) -> list[str]:
    """What the sources of csrc/FOLDER say that the library has."""
    sources = (path.read_text() for path in (ROOT / "csrc" / folder).glob("*.cpp"))
    return sorted(name for source in sources for name in re.findall(pattern, source))


def embedded(library: Path) -> set[tuple[str, int]]:
    """The kinds of code in a library's fat binaries, each with its architecture: headers as in fatbinary_section.h."""
    content, found = library.read_bytes(), set()
    for start in re.finditer(re.escape(struct.pack("<I", 0xBA55ED50)), content):
        _, header, size = struct.unpack_from("<HHQ", content, start.start() + 4)
        at, end = start.start() + header, start.start() + header + size
        while at < end:
            kind, _, header, size = struct.unpack_from("<HHIQ", content, at)
            found.add(("PTX" if kind == 1 else "machine code", *struct.unpack_from("<I", content, at + 28)))
            at += header + size
    return found


def test_for_the_cpu(python: Path, folder: Path) -> None:
    status, said = build(python, folder, MOW_CUDA="0")
    assert status == 0 and "built: mow_kernels._native without CUDA kernels" in said, said
    assert load(python, folder)["ops"]["CUDA"] == []


@pytest.mark.skipif(compiler.nvcc is None, reason="no nvcc")
def test_for_a_gpu(python: Path, folder: Path) -> None:
    status, said = build(python, folder, MOW_CUDA="1", MOW_CUDA_ARCH="90a")
    assert status == 0 and "built: mow_kernels._native with CUDA kernels" in said, said
    found = load(python, folder)
    assert found["ops"]["CUDA"] == names("cuda", r'm\.impl\("(\w+)", TORCH_BOX\(&(?!cuda_arch)')
    assert found["codes"] == "sm_90a compute_90"
    assert embedded(folder / "mow_kernels/_native.so") == {("machine code", 90), ("PTX", 90)}


@pytest.mark.skipif(compiler.nvcc is None, reason="no nvcc")
def test_without_the_cuda_kernels_if_they_alone_do_not_compile(python: Path, folder: Path, tmp_path: Path) -> None:
    query = [python, "-c", "import torch; print(torch.version.cuda)"]
    if subprocess.run(query, capture_output=True, text=True, check=True).stdout == "None\n":
        pytest.skip("this PyTorch has no CUDA")
    status, said = build(python, folder, CUDACXX=str(failing(str(compiler.nvcc), tmp_path)))
    assert status == 0 and "built: mow_kernels._native without CUDA kernels" in said, said
    log = (folder / "mow_kernels/_native.log").read_text()
    assert log in said and "left out: the CUDA kernels of mow_kernels._native" in log and "this is no kernel" in log
    found = load(python, folder)
    assert found["ops"]["CUDA"] == [] and "_native.log says why" in found["why"]
