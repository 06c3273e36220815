"""Images in data/raw, versioned by DVC, reach a clone; an older commit restores its images."""

import shutil
from pathlib import Path

import pytest

from tests.imports import ROOT
from tests.pipeline.project import Project


@pytest.fixture
def drawn(tmp_path: Path) -> Project:
    """A repository with the .gitignore of this one, a remote, and two images, pushed and committed."""
    project = Project(tmp_path / "here")
    folder = project.path / "data/raw/drawn"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / ".gitignore", project.path)
    for name in ("1.png", "2.png"):
        (folder / name).write_text(name)
    project.git("init", "-q", "-b", "main")
    project.run("dvc", "init", "-q")
    project.run("dvc", "remote", "add", "-q", "--default", "storage", str(tmp_path / "storage"))
    project.run("dvc", "add", "-q", "data/raw/drawn")
    project.commit("two images")
    project.run("dvc", "push", "-q")
    return project


def names(project: Project) -> set[str]:
    return {path.name for path in (project.path / "data/raw/drawn").glob("*")}


def test_a_clone_pulls_the_images_and_git_holds_only_their_description(drawn: Project, tmp_path: Path) -> None:
    assert [name for name in drawn.git("ls-files").split() if name.startswith("data/")] == ["data/raw/drawn.dvc"]
    drawn.git("clone", "-q", ".", str(tmp_path / "clone"))
    clone = Project(tmp_path / "clone")
    clone.run("dvc", "pull", "-q")
    assert names(clone) == {"1.png", "2.png"}


def test_an_older_commit_restores_its_images(drawn: Project) -> None:
    (drawn.path / "data/raw/drawn/3.png").write_text("3.png")
    drawn.run("dvc", "add", "-q", "data/raw/drawn")
    drawn.commit("three images")
    drawn.git("checkout", "-q", "HEAD~")
    drawn.run("dvc", "checkout", "-q")
    assert names(drawn) == {"1.png", "2.png"}
