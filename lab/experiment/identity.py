"""The identity of an experiment and its origin, from the files in a folder or in a commit that DVC keeps."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ddpm.alternatives import in_use
from ddpm.errors import UsageError
from lab.experiment import dvcfile

MEASURED = ("prepare", "reference", "train", "sample", "evaluate")  # the stages that make the results


def fingerprint(train_digest: str, folder: Path = Path()) -> str:
    """The sha256 of the data and of the parameters and the code of all stages that make the results."""
    return dvcfile.digest({"params": params(folder), "code": _code(folder), "data": train_digest})


def code_digest(folder: Path = Path()) -> str:
    """The sha256 of the code of all stages that make the results."""
    return dvcfile.digest(_code(folder))


def _code(folder: Path) -> dict[str, dict[str, str]]:
    files = {name: dvcfile.dependencies(name, folder) for name in MEASURED}
    return {name: {path: found[path] for path in found if path.endswith(dvcfile.CODE)} for name, found in files.items()}


def params(folder: Path = Path()) -> dict[str, Any]:
    """The parameters that can change a result, by their dotted keys: the declared parameters in use."""
    declared: dict[str, Any] = {}
    for name in MEASURED:
        declared |= dvcfile.declared_params(name, folder, in_use)
    return dvcfile.flatten(declared)


def title(fingerprint: str, folder: Path = Path()) -> str:
    """A name with the images, the sampler, its steps and the start of the fingerprint, such as digits-ddim50-8bbf."""
    values = params(folder)
    source = images(values["data.source"], values.get("data.path"))
    return f"{source}-{values['sample.sampler']}{values['sample.steps']}-{fingerprint[:4]}"


def images(source: str, path: str | None) -> str:
    """The name of the images: of the folder or .zip at `path` for source `folder`, otherwise of the source."""
    return Path(path).stem if source == "folder" and path else source


def outdated(folder: Path = Path()) -> list[str]:
    """List why the results in `folder` are not those of its parameters and code, as `dvc status` reports it.

    A file that is absent, as in a fresh clone, is no reason. Raises `UsageError` if DVC fails.
    """
    command = [sys.executable, "-m", "dvc", "status", "--json", *MEASURED]
    result = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8")
    if result.returncode != 0:
        raise UsageError(result.stderr.strip())
    changes = []
    for stage, entries in json.loads(result.stdout).items():
        for changed in (changed for entry in entries if isinstance(entry, dict) for changed in entry.values()):
            for name, state in changed.items():
                keys = state if isinstance(state, dict) else {name: state}  # parameters come by file and key
                changes += [f"{stage}: {key} has changed" for key, how in keys.items() if how in ("modified", "new")]
    return changes or list(_gaps(lock(folder), folder))


def _gaps(entries: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """List stages that have not run since their inputs changed; `dvc status` ignores that where files are absent."""
    yield from (f"{name}: has not run" for name in MEASURED if name not in entries)
    made = {out["path"]: out["md5"] for entry in entries.values() for out in entry["outs"]}
    for name, entry in entries.items():
        for dep in entry["deps"]:
            if made.get(dep["path"], dep["md5"]) != dep["md5"]:
                yield f"{name}: {dep['path']} has changed"
    copied = folder / "reports/protocol.json"
    if copied.exists() and made.get("data/protocol.json") != hashlib.md5(copied.read_bytes()).hexdigest():
        yield "report: has not run since the evaluation"


def lock(folder: Path = Path()) -> dict[str, Any]:
    """The entries in dvc.lock of the stages that make the results: inputs and outputs of each, with digests."""
    entries = dvcfile.parsed(folder / "dvc.lock")["stages"]
    return {name: entries[name] for name in MEASURED if name in entries}


def dvc_experiments(root: Path = Path()) -> list[tuple[str, str]]:
    """The name and the commit of each experiment that DVC keeps in this repository, sorted by name.

    Experiments of different baselines may share a name. Raises `UsageError` without git.
    """
    # refs/exps/<2 letters>/<38 letters of the baseline>/<name>; refs of another form are internal to DVC.
    refs = git(root, "for-each-ref", "--format=%(refname:lstrip=4) %(objectname)", "refs/exps/??/*/*").splitlines()
    return sorted((name, commit) for name, commit in map(str.split, refs))


def read(commit: str, path: str, root: Path = Path()) -> str:
    """The text of a file in a commit."""
    return git(root, "show", f"{commit}:{path}")


def in_git(path: Path) -> bool:
    """Whether a commit of a branch, a tag or an experiment of DVC has the contents of a file. False without git."""
    with suppress(FileNotFoundError, UsageError):  # there is no git, or no repository
        blob = git(path.parent, "hash-object", path.name).strip()
        found = ("log", "--all", "-m", "-1", "--format=%H", f"--find-object={blob}", "--", path.name)
        return bool(git(path.parent, *found))
    return False


def check_out(commit: str, folder: Path) -> None:
    """Write the files of a commit into `folder` as a DVC repository without git; the working tree does not change.

    Raises `UsageError` if they cannot be written.
    """
    with subprocess.Popen(["git", "archive", commit], stdout=subprocess.PIPE) as archive:
        unpack = ["tar", "-x", "-f", "-", "-C", str(folder)]
        result = subprocess.run(unpack, stdin=archive.stdout, stderr=subprocess.PIPE, encoding="utf-8")
    if result.returncode or archive.returncode:
        reason = result.stderr.strip().partition("\n")[0]
        raise UsageError(f"commit {commit[:7]} cannot be unpacked into {folder}: {reason}")
    (folder / ".dvc/config.local").write_text("[core]\n    no_scm = true\n", encoding="utf-8")


def origin(name: str | None = None, commit: str = "") -> dict[str, str]:
    """Tags for the origin of an experiment: the given commit of a DVC experiment, or the current repository."""
    tags = {
        "mlflow.source.type": "PROJECT",
        "mlflow.source.name": "dvc.yaml",
        "mlflow.source.git.commit": commit,
        "dvc.experiment": name or os.environ.get("DVC_EXP_NAME", ""),
        "dvc.baseline": os.environ.get("DVC_EXP_BASELINE_REV", ""),
    }
    with suppress(FileNotFoundError, UsageError):  # there is no git, or no commit
        if commit:
            tags["dvc.baseline"] = git(dvcfile.ROOT, "rev-parse", f"{commit}^").strip()
        else:
            tags["mlflow.source.git.commit"] = git(dvcfile.ROOT, "rev-parse", "HEAD").strip()
            changes = git(dvcfile.ROOT, "status", "--porcelain", "--untracked-files=no")
            tags["git.dirty"] = "true" if changes else "false"
    return {key: value for key, value in tags.items() if value}


def git(root: Path, *arguments: str) -> str:
    """The output of a git command. Raises `UsageError`, with the first line of its error, if it fails."""
    try:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError("there is no program git: install it") from error
    if result.returncode != 0:
        raise UsageError(_reason(result.stderr) or f"git {arguments[0]} has failed")
    return result.stdout


def _reason(message: str) -> str:
    """The first line of an error of git, in the words of this project where no commit is what it lacks."""
    first = message.strip().partition("\n")[0].removeprefix("fatal: ")
    if re.search(r"(ambiguous argument|invalid object name|bad revision) 'HEAD'", first):
        return "this git repository has no commit yet: `git commit` your files"
    return f"{first}; use `git clone`, or run `git init`" if first.startswith("not a git repository") else first
