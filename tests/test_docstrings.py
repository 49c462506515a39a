"""Public functions, and whatever the pages of the API show, have an example that runs."""

from __future__ import annotations

import doctest
import inspect
import pkgutil
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import mow
import mow.distributed
import mow_kernels as mk
from mow_kernels import native

PACKAGES = (mk, mow, mow.distributed)
PAGES = Path(__file__).resolve().parents[1] / "docs" / "api"
SHOWN = [
    name for page in sorted(PAGES.glob("*.md")) for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
]
"""What the pages of the API show, by the path of each."""
TABLES = {"mow.app.architectures.ARCHITECTURES"}
"""Of those what is a table, whose rows say what they are."""
CLIENTS = ("mow.adapters.lightning", "mow.adapters.pythae", "mow.adapters.torchmetrics")
"""What needs a library of others."""
NATIVE = {"RunningSums", "SortedProjections", "begin_running"}
"""What needs the native library."""


def public(package: ModuleType) -> list[tuple[str, Any]]:
    return [(name, value) for name in package.__all__ if callable(value := getattr(package, name))]


def examples(value: Any) -> list[doctest.Example]:
    return doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")


def names(folder: Path) -> dict[str, Any]:
    """What the examples take for granted."""
    torch.manual_seed(0)
    pictures, z, window = torch.rand(40, 6), torch.randn(4, 8, requires_grad=True), mow.MovingWindow(64, 8)
    return {
        **{"torch": torch, "nn": nn, "mk": mk, "mow": mow, "DataLoader": DataLoader, "gather": mow.distributed.gather},
        **{"encoder": nn.Linear(6, 8), "decoder": nn.Linear(8, 6), "pictures": pictures, "x": pictures[:8]},
        **{"z": z, "history": torch.randn(60, 8), "window": window, "reconstruction": torch.zeros(())},
        **{"trainer": mow.Trainer(nn.Linear(6, 8), nn.Linear(8, 6), mow.CramerWold(), mow.MovingWindow(16, 8))},
        **{"seen": [], "folder": folder},
    }


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_function_has_an_example(package: ModuleType) -> None:
    functions = [(name, value) for name, value in public(package) if inspect.isfunction(value)]
    assert functions and [name for name, value in functions if not examples(value)] == []


@pytest.mark.parametrize(
    "name, value", [pytest.param(*each, id=each[0]) for package in PACKAGES for each in public(package)]
)
def test_examples_run(name: str, value: Any, tmp_path: Path) -> None:
    if name in NATIVE and native.unavailable is not None:
        pytest.skip(native.unavailable)
    methods = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else []
    for owner in (value, *(method for _, method in methods if method.__module__.startswith("mow"))):
        run(owner, name, tmp_path)


@pytest.mark.parametrize("path", [path for path in SHOWN if path not in TABLES])
def test_what_the_pages_show_has_an_example_that_runs(path: str, tmp_path: Path) -> None:
    if path.startswith(CLIENTS):
        pytest.importorskip(path.split(".")[2])
    value = pkgutil.resolve_name(path)
    assert examples(value), path
    if value.__name__ in NATIVE | {"Running"} and native.unavailable is not None:
        pytest.skip(native.unavailable)
    if all(value is not known for package in PACKAGES for _, known in public(package)):  # else it has run
        run(value, path, tmp_path)


def run(value: Any, name: str, folder: Path) -> None:
    """Run the examples of a docstring."""
    if found := examples(value):
        test = doctest.DocTest(found, names(folder), name, None, None, inspect.getdoc(value))
        said: list[str] = []
        runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
        assert runner.run(test, out=said.append).failed == 0, "".join(said)
