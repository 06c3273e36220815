"""The address of the store, the client, and the experiment of MLflow."""

import json
import os
from pathlib import Path

import pytest

from lab.experiment import dvcfile
from lab.tracking import publish, store
from lab.tracking.records import Records
from tests.lab.tracking.repository import artifacts, client, params, runs

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


def move(root: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    moved = root.rename(root.with_name(name))
    monkeypatch.chdir(moved)
    monkeypatch.setattr(dvcfile, "ROOT", moved)
    return moved


def test_a_moved_repository_writes_nothing_to_the_old_folder_and_names_the_remedy(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert publish.publish(params())
    moved = move(root, "moved", monkeypatch)
    assert publish.publish(params()) is None
    [line] = capsys.readouterr().err.splitlines()
    place = f"mlflow.db keeps its artifacts in {(root / 'mlartifacts').as_uri()}"
    assert line.startswith(f"MLflow could not be written: {place}, because this repository was moved or copied: ")
    assert "move it back; or rename mlflow.db and run `ddpm publish --all`" in line
    assert not root.exists()
    (moved / "mlflow.db").unlink()
    moved = move(moved, "moved again", monkeypatch)  # this process still has the other database open
    assert publish.publish(params())
    [run] = runs(moved)
    assert run.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())


@pytest.mark.usefixtures("root")
def test_a_call_that_is_not_answered_takes_less_than_ten_seconds_by_default(
    down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    assert publish.publish(params(uri=down)) is None
    tries = 1 + int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
    assert tries * int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) < 9


def test_the_address_opens_a_view_of_runs_with_metrics_that_older_stores_get_too(root: Path) -> None:
    published = publish.publish(params())
    [run] = runs(root)
    found = client(root).get_experiment(run.info.experiment_id)
    assert published is not None
    assert published.address == (
        f"http://127.0.0.1:5000/#/experiments/{found.experiment_id}/runs"
        "?workflowType=machine_learning&viewStateShareKey=ddpm"
    )
    key = "mlflow.sharedViewState.ddpm"
    columns = json.loads(found.tags[key])["selectedColumns"]
    assert {"metrics.`classifier.fid`", "metrics.`train/loss`", "params.`sample.sampler`"} < set(columns)
    client(root).set_experiment_tag(found.experiment_id, key, "of an earlier version")
    assert Records(params().tracking).viewed() == found.experiment_id
    assert client(root).get_experiment(found.experiment_id).tags == found.tags


def test_the_address_of_a_server_has_no_password() -> None:
    address = store.address(params(uri="https://me:secret@server/mlflow/").tracking, "7")
    assert address.startswith("https://server/mlflow/#/experiments/7/runs?workflowType=machine_learning")
