"""A small project whose trainings can be shared by up to four processes."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.pipeline.project import Project, create

TRAIN = (
    *("-m", "stages.train", "--data", "data/train.safetensors", "--model", "models/model.safetensors"),
    *("--final-state", "models/state.safetensors", "--snapshots", "models/snapshots", "--curve", "reports/train.csv"),
)
RESULTS = ("data", "models", "reports")


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with its data, in which each test trains from the beginning."""
    made = create(tmp_path_factory.mktemp("distributed") / "a project")
    made.set(train__accumulate=4, train__steps=40, runtime__preview_every=1000, runtime__device="cpu")
    made.run("dvc", "repro", "prepare")
    return made


@pytest.fixture(scope="session")
def expected(project: Project) -> dict[str, str]:
    """The digests of what one process writes."""
    project.run("python", *TRAIN)
    return digests(project)


@pytest.fixture
def anew(project: Project, expected: dict[str, str]) -> Callable[[], Project]:
    """Remove all that was trained; return the project. Named results are those of the processes that run next."""
    del expected  # written before anything is removed

    def remove() -> Project:
        project.run("rm", "-rf", "models", ".ckpt", "reports/train.csv")
        return project

    return remove


def digests(project: Project) -> dict[str, str]:
    """The digest of each file that stages have written."""
    found = (path for folder in RESULTS for path in sorted((project.path / folder).rglob("*")) if path.is_file())
    return {str(path.relative_to(project.path)): _digest(path) for path in found}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
