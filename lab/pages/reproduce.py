"""The commands that reproduce an experiment's parameters from the default recipe."""

import copy
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from ddpm.alternatives import in_use

_PLAIN = re.compile(r"[A-Za-z][\w/-]*(\.[A-Za-z][\w/-]*)*")
_WORDS = {"null", "true", "false", "nan", "inf"}  # -S does not read them as text


class NotExpressible(Exception):  # noqa: N818
    """The option `-S` has no syntax for a change."""


def reproduce(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> list[str] | None:
    """The commands from the default recipe to the settings in use of `params`, with as few `-S` as these need.

    None if `-S` cannot express the differences.
    """
    changes = necessary(params, defaults)
    if in_use(_changed(defaults, changes)) != in_use(params):
        return None
    try:
        options = [shlex.quote(f"{key}={_spelled(value)}") for key, value in changes.items()]
    except NotExpressible:
        return None
    run = " \\\n  ".join(["dvc exp run", *(f"-S {option}" for option in options)])
    return ["ddpm recipe default", run if changes else "dvc repro"]


def necessary(params: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in use, by dotted keys, that must change in the default recipe; other settings follow from them."""
    wanted = in_use(params)
    changes = dict(_differences(wanted, defaults, ""))
    for key in list(changes):
        others = {other: value for other, value in changes.items() if other != key}
        if in_use(_changed(defaults, others)) == wanted:
            changes = others
    return changes


def _differences(here: Mapping[str, Any], there: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """The dotted keys that both sides have and whose values differ, with the value here."""
    for key in (key for key in here if key in there):
        if isinstance(here[key], Mapping) and isinstance(there[key], Mapping):
            yield from _differences(here[key], there[key], f"{prefix}{key}.")
        elif here[key] != there[key]:
            yield f"{prefix}{key}", here[key]


def _changed(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested values with some dotted keys changed."""
    changed = copy.deepcopy(dict(values))
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = changed
        for section in sections:
            inner = inner[section]
        inner[last] = value
    return changed


def _spelled(value: Any) -> str:
    """A value in the syntax of -S."""
    match value:
        case list():
            return f"[{','.join(map(_spelled, value))}]"
        case Mapping():
            return "{" + ",".join(f"{key}:{_spelled(inner)}" for key, inner in value.items()) + "}"
        case str():
            return _quoted(value)
    return json.dumps(value)


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if "$" in text or "\\" in text or not text.isprintable():
        raise NotExpressible  # -S replaces `$` and reads escapes
    escaped = text.replace('"', '\\"')
    return f'"{escaped}"'
