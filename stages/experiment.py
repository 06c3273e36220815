"""An experiment, as its files tell it: in this folder, or in a commit that DVC keeps."""

import hashlib
import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ddpm.reporting.contents import flatten
from stages import pipeline

MEASURED = ("prepare", "reference", "train", "sample", "evaluate")  # the stages that determine a result


def fingerprint(train_digest: str, folder: Path = Path()) -> str:
    """One name for the parameters and the code of all stages that make its results, and for its data."""
    return _digest({"params": params(folder), "code": _code(folder), "data": train_digest})


def code_digest(folder: Path = Path()) -> str:
    """sha256 of the code of all stages that make its results."""
    return _digest(_code(folder))


def _code(folder: Path) -> dict[str, dict[str, str]]:
    return {name: pipeline.code(name, folder) for name in MEASURED}


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def params(folder: Path = Path()) -> dict[str, Any]:
    """The parameters that can change a result, by their dotted keys: what the stages declare."""
    declared: dict[str, Any] = {}
    for name in MEASURED:
        declared |= pipeline.declared_params(name, folder)
    return flatten(declared)


def kept(root: Path = Path()) -> dict[str, str]:
    """The commit of each experiment that DVC keeps in this repository, by name, in the order of the names."""
    lines = _git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    refs = [(ref.split("/"), commit) for ref, commit in map(str.split, lines)]
    # refs/exps/<2 letters>/<38 letters of the baseline>/<name>; what is not of that form is DVC's own.
    return dict(sorted((parts[4], commit) for parts, commit in refs if len(parts) == 5 and len(parts[3]) == 38))


def read(commit: str, path: str, root: Path = Path()) -> str:
    """The text of a file in a commit."""
    return _git(root, "show", f"{commit}:{path}")


def check_out(commit: str, folder: Path) -> None:
    """Write the files of a commit into `folder`, without touching the working tree."""
    with subprocess.Popen(["git", "archive", commit], stdout=subprocess.PIPE) as archive:
        subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=True)


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
