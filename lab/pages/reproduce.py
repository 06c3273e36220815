"""The commands that give an experiment's parameters again, as one types them."""

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = re.compile(r"[A-Za-z][\w/-]*(\.[A-Za-z][\w/-]*)*")
_WORDS = {"null", "true", "false", "nan", "inf"}  # the grammar of -S reads them as something else than text


class _UnspeakableError(Exception):
    """What `-S` cannot say."""


def reproduce(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str] | None:
    """From the default recipe to the parameters and their results; None where `-S` cannot say what differs.

    That is where keys are missing or new, as in a section of another form.
    """
    try:
        changes = [f"{key}={_spelled(value)}" for key, value in _differences(params, defaults, "")]
    except _UnspeakableError:
        return None
    if not changes:
        return ["ddpm recipe default", "dvc repro"]
    return [
        "ddpm recipe default",
        " \\\n  ".join(["dvc exp run", *(f"-S {shlex.quote(change)}" for change in changes)]),
    ]


def _differences(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys whose values differ, with the value here; a section stands for its keys where one has none."""
    if here.keys() != there.keys():
        raise _UnspeakableError
    for key, value in here.items():
        if isinstance(value, Mapping) and isinstance(there[key], Mapping):
            yield from _differences(value, there[key], f"{prefix}{key}.")
        elif value != there[key]:
            yield f"{prefix}{key}", value


def _spelled(value: Any) -> str:
    """A value in the grammar of -S."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case list():
            return f"[{','.join(map(_spelled, value))}]"
        case Mapping():
            return "{" + ",".join(f"{key}:{_spelled(inner)}" for key, inner in value.items()) + "}"
        case str():
            return _quoted(value)
    return repr(value)


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if "$" in text or "\\" in text or not text.isprintable():
        raise _UnspeakableError  # would be replaced, or read as something else
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'
