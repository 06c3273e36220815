"""Sampling options on the command line."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import fields
from functools import wraps
from inspect import Parameter
from typing import Any, get_args, get_type_hints

import typer

from ddpm.errors import UsageError
from ddpm.params import Conflict, ConflictError
from ddpm.sampling.options import Options

NAMES = tuple(field.name for field in fields(Options))
_Command = Callable[..., None]


def sampling_options(defaults: Options, names: Collection[str] = NAMES) -> Callable[[_Command], _Command]:
    """Replace the parameter `options` of a command by one option of the command line for each of `names`.

    The command raises a `ConflictError` about them as a `UsageError` that names the options.
    """

    def decorate(command: _Command) -> _Command:
        @wraps(command)
        def expanded(**values: Any) -> None:
            given = {name: values.pop(name) for name in names}
            try:
                command(**values, options=Options(**vars(defaults) | given))
            except ConflictError as error:
                raise UsageError("\n  ".join(map(_line, error.conflicts))) from None

        parameters: list[Parameter] = []
        for parameter in inspect.signature(command).parameters.values():
            parameters += _expanded(defaults, names) if parameter.name == "options" else [parameter]
        keywords = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
        expanded.__signature__ = inspect.Signature(keywords)  # type: ignore[attr-defined]  # read by typer
        return expanded

    return decorate


def _expanded(defaults: Options, names: Collection[str]) -> list[Parameter]:
    """A parameter for each of `names`, as typer requires."""
    hints = get_type_hints(Options, include_extras=True)
    parameters = []
    for name in names:
        kind, text = get_args(hints[name])
        option = typer.Option(getattr(defaults, name), help=text)
        parameters.append(Parameter(name, Parameter.KEYWORD_ONLY, default=option, annotation=kind))
    return parameters


def _line(conflict: Conflict) -> str:
    return f"--{conflict.key.rpartition('.')[2]} {conflict.value}: {conflict.rule}"
