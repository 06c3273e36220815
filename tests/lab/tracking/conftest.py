"""A repository with results, and the address of a server that does not answer."""

import shutil
from pathlib import Path

import pytest

from lab.experiment import dvcfile
from tests.lab.tracking.repository import repository
from tests.lab.tracking.server import free_port


@pytest.fixture
def root(first_publication: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, in a folder whose name has a space, with a store without runs of the experiment ddpm."""
    folder = tmp_path / "my experiments"
    folder.mkdir()
    repository(folder)
    shutil.copy(first_publication[0], folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(dvcfile, "ROOT", folder)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return folder


@pytest.fixture
def down() -> str:
    """The address of a server that does not run."""
    return f"http://127.0.0.1:{free_port()}"
