"""What cannot be carried over is refused by name, all of it at once."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ddpm.errors import UsageError


def refuse(what: str, complaints: Iterable[str]) -> None:
    """Raise `UsageError` with a line for each complaint, if there is any."""
    if found := list(complaints):
        raise UsageError("\n  ".join([f"{what}:", *found]))


def others(config: Mapping[str, Any], only: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a config that are not the one thing that they can be here."""
    for key, value in only.items():
        if config.get(key, value) != value:
            yield f"{key} = {config[key]!r}: must be {value!r}"
