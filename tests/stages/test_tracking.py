"""The records in MLflow, against a store of SQLite in a repository of made-up results."""

import json
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml
from PIL import Image

from ddpm.params import Params, check
from ddpm.reporting import curve
from stages import experiment, pipeline, tracking

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ROOT = Path(__file__).parents[2]
COLUMNS = ("step", "loss", "gradient_norm", "learning_rate")
POINTS = [{"step": 50 * n, "loss": 1 / n, "gradient_norm": 2 / n, "learning_rate": 0.001} for n in range(1, 4)]
RECORDS = ("train.csv", "snapshots.csv", "metrics.json", "report.md")
SNAPSHOTS = [{"step": 50 * n, "fid": 5 / n, "is": 2.0 + n} for n in range(1, 3)]
DIGEST = "d" * 64
METRICS = {
    "classifier": {"fid": 1.25, "fid_floor": 0.5},
    "likelihood": {"bits_per_dim": 3.5, "rate": 1.5},
    "snapshots": {"best_fid": 2.5, "best_step": 100},
    "protocol": {
        "train_digest": DIGEST,
        "model_digest": "m" * 64,
        "extractor_digest": "e" * 64,
        "samples": 64,
        "data_pinned": True,
        "warnings": [],
        "sample": {"sampler": "ddim", "eta": 0.5},
    },
}


