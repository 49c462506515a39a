"""docs/paper.md, which maps the paper to the code: what it names must exist."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
NAMES = sorted(set(re.findall(r"`(mow(?:_kernels)?\.[\w.]+)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_a_name(name: str) -> None:
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for i, part in enumerate(parts[1:], 2):
        if not hasattr(found, part) and part in getattr(found, "__dataclass_fields__", {}):
            return
        found = getattr(found, part) if hasattr(found, part) else importlib.import_module(".".join(parts[:i]))


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b((?:tests|mow|mow_kernels)/[\w/]+(?:\.py|/))", PAGE))))
def test_a_file(path: str) -> None:
    assert (ROOT / path).exists()


def test_something_was_found() -> None:
    assert len(NAMES) > 25
