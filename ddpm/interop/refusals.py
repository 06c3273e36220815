"""What cannot be carried over is refused by name, all of it at once."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from ddpm.errors import UsageError
from ddpm.params import complaint


class Config(BaseModel):
    """The keys of a config from elsewhere that are read here: no conversions; it may hold others."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def refuse(what: str, complaints: Iterable[str]) -> None:
    """Raise `UsageError` with a line for each complaint, if there is any."""
    if found := list(complaints):
        raise refusal(what, found)


def refusal(what: str, complaints: Iterable[str]) -> UsageError:
    """What `refuse` raises, for where something is known to be wrong."""
    return UsageError("\n  ".join([f"{what}:", *complaints]))


def unreadable(config: Mapping[str, Any], form: type[Config]) -> Iterator[str]:
    """The keys of a config that are missing, or not of their type; one line each, however much a list holds."""
    try:
        form.model_validate(config)
    except ValidationError as found:
        first = {error["loc"][0]: error for error in reversed(found.errors())}
        for key, error in reversed(first.items()):
            yield f"{key}: is missing" if error["type"] == "missing" else complaint(dict(error))


def others(config: Mapping[str, Any], only: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a config that are not the one thing that they can be here."""
    for key, value in only.items():
        if config.get(key, value) != value:
            yield f"{key} = {config[key]!r}: must be {value!r}"
