"""Sampling options on the command line."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import wraps
from inspect import Parameter
from typing import Any, get_args, get_type_hints

import typer

from ddpm.errors import UsageError
from ddpm.params import ConflictError
from ddpm.sampling.options import Options

NAMES = tuple(field.name for field in fields(Options))
_Command = Callable[..., None]


def sampling_options(defaults: Options, names: Collection[str] = NAMES) -> Callable[[_Command], _Command]:
    """Replace the parameter `options` of a command by one option of the command line for each of `names`.

    A `ConflictError` of the command becomes a `UsageError` that names the options.
    """

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def expanded(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            try:
                command(**values, options=Options(**vars(defaults) | given))
            except ConflictError as error:
                lines = [f"--{one.key.rpartition('.')[2]} {one.value}: {one.rule}" for one in error.conflicts]
                raise UsageError("\n  ".join(lines)) from None

        parameters: list[Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            one = parameter.replace(kind=Parameter.KEYWORD_ONLY)
            parameters += [_parameter(name, defaults) for name in names] if one.name == "options" else [one]
        expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by typer
        return expanded

    return decorate


def _parameter(name: str, defaults: Options) -> Parameter:
    """The parameter for an option, as typer requires."""
    kind, text = get_args(get_type_hints(Options, include_extras=True)[name])
    option = typer.Option(getattr(defaults, name), help=text)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=option, annotation=kind)
