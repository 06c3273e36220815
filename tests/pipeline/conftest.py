"""A tiny project, and one that has been reproduced; the latter is shared, so tests leave it as it was."""

from pathlib import Path

import pytest

from tests.pipeline.project import Project, create


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A project in which nothing has run, at a path with a space."""
    return create(tmp_path / "a project")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after `dvc repro`, its results committed."""
    project = create(tmp_path_factory.mktemp("reproduced") / "a project")
    project.run("dvc", "repro")
    project.commit("reproduced")
    return project
