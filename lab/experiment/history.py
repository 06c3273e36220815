"""Search git for the commit with a digest of code. Outputs of stages hold that digest and never a commit."""

import hashlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from yaml import YAMLError

from lab.experiment import dvcfile, identity


class Commit(NamedTuple):
    """A commit and the digest of its code."""

    id: str
    day: str  # such as 2026-01-31
    subject: str
    code: str  # as by `identity.code_digest`


def commits(root: Path = Path()) -> Iterator[Commit]:
    """The commits that changed code or dvc.yaml, newest first: first those of the current branch, then all others.

    The others include the experiments that DVC keeps. Raises `UsageError` without git or a commit.
    """
    paths = ["dvc.yaml", *(f"*{suffix}" for suffix in dvcfile.CODE)]
    listed = [
        line
        for references in ("HEAD", "--all")
        for line in identity.git(root, "log", "--format=%H %cs %s", references, "--", *paths).splitlines()
    ]
    with _Store(root) as store:
        for line in dict.fromkeys(listed):
            id, day, subject = line.split(" ", 2)
            files = _code(root, id)
            try:
                code = store.code_digest(files)
            except (YAMLError, LookupError, TypeError, AttributeError, ValueError):
                continue  # no stage has run with such a dvc.yaml, or without one
            yield Commit(id, day, subject, code)


def _code(root: Path, commit: str) -> dict[str, str]:
    """The ids of dvc.yaml and of all code in a commit, by path."""
    entries = (line.split(None, 3) for line in identity.git(root, "ls-tree", "-rz", commit).split("\0") if line)
    return {path: id for _, _, id, path in entries if path == "dvc.yaml" or path.endswith(dvcfile.CODE)}


class _Store:
    """Files that git keeps. Each is read once, because most commits share most files."""

    def __init__(self, root: Path) -> None:
        command = ["git", "-C", str(root), "cat-file", "--batch"]
        self._git = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._digests: dict[str, str] = {}
        self._stages: dict[str, Mapping[str, Any]] = {}

    def __enter__(self) -> "_Store":
        return self

    def __exit__(self, *_: object) -> None:
        self._git.communicate()

    def code_digest(self, files: Mapping[str, str]) -> str:
        """The digest of the code of all stages that make the results, as by `identity.code_digest`."""
        id = files["dvc.yaml"]
        if id not in self._stages:
            self._stages[id] = dvcfile.parsed_text(self._read(id).decode())["stages"]
        deps = {name: self._stages[id].get(name, {}).get("deps", []) for name in identity.MEASURED}
        return dvcfile.digest({name: self._digests_of(files, set(paths)) for name, paths in deps.items()})

    def _digests_of(self, files: Mapping[str, str], deps: set[str]) -> dict[str, str]:
        """The sha256 of each file of code among the dependencies or in their folders."""
        inside = {path for path in files if path.startswith(tuple(f"{dep}/" for dep in deps))}
        alone = {dep for dep in deps if dep.endswith(dvcfile.CODE)}
        return {path: self._sha256(files[path]) if path in files else "missing" for path in inside | alone}

    def _sha256(self, id: str) -> str:
        if id not in self._digests:
            self._digests[id] = hashlib.sha256(self._read(id)).hexdigest()
        return self._digests[id]

    def _read(self, id: str) -> bytes:
        assert self._git.stdin, "it is a pipe"
        assert self._git.stdout, "it is a pipe"
        self._git.stdin.write(f"{id}\n".encode())
        self._git.stdin.flush()
        size = int(self._git.stdout.readline().split()[2])  # the line is: id, type, size
        return self._git.stdout.read(size + 1)[:-1]
