"""Recipes: recipes/default.yaml has all settings of an experiment, every other file the changes to them."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from ddpm import params
from ddpm.errors import UsageError


def names(folder: Path) -> dict[str, str]:
    """The names of all recipes, with the first line of each one's comment."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.removeprefix("#").strip() if first.startswith("#") else ""
    return found


def compose(name: str, folder: Path) -> str:
    """Compose params.yaml: the default recipe, with its comments, and the changes of recipe `name`.

    Raises `UsageError` for an unknown or an empty recipe, and `ParamsError` if the result is not usable.
    """
    if name not in names(folder):
        raise UsageError(f"there is no recipe {name!r} in {folder}; there are {', '.join(names(folder))}")
    whole = _round_trip().load((folder / "default.yaml").read_text(encoding="utf-8"))
    if name != "default":
        _merge(whole, _changes(folder / f"{name}.yaml"))
    text = StringIO()
    _round_trip().dump(whole, text)
    # The stages read YAML 1.1 by PyYAML, so that is what must be right; ruamel.yaml writes 1.2.
    params.check(yaml.safe_load(text.getvalue()), f"recipe {name}")
    return text.getvalue()


def _changes(path: Path) -> Mapping[str, Any]:
    """Read the changes of a recipe. Raises `UsageError` if the file is empty or has no sections."""
    text = path.read_text(encoding="utf-8")
    if not text.strip():  # a failed command can leave an empty file
        raise UsageError(
            f"{path} is empty: write it again, or remove it; a file with only a comment is the default recipe"
        )
    try:
        changes = _round_trip().load(text) or {}
    except YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(changes, Mapping):
        raise UsageError(f"{path}: must be a mapping of sections, like params.yaml")
    return changes


def _merge(target: CommentedMap, changes: Mapping[str, Any]) -> None:
    """Set the changed values in place, which keeps the comments beside them."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), Mapping):
            _merge(target[key], value)
        else:
            target[key] = list(value) if isinstance(value, list) else value  # a plain list has block style


def _round_trip() -> YAML:
    """A reader and writer that keeps comments and writes as DVC does, so that `-S` changes no other line."""
    file = YAML()
    file.default_flow_style = False
    return file
