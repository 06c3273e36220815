"""The address of the store, the client, and the experiment of MLflow."""

import os
from pathlib import Path

import pytest

from lab.experiment import dvcfile
from lab.tracking import publish, store
from tests.lab.tracking.repository import artifacts, client, edit, params, runs

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_the_first_publication_prints_nothing(first_publication: tuple[Path, str]) -> None:
    assert first_publication[1] == ""
    assert not list(first_publication[0].parent.glob("mlflow.db.new*"))


def test_a_database_that_a_kill_left_incomplete_is_not_the_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "mlflow.db").unlink()

    class Killed:
        def __init__(self, uri: str) -> None:
            Path(uri.removeprefix("sqlite:///")).write_bytes(b"half")
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mlflow.tracking.MlflowClient", Killed)
        with pytest.raises(KeyboardInterrupt):
            publish.publish(params())
    assert not (root / "mlflow.db").exists()


def test_the_setting_then_the_environment_then_the_repository_decide_the_store(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.uri(params().tracking) == f"sqlite:///{root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert store.uri(params().tracking) == "http://environment"
    assert store.uri(params(uri="http://setting").tracking) == "http://setting"


def test_a_relative_path_of_a_store_starts_at_the_repository_wherever_a_stage_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.uri(params(uri="sqlite:///a/runs.db").tracking) == f"sqlite:///{root}/a/runs.db"
    assert store.uri(params(uri="sqlite:////a/runs.db").tracking) == "sqlite:////a/runs.db"


def test_artifacts_are_in_the_repository_also_where_its_path_has_a_space(root: Path) -> None:
    assert publish.publish(params())
    [run] = runs(root)
    listed = [item.path for item in client(root).list_artifacts(run.info.run_id)]
    assert listed == ["dvc.lock", "params.yaml", "reports"]
    assert artifacts(root) >= {"params.yaml", "reports/train.csv"}


def test_a_deleted_experiment_is_restored(root: Path) -> None:
    assert publish.publish(params())
    store = client(root)
    store.delete_experiment(store.get_experiment_by_name("ddpm").experiment_id)  # type: ignore[union-attr]
    assert publish.publish(params())
    assert store.get_experiment_by_name("ddpm").lifecycle_stage == "active"  # type: ignore[union-attr]


def test_the_artifacts_of_a_repository_that_was_moved_are_where_it_is(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert publish.publish(params())
    [before] = runs(root)
    moved = root.rename(root.with_name("moved"))
    monkeypatch.chdir(moved)
    monkeypatch.setattr(dvcfile, "ROOT", moved)
    edit(moved / "params.yaml", lambda text: text.replace("eta: 1.0", "eta: 0.25"))
    assert publish.publish(params())
    assert not root.exists()
    new, old = runs(moved)
    assert (old.info.run_id, old.info.artifact_uri.split("/")[-4]) == (before.info.run_id, "moved")
    for run in (new, old):
        brought = client(moved).download_artifacts(run.info.run_id, "reports/train.csv", str(tmp_path))
        assert Path(brought).read_bytes() == (moved / "reports/train.csv").read_bytes()


@pytest.mark.usefixtures("root")
def test_a_call_that_is_not_answered_takes_less_than_ten_seconds_by_default(
    down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    assert publish.publish(params(uri=down)) is False
    tries = 1 + int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
    assert tries * int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) < 9
