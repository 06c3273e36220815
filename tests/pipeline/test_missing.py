"""Errors name missing requirements: git, a commit, the package of a remote, results of the present code."""

import shutil
from pathlib import Path

import pytest

from tests.pipeline.project import Project


def error(project: Project, *command: str, **environment: str) -> str:
    """The error output of a command that must fail."""
    result = project.run(*command, check=False, **environment)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr


def test_error_names_a_missing_repository_commit_or_package_of_a_remote(fresh: Project) -> None:
    fresh.run("dvc", "remote", "add", "--default", "storage", "s3://bucket/folder")
    fresh.run("dvc", "repro", "prepare")
    assert "requires 'dvc-s3' to be installed" in error(fresh, "dvc", "push")
    shutil.rmtree(fresh.path / ".git")
    assert "is not a git repository" in error(fresh, "dvc", "repro", "prepare")
    fresh.git("init", "-q")
    assert "Empty git repo" in error(fresh, "dvc", "exp", "run", "prepare")
    assert "Running stage" not in fresh.run("dvc", "repro", "prepare").stdout


@pytest.mark.parametrize("where", ["params.yaml", "ddpm/training/loop.py"])
def test_results_of_other_parameters_or_code_are_not_published(reproduced: Project, where: str) -> None:
    path = reproduced.path / where
    text = path.read_text()
    path.write_text(text.replace("eta: 1.0", "eta: 0.5") if path.suffix == ".yaml" else text + "# edited\n")
    message = error(reproduced, "ddpm", "publish")
    path.write_text(text)
    stage, changed = {".yaml": ("sample", "sample"), ".py": ("train", "ddpm/training")}[path.suffix]
    assert message.startswith("ddpm: the results in reports/ are not those of the parameters and the code here")
    assert message.endswith(f":\n  {stage}: {changed} has changed\nrun `dvc repro`\n")


def test_edited_results_are_not_published(reproduced: Project) -> None:
    path = reproduced.path / "reports/metrics.json"
    text = path.read_text()
    path.write_text(text.replace("1", "2"))
    message = error(reproduced, "ddpm", "publish")
    path.write_text(text)
    assert "\n  evaluate: reports/metrics.json has changed\n" in message


def test_a_fresh_clone_without_data_can_publish(reproduced: Project, tmp_path: Path) -> None:
    reproduced.git("clone", "-q", ".", str(tmp_path / "clone"))
    published = Project(tmp_path / "clone").run("ddpm", "publish")
    assert published.stdout.startswith("published to sqlite:///")
