"""A copy of this repository with tiny parameters, in which tests run the commands of a user."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq

from tests.imports import ROOT

TINY = {
    "network.channels": 16,
    "train.steps": 12,
    "train.batch_size": 16,
    "train.warmup": 2,
    "train.snapshots": [6],
    "sample.count": 32,
    "sample.steps": 4,
    "evaluate.classifier.channels": 4,
    "evaluate.classifier.steps": 20,
    "evaluate.classifier.batch_size": 32,
    "runtime.threads": 1,
    "runtime.checkpoint_every": 4,
    "runtime.preview_every": 6,
    "runtime.log_every": 5,
}


def environment() -> dict[str, str]:
    """The environment of the tests, with its programs first in PATH and without variables of DVC, MLflow and git."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_", "GIT_"))}
    bin_folder = str(Path(sys.executable).parent)
    identity = {
        f"GIT_{who}_{what}": value
        for who in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "tests"), ("EMAIL", "tests@example.org"))
    }
    return {
        **kept,
        **identity,
        "PATH": bin_folder + os.pathsep + kept["PATH"],
        "DVC_NO_ANALYTICS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "PYTHONUNBUFFERED": "1",
    }


class Project:
    """A git and DVC repository."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *command: str, check: bool = True, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the repository; if `check`, a failure raises with the command's output."""
        result = subprocess.run(
            command, cwd=self.path, env=environment() | more, capture_output=True, text=True, timeout=400
        )
        assert not check or result.returncode == 0, f"{command}\n{result.stdout[-3000:]}\n{result.stderr[-3000:]}"
        return result

    def git(self, *arguments: str) -> str:
        return self.run("git", *arguments).stdout

    def set(self, **values: object) -> None:
        """Change params.yaml; two underscores stand for the dot of a key."""
        edit(self.path / "params.yaml", {key.replace("__", "."): value for key, value in values.items()})

    def restore(self) -> None:
        """Restore the committed files and their outputs; a stage that fails has removed its own."""
        self.git("checkout", "-q", ".")
        self.run("dvc", "checkout", "-q")

    def commit(self, message: str) -> None:
        self.git("add", "-A")
        self.git("commit", "-qm", message)


def edit(path: Path, values: dict[str, object]) -> None:
    """Set dotted keys of a YAML file and keep its comments."""
    yaml = YAML()
    contents = yaml.load(path.read_text())
    for key, value in values.items():
        *sections, last = key.split(".")
        section = contents
        for name in sections:
            section = section[name]
        if isinstance(value, list):  # flow style, as in the file, keeps the comments in place
            value = CommentedSeq(value)
            value.fa.set_flow_style()
        section[last] = value
    with path.open("w") as file:
        yaml.dump(contents, file)


def create(path: Path) -> Project:
    """Copy the files of the repository without reports, docs and tests, set tiny parameters, and commit."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        if not (ROOT / name).is_file() or name.startswith(("reports/", "docs/", "tests/")) or name == "dvc.lock":
            continue
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, path / name)
    project = Project(path)
    shutil.copy(path / "recipes/default.yaml", path / "params.yaml")
    edit(path / "params.yaml", TINY)
    project.git("init", "-q", "-b", "main")
    project.commit("tiny")
    return project
