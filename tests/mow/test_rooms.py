"""mow's rooms: the library needs torch alone, and knows nothing of the app, which needs the [train] extra."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mow

ROOT = Path(mow.__file__).parents[1]
CLIENTS = {f"mow.adapters.{name}" for name in ("geomloss", "lightning", "pot", "pythae", "torchmetrics")}
"""Adapters of other libraries, which import them."""

WITHOUT_THE_EXTRA = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"{{name}} is not installed", name=name)

import torch  # may use NumPy where it is there
for name in [name for name in sys.modules if name.partition(".")[0] in {absent}]:
    del sys.modules[name]
sys.meta_path.insert(0, Absent())
for name in {modules}:
    importlib.import_module(name)
"""


def modules(*packages: str) -> Iterator[tuple[str, Path]]:
    """The names and files of all modules in these packages."""
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(part for part in parts if part != "__init__"), path


LIBRARY = {name: path for name, path in modules("mow") if not name.startswith("mow.app") and name != "mow.__main__"}
KERNELS = {name: path for name, path in modules("mow_kernels") if ".triton" not in name and "__main__" not in name}


def extra(name: str) -> set[str]:
    """The modules that the distributions of an extra are imported as."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {re.split(r"[^\w-]", requirement)[0] for requirement in project["optional-dependencies"][name]}
    return {{"pillow": "PIL"}.get(distribution, distribution) for distribution in found}


def imports(path: Path) -> Iterator[str]:
    """What a file imports, also within its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_the_rooms_are_found() -> None:
    rooms = {name.split(".")[1] for name in LIBRARY if name.count(".") > 1}
    assert rooms == {"window", "training", "neighbours", "distributed", "adapters"}
    assert {"numpy", "PIL", "typer", "rich", "matplotlib", "pooch"} == extra("train")
    assert CLIENTS < LIBRARY.keys() and len(KERNELS) > 10


def test_the_library_imports_without_the_extra() -> None:
    names = [name for name in (*KERNELS, *LIBRARY) if name not in CLIENTS]
    script = WITHOUT_THE_EXTRA.format(absent=sorted(extra("train")), modules=names)
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(LIBRARY))
def test_a_library_module_does_not_know_the_app(name: str) -> None:
    assert [found for found in imports(LIBRARY[name]) if found.startswith("mow.app")] == []


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_the_kernels_do_not_know_mow(name: str) -> None:
    assert [found for found in imports(KERNELS[name]) if found.partition(".")[0] == "mow"] == []
