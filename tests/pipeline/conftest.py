"""A fresh tiny project, and a reproduced one that the tests share and must leave unchanged."""

from pathlib import Path

import pytest

from tests.pipeline.project import Project, create


@pytest.fixture
def fresh(tmp_path: Path) -> Project:
    """A project without results, at a path with a space."""
    return create(tmp_path / "a project")


@pytest.fixture(scope="session")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after `dvc repro`, with committed results."""
    project = create(tmp_path_factory.mktemp("reproduced") / "a project")
    project.run("dvc", "repro")
    project.commit("reproduced")
    return project
