"""The error that a user can fix, and the message for an unknown key."""

import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args


class UsageError(Exception):
    """Something outside the code is wrong: the message names the problem, the place and the remedy."""


class FileError(UsageError):
    """The file at `path` cannot be used. The remedy depends on what wrote the file, so each interface adds its own."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def one_line(error: object) -> str:
    """The text of an error in one line: those of YAML parsers have several."""
    return " ".join(str(error).split())


def no_such_key(key: str, schema: Any) -> str:
    """The message for a dotted key that a pydantic model does not have, with the nearest key if one is similar."""
    section, _, name = key.rpartition(".")
    known = list(dict.fromkeys(_keys(schema)))
    in_other_sections = [one for one in known if one.endswith(f".{name}")]
    in_section = {one.removeprefix(f"{section}."): one for one in known if one.rpartition(".")[0] == section}
    nearest = (
        difflib.get_close_matches(key, in_other_sections, 1, cutoff=0)
        or [in_section[one] for one in difflib.get_close_matches(name, in_section, 1)]
        or difflib.get_close_matches(key, [] if in_section else known, 1)
    )
    return "there is no such key" + "".join(f"; the nearest is {one}" for one in nearest)


def _keys(schema: Any, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a model, or of all models of a union."""
    for name, field in getattr(schema, "model_fields", {}).items():
        yield f"{prefix}{name}"
        yield from _keys(field.annotation, f"{prefix}{name}.")
    for variant in get_args(schema):
        yield from _keys(variant, prefix)
