"""Parameters and dependencies of the stages, from dvc.yaml and params.yaml."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(os.environ.get("DVC_ROOT", Path.cwd()))  # the repository, also from DVC's temporary copies of it
PARAMS = Path("params.yaml")
CODE = (".py", ".html")  # code in folders; must match .dvcignore


def parsed(path: Path) -> Any:
    """Read a YAML file."""
    return parsed_text(path.read_text(encoding="utf-8"))


def parsed_text(text: str) -> Any:
    """Parse YAML. The C parser, which some builds of PyYAML lack, is four times as fast as Python's."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def stages(folder: Path = Path()) -> dict[str, Any]:
    """The stages in dvc.yaml. Raises `UsageError` if it has none, or is not valid YAML."""
    path = folder / "dvc.yaml"
    try:
        return dict(parsed(path)["stages"])
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError) as error:
        from ddpm.errors import UsageError, one_line  # a stage records its inputs before it imports any code

        raise UsageError(
            f"{path} has no stages, or is not valid YAML ({one_line(error)}): `git restore {path}`"
        ) from error


def _stage(name: str, folder: Path) -> Mapping[str, Any]:
    if not isinstance(found := stages(folder).get(name), Mapping):
        from ddpm.errors import UsageError

        raise UsageError(f"{folder / 'dvc.yaml'} has no stage {name}: `git restore {folder / 'dvc.yaml'}`")
    return found


def declared_params(
    name: str, folder: Path = Path(), view: Callable[[dict[str, Any]], Mapping[str, Any]] = dict
) -> dict[str, Any]:
    """The values of the parameters that a stage declares, by their dotted keys; None for a missing one.

    `view` is applied to the values of params.yaml first.
    """
    values = view(parsed(folder / PARAMS))
    declared = {}
    for key in _stage(name, folder).get("params", []):
        value: Any = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        declared[key] = value
    return declared


def dependencies(name: str, folder: Path = Path()) -> dict[str, str]:
    """The sha256 of each file that a stage depends on, by path; in folders, of code and tensors."""
    digests = {}
    for dependency in _stage(name, folder).get("deps", []):
        path = folder / dependency
        inside = (file for file in path.rglob("*") if file.suffix in (*CODE, ".safetensors"))
        for file in sorted(inside) if path.is_dir() else [path]:
            digests[file.relative_to(folder).as_posix()] = digest_of_file(file)
    return digests


def digest_of_file(path: Path) -> str:
    """The sha256 of a file, of a tensor file that of its header, which holds the sha256 of the rest; or "missing"."""
    if not path.is_file():
        return "missing"
    size = path.stat().st_size
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            size = min(size, int.from_bytes(file.read(8), "little"))  # a broken file may give any length
        return hashlib.sha256(file.read(size)).hexdigest()


def observed(name: str, folder: Path = Path()) -> dict[str, Any]:
    """All inputs of a stage: the values of its parameters, the digests of its dependencies."""
    return {**declared_params(name, folder), **dependencies(name, folder)}


def digest(values: Mapping[str, Any]) -> str:
    """The sha256 of values that JSON can express."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def flatten(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn {"a": {"b": 1}} into {"a.b": 1}; lists stay whole."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def data_root(setting: str) -> Path:
    """The folder of datasets: `runtime.data_root`, relative to the repository and not to DVC's temporary copy of it."""
    return ROOT / setting
