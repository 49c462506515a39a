"""What docs/extending.md says of distances and backends, done step by step to a copy of both packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import mow

ROOT = Path(mow.__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(section: str) -> list[str]:
    """The code blocks of a section of the page, in order."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for code in re.findall(r"^ *```python\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)]


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name} has {text.count(old)} times {old!r}"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of both packages, whose source a test may extend."""
    for package in ("mow", "mow_kernels"):
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "embedded", "app")
        )
    return tmp_path


def run(copy: Path, program: str) -> None:
    """Runs a program on the copy, which has to end well."""
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    environment.pop("MOW_BACKEND", None)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=copy, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_a_distance(copy: Path) -> None:
    mathematics, function, module = blocks("A distance")
    (copy / "mow_kernels/reference/ripple.py").write_text(mathematics, encoding="utf-8")
    (copy / "mow_kernels/ops/ripple.py").write_text(function, encoding="utf-8")
    rows = copy / "mow_kernels/ops/__init__.py"
    change(
        rows,
        "import cramer_wold, k_center, mmd, sliced_wasserstein",
        "import cramer_wold, k_center, mmd, ripple, sliced_wasserstein",
    )
    change(rows, "k_center.OP)", "k_center.OP, ripple.OP)")
    with (copy / "mow_kernels/__init__.py").open("a", encoding="utf-8") as file:
        file.write("from mow_kernels.ops.ripple import ripple\n")
    with (copy / "mow/window/distances.py").open("a", encoding="utf-8") as file:
        file.write(f"\n\n{module}")
    run(
        copy,
        """
        import torch
        from torch import nn
        import mow, mow_kernels as mk
        from mow.distributed import ShardedWindow
        from mow.window.distances import Ripple

        torch.manual_seed(0)
        rows = torch.randn(200, 3, dtype=torch.float64)
        z, history = rows[190:].clone().requires_grad_(), rows[:190]

        def formula(z, height):
            r = (rows_of := torch.cat([history, z])).unsqueeze(1).sub(rows_of).square().sum(2)
            return height * ((-r).exp().mean() - 2 * (-rows_of.square().sum(1)).exp().mean() + 1)

        # value and gradient
        expected = formula(z, 1.0)
        torch.testing.assert_close(mk.ripple(z, history), expected)
        (right,) = torch.autograd.grad(expected, z)
        torch.testing.assert_close(torch.autograd.grad(mk.ripple(z, history), z)[0], right)
        g_z, value = mk.gradient(mk.ripple, z, history, measure=True)
        torch.testing.assert_close(g_z, right)
        torch.testing.assert_close(value, expected.detach())
        try:
            mk.ripple(z, history, height=-1)
        except ValueError as error:
            assert "height is -1" in str(error)

        # explain
        explanation = mk.explain(mk.ripple, z, history)
        assert explanation.backend == "reference", explanation
        assert list(explanation.reasons) == ["cuda", "triton", "cpp"], explanation

        # a window, and one that is spread over ranks (of which this process is all)
        window, sharded = mow.MovingWindow(200, 3, dtype=torch.float64), ShardedWindow(200, 3, dtype=torch.float64)
        distance = Ripple()
        for _ in range(3):
            for each in (window, sharded):
                each.push(history)
            torch.testing.assert_close(distance(z, window), formula(z, 2.0))
            for measured in (distance.gradient(z, window), sharded.gradient(distance, z)):
                torch.testing.assert_close(measured, (2 * right, formula(z, 2.0).detach()))
        assert "not from running sums: ripple has nothing to keep" in distance.explain(z, window)

        # training
        for log in (False, True):
            window = mow.MovingWindow(16, 2)
            trainer = mow.Trainer(nn.Linear(4, 2), nn.Linear(2, 4), Ripple(log=log), window, k=2, weight=100)
            steps = [float(step["distance"]) for step in trainer.run(torch.randn(50, 4), 30)]
            assert len(steps) == 30 and all(map(torch.isfinite, map(torch.tensor, steps)))
        """,
    )


def test_a_backend(copy: Path) -> None:
    (column,) = blocks("A backend")
    (copy / "mow_kernels/backends/doubling.py").write_text(column, encoding="utf-8")
    columns = copy / "mow_kernels/backends/__init__.py"
    change(columns, "import cpp, cuda, reference, triton", "import cpp, cuda, doubling, reference, triton")
    change(columns, "(cuda, triton, cpp, reference)", "(cuda, triton, doubling, cpp, reference)")
    run(
        copy,
        """
        import torch
        import mow_kernels as mk
        from mow_kernels.registry import BACKENDS, TABLE

        assert list(BACKENDS) == ["cuda", "triton", "doubling", "cpp", "reference"]
        assert TABLE["mmd"]["doubling"] == "it has Cramer-Wold alone"
        torch.manual_seed(0)
        z, history = torch.randn(3, 2, requires_grad=True), torch.randn(5, 2)
        assert mk.explain(mk.cramer_wold, z, history).backend == "doubling"
        wide = mk.cramer_wold(z.double(), history.double()).float()
        torch.testing.assert_close(mk.cramer_wold(z, history), wide, rtol=0, atol=0)
        g_z, value = mk.gradient(mk.cramer_wold, z, history, measure=True)
        assert torch.equal(value, wide.detach()) and g_z.dtype == torch.float32
        for call, reason in (
            (lambda: mk.cramer_wold(z[:, :1], history[:, :1]), "it takes D = 2 and current has D = 1"),
            (lambda: mk.cramer_wold(z, history, phi="asymptotic"), "it has no phi 'asymptotic'"),
            (lambda: mk.mmd(z, history), "it has Cramer-Wold alone"),
        ):
            call()  # on the next backend
            try:
                with mk.use_backend("doubling"):
                    call()
                raise AssertionError("it ran")
            except ValueError as error:
                assert reason in str(error), error
        explanation = mk.explain(mk.cramer_wold, z[:, :1], history[:, :1])
        assert explanation.reasons["doubling"] == "it takes D = 2 and current has D = 1"
        """,
    )
