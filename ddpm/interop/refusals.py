"""Errors that list everything in a model that cannot be imported or exported."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ddpm.alternatives import MISSING
from ddpm.errors import UsageError
from ddpm.params import Conflict, complaint


class Config(BaseModel):
    """The keys of a config from elsewhere that are read here, without conversions; other keys are allowed."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def refuse(what: str, complaints: Iterable[Conflict | str]) -> None:
    """Raise `UsageError` with one line for each complaint, if there is any."""
    if found := list(complaints):
        raise UsageError("\n  ".join([f"{what}:", *map(str, found)]))


def unreadable(config: Mapping[str, Any], form: type[Config]) -> Iterator[Conflict]:
    """The keys of a config that are missing or have the wrong type, one for each key."""
    try:
        form.model_validate(config)
    except ValidationError as found:
        first = {error["loc"][0]: error for error in reversed(found.errors())}
        for key, error in reversed(first.items()):
            missing = error["type"] == "missing"
            yield Conflict(str(key), MISSING, "is missing") if missing else complaint(dict(error))


def others(config: Mapping[str, Any], only: Mapping[str, Any]) -> Iterator[Conflict]:
    """The keys of a config whose value is not the only supported one."""
    for key, value in only.items():
        if config.get(key, value) != value:
            yield Conflict(key, config[key], f"must be {value!r}")
