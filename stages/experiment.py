"""An experiment, as its files tell it: in this folder, or in a commit that DVC keeps."""

import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from ddpm.errors import UsageError
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


def outdated() -> list[str]:
    """What has changed since the results in this folder were made, a line each: by DVC's own records.

    Raises `UsageError` where DVC has none. Files that a fresh clone lacks are no change.
    """
    command = ["dvc", "status", "--json", *MEASURED]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode != 0:
        raise UsageError(answer.stderr.strip())
    changes = []
    for stage, entries in json.loads(answer.stdout).items():
        for changed in (entry["changed deps"] for entry in entries if "changed deps" in entry):
            for name, state in changed.items():
                keys = state if isinstance(state, dict) else {name: state}  # parameters come by file and key
                changes += [f"{stage}: {key} has changed" for key, how in keys.items() if how in ("modified", "new")]
    return changes


def lock(folder: Path = Path()) -> str:
    """dvc.lock's entries of the stages that determine the result: what each read and wrote, by digest."""
    entries = yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"]
    measured = {name: entries[name] for name in MEASURED if name in entries}
    return yaml.safe_dump({"schema": "2.0", "stages": measured}, sort_keys=False)


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


def origin(name: str | None = None, commit: str = "") -> dict[str, str]:
    """Tags that say where an experiment comes from: the given commit of DVC's, or the repository as it is."""
    tags = {"mlflow.source.type": "PROJECT", "mlflow.source.name": "dvc.yaml"}
    if commit:
        tags |= {"dvc.experiment": name or "", "dvc.baseline": _said("rev-parse", f"{commit}^")}
    else:
        tags["dvc.experiment"] = os.environ.get("DVC_EXP_NAME", "")
        tags["dvc.baseline"] = os.environ.get("DVC_EXP_BASELINE_REV", "")
        if commit := _said("rev-parse", "HEAD"):
            tags["git.dirty"] = str(bool(_said("status", "--porcelain", "--untracked-files=no"))).lower()
    tags["mlflow.source.git.commit"] = commit
    return {key: value for key, value in tags.items() if value}


def _said(*arguments: str) -> str:
    """What git says of the repository, or nothing where there is no git or no commit."""
    try:
        return _git(pipeline.ROOT, *arguments).strip()
    except (FileNotFoundError, subprocess.CalledProcessError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
