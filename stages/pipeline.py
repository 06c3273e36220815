"""What a stage knows of DVC: what it depends on, whether that changed under it, and how the user hears of an error.

Import it before `ddpm`: it hashes what the running stage depends on, so that code edited while the stage runs is
noticed. DVC hashes dependencies only when the command has ended, and would record the new code as the maker of the
old output.
"""

import argparse
import hashlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

STAGE = os.environ.get("DVC_STAGE")
ROOT = Path(os.environ.get("DVC_ROOT", Path.cwd()))  # the repository, also from DVC's temporary copies of it
PARAMS = Path("params.yaml")
_CODE = (".py", ".html")  # in folders, as .dvcignore says


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """What a YAML text says, to read and not to change: parsing takes a tenth of a second, and is asked for often."""
    return yaml.safe_load(text)


def stages(folder: Path = Path()) -> dict[str, Any]:
    """The stages as dvc.yaml in `folder` has them."""
    return dict(_parsed((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def declared_params(name: str, folder: Path = Path()) -> dict[str, Any]:
    """The values of the parameters that a stage declares, by their dotted keys; None for a missing one."""
    values = _parsed((folder / PARAMS).read_text(encoding="utf-8"))
    declared = {}
    for key in stages(folder)[name].get("params", []):
        value = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        declared[key] = value
    return declared


def dependencies(name: str, folder: Path = Path()) -> dict[str, str]:
    """sha256, by path, of each file among a stage's dependencies; of folders code, as .dvcignore says, and tensors."""
    digests = {}
    for dependency in stages(folder)[name].get("deps", []):
        path = folder / dependency
        inside = (file for file in path.rglob("*") if file.suffix in (*_CODE, ".safetensors"))
        for file in sorted(inside) if path.is_dir() else [path]:
            digests[file.relative_to(folder).as_posix()] = _digest(file) if file.is_file() else "missing"
    return digests


def code(name: str, folder: Path = Path()) -> dict[str, str]:
    """`dependencies`, of the code alone."""
    return {path: digest for path, digest in dependencies(name, folder).items() if path.endswith(_CODE)}


def _digest(path: Path) -> str:
    """sha256 of a file; of a tensor file only its header, which holds the sha256 of the rest."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if path.suffix == ".safetensors":
            size = min(size, int.from_bytes(file.read(8), "little"))  # a broken file may claim any length
        return hashlib.sha256(file.read(size)).hexdigest()


def observed(name: str, folder: Path = Path()) -> dict[str, Any]:
    """All that a stage's outputs follow from: the values of its parameters, the digests of its dependencies."""
    return {**declared_params(name, folder), **dependencies(name, folder)}


_BEGAN = time.monotonic()
_AT_START = observed(STAGE) if STAGE else {}


@contextmanager
def running(name: str) -> Iterator[None]:
    """Around all that a stage does: what the user can mend or stopped is one message, and inputs must not have changed.

    The check of inputs needs DVC's environment, as the journal does; a stage started by hand runs without them.
    """
    from ddpm.errors import UsageError
    from stages import journal

    try:
        yield
    except UsageError as error:
        sys.exit(f"{name}: {error}")
    except KeyboardInterrupt as interrupt:
        print("; ".join([f"{name}: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(130)  # as of a shell's command that Ctrl-C ended, so that DVC records nothing
    if STAGE:
        now = observed(STAGE)
        changed = sorted(key for key in _AT_START.keys() | now.keys() if _AT_START.get(key) != now.get(key))
        if changed:
            sys.exit(f"{name}: {', '.join(changed)} changed while the stage ran; its outputs fit neither, run it again")
        journal.record(STAGE, _AT_START, time.monotonic() - _BEGAN)


def paths(*names: str) -> list[Path]:
    """The paths that dvc.yaml hands to the stage, as --NAME PATH, in the order of `names`."""
    parser = argparse.ArgumentParser()
    for name in names:
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = vars(parser.parse_args())
    return [arguments[name.replace("-", "_")] for name in names]


def data_root(setting: str) -> Path:
    """Where datasets lie: `runtime.data_root`, relative to the repository and not to a temporary copy of it."""
    return ROOT / setting
