"""The newcomer's path of the README and its pages, word for word but for the number of steps."""

from __future__ import annotations

import json
import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from typer.testing import CliRunner

import mow
from mow.app.cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(of: str, page: str = "README.md") -> str:
    """The one code block of a page that holds these words."""
    text = (ROOT / page).read_text(encoding="utf-8")
    (found,) = (code for code in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL) if of in code)
    return found.replace("20_000", "20").replace("20000", "20")


def test_it_is_read_in_two_minutes() -> None:
    assert len(README.split()) < 700 and README.count("```") == 2 * 2
    assert len(block("mow train").splitlines()) == 2, "commands"
    for target in re.findall(r"\]\(([^):]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_page_is_within_two_links() -> None:
    """From the README, by the pages that it names."""
    near = set(re.findall(r"\]\(docs/([\w/-]+\.md)\)", README))
    further = {
        (Path(page).parent / target).as_posix()
        for page in near
        for target in re.findall(r"\]\(([\w/.-]+\.md)", (ROOT / "docs" / page).read_text(encoding="utf-8"))
    }
    reached = near | {os.path.normpath(target) for target in further}
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - reached == set()


@pytest.fixture
def names() -> dict[str, Any]:
    """What a user brings: a model and pictures."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8))
    decoder = nn.Sequential(nn.Linear(8, 64), nn.Sigmoid(), nn.Unflatten(1, (1, 8, 8)))
    return {"encoder": encoder, "decoder": decoder, "pictures": torch.rand(100, 1, 8, 8)}


def test_five_lines_on_a_model_of_ones_own(names: dict[str, Any]) -> None:
    code = block("trainer.fit(")
    assert len([line for line in code.splitlines() if line]) <= 5
    before = names["encoder"][1].weight.clone()
    exec(code, names)
    assert names["trainer"].steps_done == 20 and len(names["window"]) == 64
    assert not torch.equal(names["encoder"][1].weight, before)


def test_a_loop_of_ones_own(names: dict[str, Any]) -> None:
    names |= {"mow": mow, "x": names["pictures"][:1], "window": mow.MovingWindow(n=64, dim=8)}
    names["window"].fill(torch.randn(63, 8))
    names["reconstruction"] = (names["decoder"](names["encoder"](names["x"])) - names["x"]).square().sum()
    names["optimizer"] = torch.optim.Adam([*names["encoder"].parameters(), *names["decoder"].parameters()])
    before = names["encoder"][1].weight.clone()
    exec(block("loss.backward(); optimizer.step()", "docs/how-to/own-loop.md"), names)
    assert len(names["window"]) == 64 and not torch.equal(names["encoder"][1].weight, before)


def test_the_command_line_on_a_folder_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for number in range(40):
        path = Path("photos", f"album {number % 2}", f"{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(path)
    for line in block("--data photos", "docs/command-line.md").splitlines():
        program, *words = shlex.split(line)
        assert program == "mow"
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, (line, result.output, result.exception)
        if words[0] == "evaluate":
            assert json.loads(result.stdout)["test_latents"] == 4, "one picture in ten is for testing"
    assert Image.open("samples.png").width > 32 and Image.open("interpolations.png").width > 32
    assert Path("runs/photos/report.html").exists()
