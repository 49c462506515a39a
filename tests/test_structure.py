"""The shape of the house: where an op may be named, what knows what, and through how many files a call goes."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from marks import needs_native

import mow
import mow_kernels as mk
from mow_kernels.registry import BACKENDS, OPS, TABLE, Implementation, Op

ROOT = Path(mow.__file__).resolve().parents[1]
PACKAGES = ("mow_kernels", "mow")

NAMES = {
    "mmd": "mmd|MMD",
    "cramer_wold": "cramer_wold|CramerWold",
    "sliced_wasserstein": "sliced_wasserstein|SlicedWasserstein",
    "k_center": "k_center",
}
"""op -> what names it in code: its function, and its module in mow."""

USERS = {
    "mow_kernels/__init__.py": "the public names",
    "mow/__init__.py": "the public names",
    "mow/window/distances.py": "the modules that users call by name",
    "mow/neighbours/coreset.py": "core-sets are k-centre",
    "mow/adapters/": "other libraries' names for the distances",
    "mow/app/": "models, scores and demonstrations are made of distances by name",
}
"""Where every op may be named, and why."""


def sources() -> Iterator[str]:
    for package in PACKAGES:
        yield from sorted(str(path.relative_to(ROOT)) for path in (ROOT / package).rglob("*.py"))


def named(path: str) -> set[str]:
    """The ops that the code of a file names, in identifiers and strings; docstrings and comments do not count."""
    text = (ROOT / path).read_text()
    docs = {
        (node.value.lineno, node.value.col_offset)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    code = [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type in (tokenize.NAME, tokenize.STRING) and token.start not in docs
    ]
    return {
        op for op, pattern in NAMES.items() if any(re.search(rf"(?<![a-zA-Z])({pattern})(?![a-zA-Z])", c) for c in code)
    }


def allowed(path: str) -> set[str]:
    own = {op for op in NAMES if Path(path).stem == op}
    if path.startswith(("mow_kernels/ops/", "mow_kernels/reference/", "mow_kernels/triton/")):
        return set(NAMES) if path == "mow_kernels/ops/__init__.py" else own
    everywhere = ("mow_kernels/backends/", *USERS)
    return set(NAMES) if path.startswith(everywhere) else set()


def test_every_op_has_a_name_to_look_for() -> None:
    assert NAMES.keys() == OPS.keys()


def test_an_op_is_named_in_its_own_files_alone() -> None:
    strays = {path: named(path) - allowed(path) for path in sources()}
    assert {path: ops for path, ops in strays.items() if ops} == {}


def test_a_distance_has_the_same_file_name_everywhere() -> None:
    for op in OPS:
        for folder in ("mow_kernels/ops", "mow_kernels/reference"):
            assert (ROOT / folder / f"{op}.py").exists()
        if not isinstance(TABLE[op]["triton"], str):
            assert (ROOT / "mow_kernels/triton" / f"{op}.py").exists()


def test_there_is_one_order_of_backends() -> None:
    assert [list(row) for row in TABLE.values()] == [list(BACKENDS)] * len(OPS)
    assert list(BACKENDS) == ["cuda", "triton", "cpp", "reference"]


def test_explain_asks_the_function_that_selects(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def select(op: Op, arguments: tuple[Any, ...], options: dict[str, Any]) -> Implementation | str:
        asked.append(op.name)
        return TABLE[op.name]["reference"]

    monkeypatch.setattr("mow_kernels.calls.select", select)
    assert mk.explain(mk.cramer_wold, torch.zeros(3, 2)).backend == "reference"
    mk.cramer_wold(torch.zeros(3, 2))
    mk.gradient(mk.cramer_wold, torch.zeros(3, 2))
    assert asked == ["cramer_wold"] * 3


# What knows what


def imports(path: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_mow_knows_the_public_names_of_mow_kernels_alone() -> None:
    public = {f"mow_kernels.{name}" for name in (*mk.__all__, "__version__")} | {"mow_kernels"}
    for path in sources():
        if path.startswith("mow/"):
            assert {name for name in imports(path) if name.startswith("mow_kernels")} <= public, path
            reached = set(re.findall(r"\bmk\.(\w+)", (ROOT / path).read_text()))
            assert reached <= set(mk.__all__), path


@pytest.mark.parametrize(
    "below, above",
    [
        ("mow_kernels/reference", ("ops", "backends", "calls", "running", "autograd", "native", "triton")),
        ("mow_kernels/registry.py", ("ops", "backends", "calls", "autograd", "native", "triton")),
        ("mow_kernels/calls.py", ("ops", "backends", "autograd", "native", "triton")),
        ("mow_kernels/autograd.py", ("ops", "backends", "calls", "running", "native", "triton")),
        ("mow_kernels/running.py", ("ops", "backends", "native", "triton")),
        ("mow_kernels/ops", ("backends", "native", "triton")),
        ("mow_kernels/triton", ("backends", "calls", "autograd", "native", "running")),
    ],
)
def test_a_layer_knows_what_stands_below_it(below: str, above: tuple[str, ...]) -> None:
    higher = tuple(f"mow_kernels.{name}" for name in above)
    for path in sources():
        if path.startswith(below):
            assert [name for name in imports(path) if f"{name}.".startswith(tuple(f"{m}." for m in higher))] == [], path


# Through how many files a call goes


def files_entered(call: Callable[[], Any]) -> list[str]:
    """The project's files in the order in which calls enter them, one after another in the same file counted once."""
    entered: list[str] = []

    def seen(frame: FrameType, event: str, _: object) -> None:
        path = frame.f_code.co_filename
        inside = any(path.startswith(str(ROOT / package)) for package in PACKAGES)
        if event == "call" and inside and entered[-1:] != [path]:
            entered.append(path)

    sys.setprofile(seen)
    try:
        call()
    finally:
        sys.setprofile(None)
    return [str(Path(path).relative_to(ROOT)) for path in entered]


@needs_native
@pytest.mark.parametrize(
    "n, moving, most_files, most_returns", [(64, False, 5, 1), (512, False, 6, 2), (512, True, 6, 2)]
)
@pytest.mark.parametrize("distance", [mow.CramerWold, mow.MMD])
def test_the_path_of_z_to_the_native_op(
    distance: Callable[..., mow.MMD], n: int, moving: bool, most_files: int, most_returns: int
) -> None:
    measure = distance(mow.PriorWindow(n, 8)) if moving else distance()
    window = mow.MovingWindow(n, 8)
    window.fill(torch.randn(n, 8))
    for _ in range(3):  # what is kept begins with the second step
        z = torch.randn(1, 8, requires_grad=True)
        measure(z, window).backward()
        window.push(z)
    running = n > 64
    assert ("\n  from running sums" in measure.explain(z, window)) is running
    entered = files_entered(lambda: measure(z, window))
    assert entered[0] == "mow/window/distances.py" and "mow_kernels/autograd.py" in entered
    returns = len(entered) - len(set(entered))
    assert len(set(entered)) <= most_files and returns <= most_returns, entered


def test_no_merge_was_left_half_done() -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False).stdout
    marks = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
    paths = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    assert [path for path in paths if path.is_file() and marks.search(path.read_bytes())] == []
