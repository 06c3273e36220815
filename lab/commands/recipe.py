"""Recipes: recipes/default.yaml is a whole experiment, every other file what an experiment changes of it."""

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from ddpm import params
from ddpm.errors import UsageError

_REPLACED_BY = {"data": "source", "diffusion": "process", "network": "kind"}  # section to the key that remakes it


def names(folder: Path) -> dict[str, str]:
    """All recipes, and the first line of each one's comment."""
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        found[path.stem] = first.removeprefix("#").strip() if first.startswith("#") else ""
    return found


def compose(name: str, folder: Path) -> str:
    """The text of params.yaml for a recipe: the default's with its comments, and what the recipe changes.

    A recipe that changes a section's kind, process or source replaces the section. Raises `UsageError` for an
    unknown or an empty recipe, and `ParamsError` where the result is not usable.
    """
    yaml = _yaml()
    path = folder / f"{name}.yaml"
    if name not in names(folder):
        raise UsageError(f"there is no recipe {name!r} in {folder}; there are {', '.join(names(folder))}")
    whole = yaml.load((folder / "default.yaml").read_text(encoding="utf-8"))
    if name != "default":
        asked = path.read_text(encoding="utf-8")
        if not asked.strip():  # what is left where the command failed that should have filled it
            raise UsageError(f"{path} is empty: write it again, or remove it; a comment alone means the default")
        for section, values in _changes(path, asked).items():
            if section not in whole:
                raise UsageError(f"{path}: there is no section {section!r} in params.yaml")
            remaking = _REPLACED_BY.get(section)
            if remaking and remaking in values and values[remaking] != whole[section][remaking]:
                for key in set(whole[section]) - set(values):
                    del whole[section][key]
            _merge(whole, {section: values})
    text = StringIO()
    yaml.dump(whole, text)
    params.check(yaml_values(text.getvalue()), f"recipe {name}")
    return text.getvalue()


def _changes(path: Path, text: str) -> Mapping[str, Mapping[str, Any]]:
    """The sections of a recipe and what they change. Raises `UsageError` where it is nothing of the kind."""
    try:
        changes = _yaml().load(text) or {}
    except YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(changes, Mapping):
        raise UsageError(f"{path}: must be a mapping of sections, like params.yaml")
    return changes


def yaml_values(text: str) -> Any:
    """What the stages will read: PyYAML's reading, not ruamel's, which is of a newer YAML."""
    import yaml

    return yaml.safe_load(text)


def _merge(target: CommentedMap, changes: Mapping[str, Any]) -> None:
    """Set the changed values in place, so that the comments beside them stay."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), Mapping):
            _merge(target[key], value)
        else:
            target[key] = value


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 1000
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    return yaml
