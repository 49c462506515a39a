"""What a results file has of earlier runs, so that a study goes on where its folder of runs is gone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mow.app.options import Options

Run = dict[str, Any]


def held(file: Path) -> dict[str, Run]:
    """The runs of a results file by name; none if there is no file yet."""
    if not file.exists():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    return {run["name"]: run for run in content["runs"]} if "runs" in content else content["results"]


def same(run: Mapping[str, Any] | None, options: Options) -> bool:
    """Whether a run is one of these options: what they leave open may be anything, its data may lie elsewhere, and an
    option that it does not know had its default."""
    if run is None:
        return False
    asked = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
    asked = {**asked, "data": Path(asked["data"]).name}
    been = {name: getattr(Options, name) for name in asked} | run["resolved"]
    return all(been[name] == value for name, value in asked.items() if name != "data_dir")
