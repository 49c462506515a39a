"""What docs/extending.md says of data sets, options and weightings, done step by step to a copy of the package."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mow
from mow.app.data import mnist
from mow.training import checkpoint

ROOT = Path(mow.__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
Commands = Callable[..., list[tuple[int, str]]]

INVOKE = """
import json, sys
from typer.testing import CliRunner
from mow.app.cli import app
done = [CliRunner().invoke(app, words) for words in json.loads(sys.argv[1])]
print(json.dumps([(result.exit_code, result.output) for result in done]))
"""


def lines_of(section: str) -> str:
    """The code of a section of the page."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return code


def insert(path: Path, after: str, lines: str) -> None:
    """Lines into a file, after the one line that matches."""
    text = path.read_text(encoding="utf-8")
    (found,) = re.finditer(rf"^{after}$\n", text, re.MULTILINE)
    path.write_text(text[: found.end()] + lines + text[found.end() :], encoding="utf-8")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of mow, whose source a test may extend."""
    shutil.copytree(ROOT / "mow", tmp_path / "mow", ignore=shutil.ignore_patterns("__pycache__", "embedded"))
    (tmp_path / "mow_kernels").symlink_to(ROOT / "mow_kernels", target_is_directory=True)
    return tmp_path


@pytest.fixture
def commands(copy: Path) -> Commands:
    """commands(words, ...): `mow ...` of the copy, one after the other. -> for each its exit code and what it says."""
    environment = {**os.environ, "PYTHONPATH": str(copy), "COLUMNS": "200", "NO_COLOR": "1"}

    def run(*lines: list[object]) -> list[tuple[int, str]]:
        words = json.dumps([list(map(str, line)) for line in lines])
        done = subprocess.run(
            [sys.executable, "-c", INVOKE, words],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return [tuple(said) for said in json.loads(done.stdout)]

    return run


@pytest.fixture
def small(pictures_file: Path) -> list[object]:
    return ["train", "--data", pictures_file, "--n", 16, "--dim", 4, "--steps", 3]


def options_of(out: Path) -> dict[str, Any]:
    return checkpoint.load(out / "checkpoint.pt")["options"]


def test_a_data_set(copy: Path, commands: Commands) -> None:
    insert(copy / "mow/app/data/collections.py", r"COLLECTIONS = \{", lines_of("A data set"))
    random, folder = np.random.default_rng(0), copy / "files" / "kmnist"
    folder.mkdir(parents=True)
    for name, shape in zip(mnist.FILES, ((30, 8, 8), (30,), (12, 8, 8), (12,)), strict=True):
        head = struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape)
        (folder / name).write_bytes(head + random.integers(0, 10, shape, np.uint8).tobytes())
    words = ["--data", "kmnist", "--data-dir", copy / "files", "--n", 16, "--steps", 3, "--out", "run"]
    ((code, said),) = commands(["train", *words])
    assert code == 0, said
    assert "Kuzushiji-MNIST (30 pictures to train, 12 to test), found in" in said
    options = options_of(copy / "run")
    assert (options["data"], options["architecture"], options["dim"]) == ("kmnist", "small", 32)
    assert (copy / "run" / "metrics.jsonl").read_text().splitlines()[-1].startswith('{"step": 3, "pictures": 3,')


def test_an_option(copy: Path, commands: Commands, small: list[object]) -> None:
    last = r"    checkpoint_every: int = option\(.*\)"
    insert(copy / "mow/app/options.py", last, lines_of("A command-line option"))
    codes, said = zip(
        *commands(
            ["train", "--help"],
            [*small, "--patience", 7, "--out", "run"],
            ["train", "--resume", "run", "--steps", 4],
            ["grid", f"data={small[2]}", "patience=3,0", "--out", "grid"],
        ),
        strict=True,
    )
    assert codes == (0, 0, 0, 2), said
    assert re.search(r"--patience +<int> +Stop after so many evaluations without a better one\.", said[0]), said[0]
    options = options_of(copy / "run")
    assert (options["patience"], options["steps"]) == (7, 4)
    assert "<td>patience</td>" in (copy / "run" / "report.html").read_text()
    assert "patience is 0; it must be at least 1" in said[-1]

    ((code, _),) = commands(["train", "--resume", "run", "--steps", 5, "--patience", 9])
    assert (code, options_of(copy / "run")["patience"]) == (0, 9)


@pytest.mark.long  # the row alone is in test_weighting.py
def test_a_weighting(copy: Path, commands: Commands, small: list[object]) -> None:
    insert(copy / "mow/training/weighting.py", r"WEIGHTINGS\b.* = \{", lines_of("A weighting"))
    ((code, said),) = commands([*small, "--weighting", "halved", "--out", "run"])
    assert code == 0, said
    assert options_of(copy / "run")["weighting"] == "halved"
