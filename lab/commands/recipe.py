"""Recipes: recipes/default.yaml has all settings of an experiment, every other file the changes to them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError

from ddpm import params
from ddpm.alternatives import MISSING
from ddpm.errors import UsageError, one_line
from lab.experiment import dvcfile, identity


def names(folder: Path) -> dict[str, str]:
    """The names of all recipes, with the first line of each one's comment."""
    found = {}
    for path in sorted(
        folder.glob("[!.]*.yaml"), key=lambda path: path.stem
    ):  # copies of some systems begin with a dot
        first = _text(path).partition("\n")[0]
        found[path.stem] = first.removeprefix("#").strip() if first.startswith("#") else ""
    return found


def compose(name: str, folder: Path) -> str:
    """Compose params.yaml: the default recipe, with its comments, and the changes of recipe `name`.

    Raises `UsageError` for an unknown or an empty recipe, and `ParamsError` if the result is not usable.
    """
    if name not in names(folder):
        raise UsageError(f"there is no recipe {name!r} in {folder}; there are {', '.join(names(folder))}")
    changes = {} if name == "default" else _changes(folder / f"{name}.yaml")
    composed = edited((folder / "default.yaml").read_text(encoding="utf-8"), changes, f"recipe {name}")
    _, _, body = composed.partition("\n")  # the first line describes the default recipe
    return f"# {names(folder)[name] or f'Recipe {name}'}\n{body}"


def edited(text: str, changes: Mapping[str, Any], name: str) -> str:
    """Change values in the text of a params.yaml and keep its comments. Raises `UsageError` if it is not usable."""
    try:
        whole = _round_trip().load(text)
    except YAMLError as error:
        raise UsageError(f"{name} is not valid YAML: {one_line(error)}") from error
    if isinstance(whole, CommentedMap):
        _merge(whole, changes)
    written = StringIO()
    _round_trip().dump(whole, written)
    # The stages read YAML 1.1 by PyYAML, so that is what must be right; ruamel.yaml writes 1.2.
    params.check(yaml.safe_load(written.getvalue()), name)
    return written.getvalue()


def check_kept(path: Path, folder: Path) -> None:
    """Raise `UsageError` if params.yaml has settings that neither git, nor DVC, nor a recipe keeps."""
    if not path.is_file() or identity.in_git(path):
        return
    kept = {}
    with suppress(UsageError, FileNotFoundError):  # there is no commit, or no git
        kept["committed"] = identity.read("HEAD", f"./{path}")
    kept |= {f"recipe {name}": text for name, text in _composed(folder)}
    if path.read_bytes() in map(str.encode, kept.values()):
        return
    raise UsageError(
        f"{path} has changes that are not committed, and no recipe has them:{_changes_of(path, kept)}\n"
        f"commit them (`git commit {path}`), save them in {folder}/NAME.yaml, or overwrite them with --force"
    )


def _composed(folder: Path) -> Iterator[tuple[str, str]]:
    """The name and the params.yaml of every recipe that is usable."""
    for name in names(folder):
        with suppress(UsageError):
            yield name, compose(name, folder)


def _changes_of(path: Path, kept: Mapping[str, str]) -> str:
    """Lines for the settings of params.yaml that differ from the text in `kept` that is most like it."""
    try:
        here = dvcfile.flatten(yaml.safe_load(path.read_bytes()))
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError) as error:
        return f"\n  they cannot be listed, because it is not a valid params.yaml: {one_line(error)}"
    found: list[list[str]] = []
    for name, text in kept.items():
        there = dvcfile.flatten(yaml.safe_load(text))
        changed = [key for key in here | there if here.get(key, MISSING) != there.get(key, MISSING)]
        found.append([f"\n  {key}: {_shown(here, key)} ({name}: {_shown(there, key)})" for key in changed])
    fewest = min(found, key=len)
    return "".join(fewest) or "\n  comments or layout"


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key], ensure_ascii=False, default=str) if key in values else "missing"


def _changes(path: Path) -> Mapping[str, Any]:
    """Read the changes of a recipe. Raises `UsageError` if the file is empty or has no sections."""
    text = _text(path)
    if not text.strip():  # a failed command can leave an empty file
        raise UsageError(
            f"{path} is empty: write it again, or remove it; a file with only a comment is the default recipe"
        )
    try:
        changes = _round_trip().load(text) or {}
    except YAMLError as error:
        raise UsageError(f"{path} is not valid YAML: {one_line(error)}") from error
    if not isinstance(changes, Mapping):
        raise UsageError(f"{path}: must be a mapping of sections, like params.yaml")
    return changes


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file: {error}") from error


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
