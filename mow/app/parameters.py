"""The options of a command from the fields of `Options`."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Annotated, Any, Literal

import typer

from mow.app.options import FIELDS, PANELS, Options, about


def takes_options(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of `Options` in the place of its one parameter of that type.

    They are in the order of their panels, and of the fields within a panel.
    """
    fields = sorted(FIELDS.values(), key=lambda field: PANELS.index(about(field).panel))
    own = inspect.signature(command, eval_str=True).parameters.values()
    (whole,) = (parameter for parameter in own if parameter.annotation is Options)
    parameters: list[Parameter] = []
    for parameter in own:
        parameters += map(_parameter, fields) if parameter is whole else [parameter]

    @functools.wraps(command)
    def called(**given: Any) -> None:
        options = Options(**{field.name: given.pop(field.name) for field in fields})
        command(**{whole.name: options}, **given)

    # typer reads both.
    called.__signature__ = Signature([p.replace(kind=Parameter.KEYWORD_ONLY) for p in parameters])  # type: ignore[attr-defined]
    called.__annotations__ = {p.name: p.annotation for p in parameters}
    return called


def _parameter(field: dataclasses.Field[Any]) -> Parameter:
    known, kind = about(field), typing.get_type_hints(Options)[field.name]
    if known.choices:
        one = Literal[known.choices]  # type: ignore[name-defined]  # a type to typer, which reads it at run time
        kind = one | None if field.default is None else one
    spelling = () if known.spelling is None else (known.spelling,)
    shown = typer.Option(*spelling, help=known.help, rich_help_panel=known.panel, metavar=known.metavar)
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=field.default, annotation=Annotated[kind, shown])


def given(context: typer.Context) -> dict[str, list[str]]:
    """What was given on the command line, by name: the words that give it again."""
    words: dict[str, list[str]] = {}
    for parameter in context.command.params:
        name, value = str(parameter.name), context.params[str(parameter.name)]
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":  # by its name: typer has a click of its own
            flags = parameter.opts if value is not False else parameter.secondary_opts
            words[name] = [flags[0]] if isinstance(value, bool) else [flags[0], str(value)]
    return words
