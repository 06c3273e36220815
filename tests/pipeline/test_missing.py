"""Errors name missing requirements: git, a commit, the package of a remote, results of the present code."""

import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.pipeline.project import Project


def error(project: Project, *command: str, **environment: str) -> str:
    """The error output of a command that must fail."""
    result = project.run(*command, check=False, **environment)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr


def test_error_names_a_missing_repository_commit_or_package_of_a_remote(fresh: Project) -> None:
    fresh.run("dvc", "remote", "add", "--default", "storage", "gs://bucket/folder")
    fresh.run("dvc", "repro", "prepare")
    assert "requires 'dvc-gs' to be installed" in error(fresh, "dvc", "push")
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


def flip(path: Path, position: int) -> None:
    """Flip one bit of a file, whose size and time stay the same, so that DVC takes it for intact."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[position] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_a_bit_flipped_in_an_input_is_one_line_whose_remedy_restores_it(reproduced: Project, tmp_path: Path) -> None:
    model, samples = "models/model.safetensors", "data/samples.safetensors"
    definition = yaml.safe_load((reproduced.path / "dvc.yaml").read_text())["stages"]
    commands = {
        model: ["ddpm", "generate", "--model", model, "--out", str(tmp_path / "a.png")],
        samples: [sys.executable, *definition["evaluate"]["cmd"].split()[1:]],
    }
    for name, command in commands.items():
        path = reproduced.path / name
        whole = path.read_bytes()
        flip(path, len(whole) - 5)
        message = error(reproduced, *command).splitlines()[-1]
        start, remedy, _, again, _ = message.split("`")
        assert start.endswith(f": {name} is damaged: its contents do not match its digest; ")
        assert again == f"dvc repro --force --single-item {'train' if name == model else 'sample'}"
        reproduced.run("sh", "-c", remedy)
        assert path.read_bytes() == whole
