"""The options of a run, each of which is one field: what is checked, what the command line has of it, what it names."""

from __future__ import annotations

import re
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mow.app import grid
from mow.app.architectures import ARCHITECTURES
from mow.app.autoencoders import MODELS
from mow.app.cli import app
from mow.app.data import COLLECTIONS
from mow.app.evaluation import score
from mow.app.optimizers import OPTIMIZERS, SCHEDULES
from mow.app.options import DECAY, FIELDS, PANELS, POSITIVE, POSITIVE_COUNT, Options, about, flag
from mow.training.trainer import ON_NONFINITE
from mow.training.weighting import WEIGHTINGS
from mow.window.priors import PRIORS

OUTSIDE = {POSITIVE_COUNT: 0, POSITIVE: float("inf"), DECAY: 1.0}
"""For each range a value that is not in it."""


def command_line() -> dict[str, Any]:
    """The parameters of `mow train`, by name."""
    return {parameter.name: parameter for parameter in typer.main.get_command(app).commands["train"].params}


@pytest.mark.parametrize("name", FIELDS)
def test_the_command_line_has_what_the_field_says(name: str) -> None:
    field, parameter = FIELDS[name], command_line()[name]
    assert (parameter.help, parameter.default) == (about(field).help, field.default)
    assert parameter.rich_help_panel == about(field).panel
    assert flag(name) in parameter.opts
    switch = isinstance(field.default, bool) or "bool" in str(field.type)
    negated = [flag(name).replace("--", "--no-")] if switch and about(field).spelling is None else []
    assert parameter.secondary_opts == negated


def test_the_command_line_adds_the_folder_and_the_ranks() -> None:
    names = list(command_line())
    assert set(names) - FIELDS.keys() - {"help"} == {"out", "resume", "timeout", "processes"}
    panels = [about(FIELDS[name]).panel for name in names if name in FIELDS]
    assert panels == sorted(panels, key=PANELS.index)


def test_choices_are_the_rows_of_their_tables() -> None:
    tables = {"model": MODELS, "optimizer": OPTIMIZERS, "schedule": SCHEDULES, "weighting": WEIGHTINGS}
    tables |= {"prior": ("normal", *PRIORS), "on_nonfinite": ON_NONFINITE}
    assert {name: about(FIELDS[name]).choices for name in tables} == {name: tuple(tables[name]) for name in tables}


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if about(field).within in OUTSIDE])
def test_a_value_out_of_range(name: str) -> None:
    within = about(FIELDS[name]).within
    value = OUTSIDE[within]
    message = re.escape(f"{name} is {value}; it must be {within.words}")
    with pytest.raises(ValueError, match=message):
        Options(**{name: value}).resolved()
    with pytest.raises(ValueError, match=message):
        grid.parse([f"{name}={value}"])


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if about(field).choices])
def test_a_word_that_is_no_choice(name: str) -> None:
    message = re.escape(f"{name} is 'other'; it must be one of {', '.join(about(FIELDS[name]).choices)}")
    with pytest.raises(ValueError, match=message):
        Options(**{name: "other"}).resolved()
    with pytest.raises(ValueError, match=message):
        grid.parse([f"{name}=other"])
    refused = CliRunner().invoke(app, ["train", flag(name), "other"])
    assert refused.exit_code == 2
    said = re.sub(r"[\s│]+", " ", refused.stderr)
    assert f"'other' is not one of {', '.join(map(repr, about(FIELDS[name]).choices))}" in said


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if about(field).of])
def test_an_option_of_another_choice(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} is 0.5 and optimizer 'sgd'; it is of adam"):
        Options(**{name: 0.5}, optimizer="sgd").resolved()
    assert getattr(Options(**{name: 0.5}).resolved(), name) == 0.5
    assert Options(optimizer="sgd").resolved().optimizer == "sgd"


# The rows of the tables


@pytest.mark.parametrize("name", COLLECTIONS)
def test_a_data_set_names_what_there_is(name: str) -> None:
    row = COLLECTIONS[name]
    assert row.architecture in ARCHITECTURES
    if row.schedule is not None:
        assert row.schedule.architecture in ARCHITECTURES and row.schedule.optimizer in OPTIMIZERS
        assert Options(data=name).resolved().dim == ARCHITECTURES[row.schedule.architecture].dim, "the paper's"


@pytest.mark.parametrize("name", MODELS)
def test_a_model_names_what_there_is(name: str) -> None:
    assert set(MODELS[name].options.values()) <= FIELDS.keys()
    assert MODELS[name].score in score.__doc__
    assert Options(model=name).resolved().log is MODELS[name].log
    kinds: tuple[dict[str, bool], ...] = ({"log": True}, {"log": False}, {"root": True})
    assert [Options(model=name, **kind).resolved().weight for kind in kinds] == [1, 10, 1]
    assert Options(model=name, log=False, weight=1).resolved().weight == 1
    assert Options(model=name).resolved().root is False and Options(model=name, root=True).resolved().root is True
