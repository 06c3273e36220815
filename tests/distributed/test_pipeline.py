"""Whole experiments by 1, 2 and 4 processes, through DVC."""

from pathlib import Path

import pytest

from tests.distributed.conftest import digests
from tests.pipeline.project import Project, create


def reproduce(path: Path, processes: int) -> tuple[Project, str]:
    """The project after `dvc repro`, and what it has printed."""
    project = create(path)
    launcher = f"torchrun --standalone --nproc-per-node={processes}" if processes > 1 else None
    project.set(train__accumulate=4, sample__batch_size=16, runtime__device="cpu", runtime__launcher=launcher)
    return project, project.run("dvc", "repro").stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The experiment by one process."""
    return reproduce(tmp_path_factory.mktemp("alone") / "a project", 1)[0]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_every_result_has_the_bytes_of_one_process(processes: int, alone: Project, tmp_path: Path) -> None:
    project, said = reproduce(tmp_path / "a project", processes)
    assert f"{processes} processes (the same bytes as one)" in said
    expected, found = digests(alone), digests(project)
    differing = {name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)}
    # The report shows runtime.launcher, and the run has its own address in MLflow.
    assert differing <= {"reports/index.html", "reports/report.md"}, differing
    assert {"models/model.safetensors", "data/samples.safetensors", "data/reference.safetensors"} <= found.keys()
    lock = (project.path / "dvc.lock").read_text()
    assert lock.partition("  report:")[0] == (alone.path / "dvc.lock").read_text().partition("  report:")[0]
