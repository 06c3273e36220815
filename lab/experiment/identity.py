"""An experiment, as its files tell it: in this folder, or in a commit that DVC keeps."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ddpm.errors import UsageError
from lab.experiment import dvcfile
from lab.experiment.dvcfile import flatten

MEASURED = ("prepare", "reference", "train", "sample", "evaluate")  # the stages that determine a result


def fingerprint(train_digest: str, folder: Path = Path()) -> str:
    """One name for the parameters and the code of all stages that make its results, and for its data."""
    return _digest({"params": params(folder), "code": _code(folder), "data": train_digest})


def code_digest(folder: Path = Path()) -> str:
    """sha256 of the code of all stages that make its results."""
    return _digest(_code(folder))


def _code(folder: Path) -> dict[str, dict[str, str]]:
    return {name: dvcfile.code(name, folder) for name in MEASURED}


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def params(folder: Path = Path()) -> dict[str, Any]:
    """The parameters that can change a result, by their dotted keys: what the stages declare."""
    declared: dict[str, Any] = {}
    for name in MEASURED:
        declared |= dvcfile.declared_params(name, folder)
    return flatten(declared)


def outdated(folder: Path = Path()) -> list[str]:
    """Why the results in `folder` are not those of its parameters and code, a line each: by DVC's own records.

    Raises `UsageError` where DVC has none. Files that a fresh clone lacks are no change.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", *MEASURED]
    answer = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if answer.returncode != 0:
        raise UsageError(answer.stderr.strip())
    changes = []
    for stage, entries in json.loads(answer.stdout).items():
        for changed in (changed for entry in entries if isinstance(entry, dict) for changed in entry.values()):
            for name, state in changed.items():
                keys = state if isinstance(state, dict) else {name: state}  # parameters come by file and key
                changes += [f"{stage}: {key} has changed" for key, how in keys.items() if how in ("modified", "new")]
    return changes or list(_gaps(folder))


def _gaps(folder: Path) -> Iterator[str]:
    """Stages that have not run, or not since an earlier one has: DVC's status does not tell it of absent files."""
    entries = _entries(folder)
    for name in MEASURED:
        if name not in entries:
            yield f"{name}: has not run"
    made = {out["path"]: out.get("md5") for name in MEASURED for out in entries.get(name, {}).get("outs", [])}
    for name in MEASURED:
        for dep in entries.get(name, {}).get("deps", []):
            if made.get(dep["path"], dep.get("md5")) != dep.get("md5"):
                yield f"{name}: {dep['path']} has changed"


def lock(folder: Path = Path()) -> str:
    """dvc.lock's entries of the stages that determine the result: what each read and wrote, by digest."""
    entries = _entries(folder)
    measured = {name: entries[name] for name in MEASURED if name in entries}
    return yaml.safe_dump({"schema": "2.0", "stages": measured}, sort_keys=False)


def _entries(folder: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((folder / "dvc.lock").read_text(encoding="utf-8"))["stages"])


def kept(root: Path = Path()) -> list[tuple[str, str]]:
    """The name and the commit of each experiment that DVC keeps in this repository, in the order of the names.

    A name is one experiment's only among those of the same baseline. Raises `UsageError` without git.
    """
    lines = _git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    refs = [(ref.split("/"), commit) for ref, commit in map(str.split, lines)]
    # refs/exps/<2 letters>/<38 letters of the baseline>/<name>; what is not of that form is DVC's own.
    return sorted((parts[4], commit) for parts, commit in refs if len(parts) == 5 and len(parts[3]) == 38)


def read(commit: str, path: str, root: Path = Path()) -> str:
    """The text of a file in a commit."""
    return _git(root, "show", f"{commit}:{path}")


def check_out(commit: str, folder: Path) -> None:
    """Write the files of a commit into `folder`, for DVC a repository without git; the working tree stays as it is."""
    with subprocess.Popen(["git", "archive", commit], stdout=subprocess.PIPE) as archive:
        subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=True)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n", encoding="utf-8")


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
        return _git(dvcfile.ROOT, *arguments).strip()
    except (FileNotFoundError, UsageError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if answer.returncode != 0:
        raise UsageError(answer.stderr.strip())
    return answer.stdout
