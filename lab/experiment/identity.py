"""The identity of an experiment and its origin, from the files in a folder or in a commit that DVC keeps."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from ddpm.alternatives import in_use
from ddpm.errors import UsageError
from lab.experiment import dvcfile
from lab.experiment.dvcfile import flatten

MEASURED = ("prepare", "reference", "train", "sample", "evaluate")  # the stages that make the results


def fingerprint(train_digest: str, folder: Path = Path()) -> str:
    """The sha256 of the data and of the parameters and the code of all stages that make the results."""
    return _digest({"params": params(folder), "code": _code(folder), "data": train_digest})


def code_digest(folder: Path = Path()) -> str:
    """The sha256 of the code of all stages that make the results."""
    return _digest(_code(folder))


def _code(folder: Path) -> dict[str, dict[str, str]]:
    return {name: dvcfile.code(name, folder) for name in MEASURED}


def _digest(facts: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def params(folder: Path = Path()) -> dict[str, Any]:
    """The parameters that can change a result, by their dotted keys: those that stages declare, if they are in use."""
    declared: dict[str, Any] = {}
    for name in MEASURED:
        declared |= dvcfile.declared_params(name, folder, in_use)
    return flatten(declared)


def outdated(folder: Path = Path()) -> list[str]:
    """List the reasons why the results in `folder` are not those of its parameters and code, as `dvc status` has them.

    A file that is absent, as in a fresh clone, is no reason. Raises `UsageError` where DVC fails.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", *MEASURED]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if result.returncode != 0:
        raise UsageError(result.stderr.strip())
    changes = []
    for stage, entries in json.loads(result.stdout).items():
        for changed in (changed for entry in entries if isinstance(entry, dict) for changed in entry.values()):
            for name, state in changed.items():
                keys = state if isinstance(state, dict) else {name: state}  # parameters come by file and key
                changes += [f"{stage}: {key} has changed" for key, how in keys.items() if how in ("modified", "new")]
    return changes or list(_gaps(folder))


def _gaps(folder: Path) -> Iterator[str]:
    """List stages that have not run since their inputs changed; `dvc status` ignores that where files are absent."""
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
    """The entries in dvc.lock of the stages that make the results: inputs and outputs of each, with digests."""
    entries = _entries(folder)
    measured = {name: entries[name] for name in MEASURED if name in entries}
    return yaml.safe_dump({"schema": "2.0", "stages": measured}, sort_keys=False)


def _entries(folder: Path) -> dict[str, Any]:
    return dict(dvcfile.parsed(folder / "dvc.lock")["stages"])


def dvc_experiments(root: Path = Path()) -> list[tuple[str, str]]:
    """The name and the commit of each experiment that DVC keeps in this repository, sorted by name.

    Experiments of different baselines may share a name. Raises `UsageError` without git.
    """
    lines = _git(root, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    refs = [(ref.split("/"), commit) for ref, commit in map(str.split, lines)]
    # refs/exps/<2 letters>/<38 letters of the baseline>/<name>; refs of another form are internal to DVC.
    return sorted((parts[4], commit) for parts, commit in refs if len(parts) == 5 and len(parts[3]) == 38)


def read(commit: str, path: str, root: Path = Path()) -> str:
    """The text of a file in a commit."""
    return _git(root, "show", f"{commit}:{path}")


def check_out(commit: str, folder: Path) -> None:
    """Write the files of a commit into `folder` as a DVC repository without git; the working tree stays as it is."""
    with subprocess.Popen(["git", "archive", commit], stdout=subprocess.PIPE) as archive:
        subprocess.run(["tar", "-x", "-C", str(folder)], stdin=archive.stdout, check=True)
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n", encoding="utf-8")


def origin(name: str | None = None, commit: str = "") -> dict[str, str]:
    """Tags for the origin of an experiment: the given commit that DVC keeps, or the repository as it is."""
    tags = {"mlflow.source.type": "PROJECT", "mlflow.source.name": "dvc.yaml"}
    if commit:
        tags |= {"dvc.experiment": name or "", "dvc.baseline": _git_output("rev-parse", f"{commit}^")}
    else:
        tags["dvc.experiment"] = os.environ.get("DVC_EXP_NAME", "")
        tags["dvc.baseline"] = os.environ.get("DVC_EXP_BASELINE_REV", "")
        if commit := _git_output("rev-parse", "HEAD"):
            tags["git.dirty"] = str(bool(_git_output("status", "--porcelain", "--untracked-files=no"))).lower()
    tags["mlflow.source.git.commit"] = commit
    return {key: value for key, value in tags.items() if value}


def _git_output(*arguments: str) -> str:
    """The output of a git command in the repository; empty where there is no git or no commit."""
    try:
        return _git(dvcfile.ROOT, *arguments).strip()
    except (FileNotFoundError, UsageError):
        return ""


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    if result.returncode != 0:
        raise UsageError(result.stderr.strip())
    return result.stdout
