"""The wheel in an environment that has torch and nothing else: neither compiler nor CMake, NumPy nor network."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import mow_kernels

ROOT = Path(__file__).resolve().parents[1]

SMOKE = """
import importlib.util, pathlib
import torch
import mow, mow_kernels as mk

assert pathlib.Path(mk.__file__).is_relative_to(FOLDER), mk.__file__
assert [name for name in ("numpy", "typer", "pip") if importlib.util.find_spec(name)] == []
torch.manual_seed(0)
z, window = torch.randn(1, 8, requires_grad=True), mow.MovingWindow(64, 8)
window.fill(torch.randn(63, 8))
for function in (mk.mmd, mk.cramer_wold, mk.sliced_wasserstein):
    assert mk.explain(function, z, window.history(1)).backend == "cpp", mk.explain(function, z, window.history(1))
for distance in (mow.MMD(), mow.CramerWold(log=True), mow.SlicedWasserstein(directions=torch.eye(8))):
    found = []
    for backend in ("cpp", "reference"):
        with mk.use_backend(backend):
            found.append(torch.autograd.grad(distance(z, window), z)[0])
    torch.testing.assert_close(*found)
trainer = mow.Trainer(torch.nn.Linear(4, 8), torch.nn.Linear(8, 4), mow.MMD(), window, k=1)
trainer.fit(torch.rand(20, 4), steps=10)
print("smoke test passed", mow.__version__)
"""


def requirements(name: str) -> set[str]:
    """A distribution and all that it needs without extras, as far as it is installed."""
    found, waiting = set(), [name]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        waiting += [re.match(r"[\w.-]+", need)[0] for need in needs if "extra ==" not in need]
    return found


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder MOW_DIST with a wheel and a source archive, else built now."""
    if "MOW_DIST" in os.environ:
        return (ROOT / os.environ["MOW_DIST"]).resolve()
    pytest.importorskip("build.env")  # a folder named build is a package, too
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder)], cwd=ROOT, check=True)
    return folder


@pytest.fixture(scope="module")
def bare(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a fresh virtual environment with the wheel; of this one it has links to torch and its needs."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(subprocess.run([python, "-c", query], capture_output=True, text=True, check=True).stdout.strip())
    for name in requirements("torch"):
        distribution = importlib.metadata.distribution(name)
        for part in {file.parts[0] for file in distribution.files} - {"..", "__pycache__"}:
            (packages / part).symlink_to(Path(distribution.locate_file(part)).resolve())
    (wheel,) = dist.glob("*.whl")
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", str(wheel)]
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH"
    }  # it may hold this package
    subprocess.run(install, cwd=folder, env=environment, check=True)  # not satisfied by this checkout
    return python


def run(python: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """With the environment's own programs on the path, and nothing else."""
    environment = {"PATH": str(python.parent), "HOME": str(folder)}
    return subprocess.run([python, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_the_version_is_the_changelogs() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest[1] == mow_kernels.__version__


@pytest.mark.long
def test_one_wheel_serves_every_python_of_a_platform(dist: Path) -> None:
    (wheel,) = dist.glob("*.whl")
    assert re.fullmatch(rf"mow_kernels-{re.escape(mow_kernels.__version__)}-py3-none-(?!any)\w+\.whl", wheel.name)
    names = zipfile.ZipFile(wheel).namelist()
    packages = [path for package in ("mow", "mow_kernels") for path in (ROOT / package).rglob("*.py")]
    assert {str(path.relative_to(ROOT)) for path in packages} <= set(names)
    for name in ("mow_kernels/_native.so", "mow/py.typed", "mow_kernels/py.typed"):
        assert name in names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"mow", "mow_kernels"}


@pytest.mark.long
def test_the_source_archive_holds_what_a_build_takes(dist: Path) -> None:
    (archive,) = dist.glob("*.tar.gz")
    names = {name.partition("/")[2] for name in tarfile.open(archive).getnames()}
    wanted = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert {str(path.relative_to(ROOT)) for path in wanted} | {"CMakeLists.txt", "setup.py", "tests/oracle.py"} <= names


@pytest.mark.long
def test_it_runs_where_there_is_torch_alone(bare: Path, tmp_path: Path) -> None:
    result = run(bare, "-c", SMOKE.replace("FOLDER", repr(str(bare.parent.parent))), folder=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"smoke test passed {mow_kernels.__version__}\n"
    assert "cpp" in run(bare, "-m", "mow_kernels", folder=tmp_path).stdout


@pytest.mark.long
def test_the_command_line_says_what_it_needs(bare: Path, tmp_path: Path) -> None:
    result = run(bare, "-m", "mow", "train", "--out", "x", folder=tmp_path)
    assert result.returncode != 0 and "train" in result.stderr and "Traceback" not in result.stderr