def repository(folder: Path) -> Path:
    """An experiment's repository whose stages have run."""
    for name in ("ddpm", "stages"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    curve.write(folder / "reports/train.csv", POINTS, COLUMNS)
    curve.write(folder / "reports/snapshots.csv", SNAPSHOTS, ("step", "fid", "is"))
    (folder / "reports/metrics.json").write_text(json.dumps(METRICS))
    (folder / "reports/report.md").write_text("# Report\n")
    return folder


@pytest.fixture
def root(first_publication: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository, in a folder whose name has a space, with a store that holds nothing of it."""
    folder = tmp_path / "my experiments"
    folder.mkdir()
    repository(folder)
    shutil.copy(first_publication[0], folder / "mlflow.db")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(pipeline, "ROOT", folder)
    for name in ("MLFLOW_TRACKING_URI", "DVC_EXP_NAME", "DVC_EXP_BASELINE_REV"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return folder


def params(**changed: Any) -> Params:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["tracking"] |= {"uri": None, "experiment": "ddpm"} | changed
    return check(values)


def client(root: Path) -> "MlflowClient":
    from mlflow.tracking import MlflowClient

    return MlflowClient(f"sqlite:///{root}/mlflow.db")


def runs(root: Path) -> list["Run"]:
    store = client(root)
    found = store.get_experiment_by_name("ddpm")
    return list(store.search_runs([found.experiment_id])) if found else []


def history(root: Path, key: str) -> list[tuple[int, float]]:
    [run] = runs(root)
    return sorted((point.step, point.value) for point in client(root).get_metric_history(run.info.run_id, key))


def artifacts(root: Path) -> set[str]:
    return {path.relative_to(root / "mlartifacts").as_posix().split("/", 2)[2] for path in files(root / "mlartifacts")}


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


@pytest.fixture
def down() -> str:
    """The address of a server that is not there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_the_first_publication_prints_nothing(first_publication: tuple[Path, str]) -> None:
    assert first_publication[1] == ""


def test_publishing_thrice_gives_the_same_run_points_and_artifacts(root: Path) -> None:
    seen = []
    for _ in range(3):
        assert tracking.publish(params())
        seen.append(([run.info.run_id for run in runs(root)], history(root, "loss"), artifacts(root)))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) == 1
    assert seen[0][1] == [(point["step"], point["loss"]) for point in POINTS]
    assert seen[0][2] == {"params.yaml", *(f"reports/{name}" for name in RECORDS)}


def test_a_published_run_is_finished_and_has_numbers_parameters_and_tags(root: Path) -> None:
    assert tracking.publish(params())
    [run] = runs(root)
    fingerprint = experiment.fingerprint(DIGEST)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == fingerprint[:8]
    metrics = run.data.metrics
    assert metrics["classifier.fid"] == 1.25
    assert (metrics["likelihood.bits_per_dim"], metrics["snapshots.best_step"]) == (3.5, 100)
    assert not [key for key in metrics if key.startswith("protocol")]
    assert run.data.tags["ddpm.model"] == "m" * 64
    assert run.data.tags[tracking.EXTRACTOR] == "e" * 64
    assert run.data.tags[tracking.FINGERPRINT] == fingerprint


def test_snapshots_are_a_curve_over_steps_however_often_they_are_published(root: Path) -> None:
    for _ in range(2):
        assert tracking.publish(params())
        assert history(root, "snapshot.fid") == [(50, 5.0), (100, 2.5)]
        assert history(root, "snapshot.is") == [(50, 3.0), (100, 4.0)]


def test_an_experiment_from_before_there_were_snapshots_is_published_too(root: Path) -> None:
    (root / "reports/snapshots.csv").unlink()
    assert tracking.publish(params())
    assert history(root, "snapshot.fid") == []
    assert runs(root)[0].info.status == "FINISHED"


def test_parameters_are_flat_and_keep_their_types(root: Path) -> None:
    edit(Path("params.yaml"), lambda text: text.replace("learning_rate: 1.0e-3", "learning_rate: 1.0e-5"))
    assert tracking.publish(params())
    shown = runs(root)[0].data.params
    expected = experiment.params()
    assert {k: v if isinstance(expected[k], str) else json.loads(v) for k, v in shown.items()} == expected
    assert float(shown["train.learning_rate"]) == 1e-5
    assert (shown["data.path"], shown["sample.clip"], shown["network.multipliers"]) == ("null", "true", "[1, 2]")
    assert shown["evaluate.classifier.channels"] == "32"
    assert not [key for key in shown if key.startswith("tracking.") or key == "runtime.device"]


@pytest.mark.usefixtures("root")
def test_parameters_code_and_data_make_another_run_and_the_report_does_not() -> None:
    first = experiment.fingerprint(DIGEST)
    edit(Path("stages/report.py"), lambda text: text + "# edited\n")
    edit(Path("params.yaml"), lambda text: text.replace("experiment: ddpm", "experiment: other"))
    assert experiment.fingerprint(DIGEST) == first
    assert experiment.fingerprint("e" * 64) != first
    edit(Path("params.yaml"), lambda text: text.replace("steps: 50 ", "steps: 49 "))
    second = experiment.fingerprint(DIGEST)
    edit(Path("ddpm/training/ema.py"), lambda text: text + "# edited\n")
    assert len({first, second, experiment.fingerprint(DIGEST)}) == 3


def test_two_experiments_are_two_runs_of_one_mlflow_experiment(root: Path) -> None:
    assert tracking.publish(params())
    edit(Path("params.yaml"), lambda text: text.replace("eta: 1.0", "eta: 0.5"))
    assert tracking.publish(params())
    assert sorted(run.data.params["sample.eta"] for run in runs(root)) == ["0.5", "1.0"]


def test_a_deleted_run_is_recreated_with_its_full_curve(root: Path) -> None:
    assert tracking.publish(params())
    deleted = runs(root)[0].info.run_id
    client(root).delete_run(deleted)
    assert tracking.publish(params())
    assert runs(root)[0].info.run_id != deleted
    assert len(history(root, "loss")) == len(POINTS)


def test_a_deleted_experiment_is_restored(root: Path) -> None:
    assert tracking.publish(params())
    store = client(root)
    store.delete_experiment(store.get_experiment_by_name("ddpm").experiment_id)  # type: ignore[union-attr]
    assert tracking.publish(params())
    assert store.get_experiment_by_name("ddpm").lifecycle_stage == "active"  # type: ignore[union-attr]


def test_artifacts_lie_in_the_repository_also_where_its_path_has_a_space(root: Path) -> None:
    assert tracking.publish(params())
    [run] = runs(root)
    assert [item.path for item in client(root).list_artifacts(run.info.run_id)] == ["params.yaml", "reports"]
    assert {path.name for path in files(root / "mlartifacts")} >= {"params.yaml", "train.csv"}


def follow(points: list[dict[str, float]]) -> None:
    """A training of the given points, as the stage reports it."""
    with tracking.live(params(), DIGEST, torch.device("cpu")) as run:
        for point in points:
            run.log(point, images_per_second=100.0)
        run.image("previews/00000150.png", Image.new("L", (4, 4)))


def test_a_live_run_has_points_previews_parameters_and_tags(root: Path) -> None:
    follow(POINTS)
    [run] = runs(root)
    assert run.info.status == "RUNNING"
    assert history(root, "loss") == [(point["step"], point["loss"]) for point in POINTS]
    assert history(root, "images_per_second") == [(point["step"], 100.0) for point in POINTS]
    assert json.loads(run.data.params["train.steps"]) == params().train.steps
    assert {tracking.FINGERPRINT, "torch", "python", "device"} <= set(run.data.tags)
    assert artifacts(root) == {"previews/00000150.png"}


def test_publishing_after_a_live_run_completes_it_and_repeats_no_point(root: Path) -> None:
    follow(POINTS[:2])
    [before] = runs(root)
    assert tracking.publish(params())
    [after] = runs(root)
    assert after.info.run_id == before.info.run_id
    assert (before.info.status, after.info.status) == ("RUNNING", "FINISHED")
    assert history(root, "loss") == [(point["step"], point["loss"]) for point in POINTS]
    assert artifacts(root) > {"previews/00000150.png", "params.yaml"}


def test_a_resumed_training_repeats_no_point_of_its_curve(root: Path) -> None:
    follow(POINTS[:2])
    follow(POINTS[1:])
    assert history(root, "loss") == [(point["step"], point["loss"]) for point in POINTS]
    assert artifacts(root) == {"previews/00000150.png"}


def test_a_training_that_fails_leaves_a_failed_run_and_its_error(root: Path) -> None:
    with pytest.raises(KeyError, match="step"):
        follow([POINTS[0], {"loss": 0.5}])
    [failed] = runs(root)
    assert failed.info.status == "FAILED"
    assert len(history(root, "loss")) == 1


def test_a_killed_training_that_stayed_running_is_healed_by_publishing(root: Path) -> None:
    run = tracking.Live(params().tracking, experiment.fingerprint(DIGEST), {})
    run.log(POINTS[0], images_per_second=1.0)  # and never closed
    deadline = time.monotonic() + 10
    while not (runs(root) and history(root, "images_per_second")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [run.info.status for run in runs(root)] == ["RUNNING"]
    assert tracking.publish(params())
    assert [run.info.status for run in runs(root)] == ["FINISHED"]


def test_dvcs_name_of_the_experiment_names_the_run_and_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-daks")
    assert tracking.publish(params())
    monkeypatch.delenv("DVC_EXP_NAME")
    assert tracking.publish(params())
    assert [run.info.run_name for run in runs(root)] == ["puffy-daks"]
    assert tracking.publish(params(), name="by-hand")
    assert [run.info.run_name for run in runs(root)] == ["by-hand"]


def test_another_folder_is_published_as_what_its_own_files_say(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = repository(tmp_path / "other")
    edit(other / "params.yaml", lambda text: text.replace("eta: 1.0", "eta: 0.25"))
    assert tracking.publish(params(), other, "other")
    [run] = runs(root)
    assert (run.info.run_name, run.data.params["sample.eta"]) == ("other", "0.25")
    assert "eta: 0.25" in (root / "mlartifacts" / run.info.run_id / "artifacts/params.yaml").read_text()


@pytest.mark.parametrize("wanted", [False, True])
def test_the_model_file_is_uploaded_only_on_demand(wanted: bool, root: Path) -> None:
    (root / "models").mkdir()
    (root / "models/model.safetensors").write_bytes(b"weights")
    assert tracking.publish(params(log_model=wanted))
    assert ("models/model.safetensors" in artifacts(root)) == wanted


def test_the_setting_then_the_environment_then_the_repository_decide_the_store(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking.store_uri(params().tracking) == f"sqlite:///{root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert tracking.store_uri(params().tracking) == "http://environment"
    assert tracking.store_uri(params(uri="http://setting").tracking) == "http://setting"


def test_a_server_that_is_down_costs_a_training_one_line_and_little_time(
    root: Path, down: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    with tracking.live(params(uri=down), DIGEST, torch.device("cpu")) as run:
        run.log(POINTS[0], images_per_second=1.0)
    assert time.monotonic() - start < 10.5
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("MLflow could not be written (")
    assert line.endswith("; `ddpm publish` fills it in later")
    assert runs(root) == []


@pytest.mark.usefixtures("root")
def test_a_server_that_is_down_is_a_warning_of_publish(down: str, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    assert tracking.publish(params(uri=down)) is False
    assert time.monotonic() - start < 10
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_without_results_publishing_is_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "reports/metrics.json").unlink()
    assert tracking.publish(params()) is False
    assert "reports/metrics.json" in capsys.readouterr().err
    assert runs(root) == []
