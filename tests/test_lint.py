"""`make lint` as a test: ruff and mypy, which has the whole of both packages strict."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    "command", [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)], ids=" ".join
)
def test_clean(command: tuple[str, ...]) -> None:
    pytest.importorskip(command[0])
    result = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_users_write_is_typed(tmp_path: Path) -> None:
    """py.typed is there, and a strict mypy sees the types through the decorators and modules."""
    pytest.importorskip("mypy")
    source = tmp_path / "user.py"
    source.write_text(
        "import torch\n\nimport mow\nimport mow_kernels as mk\n\n"
        "def distance(z: torch.Tensor, window: mow.MovingWindow) -> torch.Tensor:\n"
        "    reveal_type(mk.mmd(z, window.history(1), kernel='imq'))\n"
        "    reveal_type(mow.CramerWold(log=True).measure(z, window))\n"
        "    reveal_type(mk.k_center(z, 3).indices)\n"
        "    return mk.mmd(z, kernel=3)\n"
    )
    command = [sys.executable, "-m", "mypy", str(source)]  # with the options and so the cache of the one above
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    revealed = [line.split('"')[1] for line in result.stdout.splitlines() if "Revealed type" in line]
    assert revealed == ["torch._tensor.Tensor"] * 3, result.stdout
    assert 'Argument "kernel" to "mmd" has incompatible type "int"' in result.stdout
