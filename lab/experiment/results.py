"""The JSON files of an experiment's results, checked where they are read."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ddpm.errors import FileError


def read(path: Path, keys: Iterable[str] = ()) -> dict[str, Any]:
    """Read a JSON object that has at least the given keys. Raises `FileError`."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", path) from error
    except (ValueError, RecursionError) as error:  # bytes that are no text are a ValueError, too
        raise FileError(f"{path} is not valid JSON: {error}", path) from error
    if not isinstance(found, dict):
        raise FileError(f"{path} must be a JSON object, and is a {type(found).__name__}", path)
    if missing := [key for key in keys if key not in found]:
        raise FileError(f"{path} lacks {', '.join(missing)}", path)
    return found


def metrics(path: Path) -> dict[str, dict[str, float]]:
    """Read reports/metrics.json: sections of numbers. Raises `FileError`."""
    found = read(path)
    check_metrics(path, found)
    return found


def check_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """Raise `FileError` unless the metrics, which are from the file `path`, are sections of numbers."""
    for section, values in metrics.items():
        if not isinstance(values, dict):
            raise FileError(f"{path}: {section} must be a section of numbers", path)
        for key, value in values.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise FileError(f"{path}: {section}.{key} = {value!r} must be a number", path)
