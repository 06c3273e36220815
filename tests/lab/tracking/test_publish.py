"""The records in MLflow, against a store of SQLite in a repository of made-up results."""

import json
import os
import shutil
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from PIL import Image

from ddpm import files, tables
from ddpm.network import modelfile
from ddpm.params import Params, check
from ddpm.sampling import blocks
from ddpm.sampling.options import Options, settings
from lab.experiment import dvcfile, identity, journal
from lab.experiment import identity as experiment
from lab.tracking import live, publish, store
from tests.lab.tracking.server import free_port, running, serving
from tests.pipeline.project import environment

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")

ROOT = Path(__file__).parents[3]
CPU = "system/cpu_utilization_percentage"
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
    for name in ("dvc.yaml", "dvc.lock", "params.yaml"):
        shutil.copy(ROOT / name, folder / name)
    tables.write_points(folder / "reports/train.csv", POINTS, COLUMNS)
    tables.write_points(folder / "reports/snapshots.csv", SNAPSHOTS, ("step", "fid", "is"))
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
    monkeypatch.setattr(dvcfile, "ROOT", folder)
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
    return {
        path.relative_to(root / "mlartifacts").as_posix().split("/", 2)[2] for path in files_in(root / "mlartifacts")
    }


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def down() -> str:
    """The address of a server that is not there."""
    return f"http://127.0.0.1:{free_port()}"


def test_the_first_publication_prints_nothing(first_publication: tuple[Path, str]) -> None:
    assert first_publication[1] == ""
    assert not list(first_publication[0].parent.glob("mlflow.db.new*"))


def test_a_database_that_a_kill_left_half_made_is_not_the_store(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_publishing_thrice_gives_the_same_run_points_and_artifacts(root: Path) -> None:
    seen = []
    for _ in range(3):
        assert publish.publish(params())
        seen.append(([run.info.run_id for run in runs(root)], history(root, "loss"), artifacts(root)))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) == 1
    assert seen[0][1] == [(point["step"], point["loss"]) for point in POINTS]
    assert seen[0][2] == {"params.yaml", "dvc.lock", *(f"reports/{name}" for name in RECORDS)}


@pytest.mark.parametrize("changed", [("1.25", "1.125"), ("1.25", "2.5"), ("m" * 64, "n" * 64), ("1.25", "Infinity")])
def test_other_results_of_the_same_experiment_replace_what_was_published(root: Path, changed: tuple[str, str]) -> None:
    assert publish.publish(params(), name="mine")
    [before] = runs(root)
    edit(root / "reports/metrics.json", lambda text: text.replace(*changed))
    assert publish.publish(params())
    [after] = runs(root)
    assert (after.info.run_name, after.info.run_id == before.info.run_id) == ("mine", False)
    assert publish.publish(params())
    assert [run.info.run_id for run in runs(root)] == [after.info.run_id]
    fid = json.loads((root / "reports/metrics.json").read_text())["classifier"]["fid"]
    assert after.data.metrics["classifier.fid"] == min(fid, sys.float_info.max)
    assert len(history(root, "classifier.fid")) == 1


def test_a_number_that_is_none_is_no_other_result(root: Path) -> None:
    edit(root / "reports/metrics.json", lambda text: text.replace("1.25", "NaN"))
    assert publish.publish(params())
    before = [run.info.run_id for run in runs(root)]
    assert publish.publish(params())
    assert [run.info.run_id for run in runs(root)] == before


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


def test_a_published_run_is_finished_and_has_numbers_parameters_and_tags(root: Path) -> None:
    assert publish.publish(params())
    [run] = runs(root)
    fingerprint = identity.fingerprint(DIGEST)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == fingerprint[:8]
    metrics = run.data.metrics
    assert metrics["classifier.fid"] == 1.25
    assert (metrics["likelihood.bits_per_dim"], metrics["snapshots.best_step"]) == (3.5, 100)
    assert not [key for key in metrics if key.startswith("protocol")]
    assert run.data.tags["ddpm.model"] == "m" * 64
    assert run.data.tags[run.EXTRACTOR] == "e" * 64
    assert run.data.tags[run.FINGERPRINT] == fingerprint


def test_the_lock_of_the_stages_behind_the_results_is_an_artifact(root: Path) -> None:
    assert publish.publish(params())
    [path] = (root / "mlartifacts").rglob("dvc.lock")
    entries, whole = yaml.safe_load(path.read_text()), yaml.safe_load((root / "dvc.lock").read_text())
    assert entries["schema"] == whole["schema"]
    assert entries["stages"] == {name: whole["stages"][name] for name in identity.MEASURED}
    edit(root / "dvc.lock", lambda text: text.partition("  report:")[0])  # as stage report itself finds it
    assert publish.publish(params())
    assert yaml.safe_load(path.read_text()) == entries


def test_durations_and_the_trainings_machine_are_tags_also_of_a_restored_training(root: Path) -> None:
    journal.record("train", dvcfile.observed("train"), 61.5)
    assert publish.publish(params())
    tags = runs(root)[0].data.tags
    assert tags["seconds.train"] == "61.5"
    assert {key: tags[key] for key in journal.machine()} == journal.machine()


def test_stage_report_says_what_dvc_restored_and_publishing_by_hand_leaves_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "_dvc_process", lambda: None)  # dvc may run the tests
    assert publish.publish(params())
    assert "dvc.restored" not in runs(root)[0].data.tags
    for restored, expected in (([], "none"), (["prepare", "train"], "prepare train"), (None, "prepare train")):
        monkeypatch.setattr(journal, "restored", lambda _, restored=restored: restored)
        assert publish.publish(params())
        assert runs(root)[0].data.tags["dvc.restored"] == expected


def test_an_experiment_that_dvc_keeps_has_its_own_origin(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "_git", lambda _, *words: " ".join(words))
    assert publish.publish(params(), Path(), "puffy-daks", "c0ffee")
    tags = runs(root)[0].data.tags
    assert (tags["dvc.experiment"], tags["mlflow.source.git.commit"]) == ("puffy-daks", "c0ffee")
    assert tags["dvc.baseline"] == "rev-parse c0ffee^"
    assert "git.dirty" not in tags


def test_snapshots_are_a_curve_over_steps_however_often_they_are_published(root: Path) -> None:
    for _ in range(2):
        assert publish.publish(params())
        assert history(root, "snapshot.fid") == [(50, 5.0), (100, 2.5)]
        assert history(root, "snapshot.is") == [(50, 3.0), (100, 4.0)]


def test_an_experiment_from_before_there_were_snapshots_is_published_too(root: Path) -> None:
    (root / "reports/snapshots.csv").unlink()
    assert publish.publish(params())
    assert history(root, "snapshot.fid") == []
    assert runs(root)[0].info.status == "FINISHED"


def test_parameters_are_flat_and_keep_their_types(root: Path) -> None:
    edit(Path("params.yaml"), lambda text: text.replace("learning_rate: 1.0e-3", "learning_rate: 1.0e-5"))
    assert publish.publish(params())
    shown = runs(root)[0].data.params
    expected = identity.params()
    assert {k: v if isinstance(expected[k], str) else json.loads(v) for k, v in shown.items()} == expected
    assert float(shown["train.learning_rate"]) == 1e-5
    assert (shown["data.path"], shown["sample.clip"], shown["network.multipliers"]) == ("null", "true", "[1, 2]")
    assert shown["evaluate.classifier.channels"] == "32"
    assert not [key for key in shown if key.startswith("tracking.") or key == "runtime.device"]


@pytest.mark.usefixtures("root")
def test_parameters_code_and_data_make_another_run_and_the_report_does_not() -> None:
    first = identity.fingerprint(DIGEST)
    edit(Path("stages/report.py"), lambda text: text + "# edited\n")
    edit(Path("params.yaml"), lambda text: text.replace("experiment: ddpm", "experiment: other"))
    assert identity.fingerprint(DIGEST) == first
    assert identity.fingerprint("e" * 64) != first
    edit(Path("params.yaml"), lambda text: text.replace("steps: 50 ", "steps: 49 "))
    second = identity.fingerprint(DIGEST)
    edit(Path("ddpm/training/loop.py"), lambda text: text + "# edited\n")
    assert len({first, second, identity.fingerprint(DIGEST)}) == 3


def test_two_experiments_are_two_runs_of_one_mlflow_experiment(root: Path) -> None:
    assert publish.publish(params())
    edit(Path("params.yaml"), lambda text: text.replace("eta: 1.0", "eta: 0.5"))
    assert publish.publish(params())
    assert sorted(run.data.params["sample.eta"] for run in runs(root)) == ["0.5", "1.0"]


def test_a_deleted_run_is_recreated_with_its_full_curve(root: Path) -> None:
    assert publish.publish(params())
    deleted = runs(root)[0].info.run_id
    client(root).delete_run(deleted)
    assert publish.publish(params())
    assert runs(root)[0].info.run_id != deleted
    assert len(history(root, "loss")) == len(POINTS)


def test_a_deleted_experiment_is_restored(root: Path) -> None:
    assert publish.publish(params())
    store = client(root)
    store.delete_experiment(store.get_experiment_by_name("ddpm").experiment_id)  # type: ignore[union-attr]
    assert publish.publish(params())
    assert store.get_experiment_by_name("ddpm").lifecycle_stage == "active"  # type: ignore[union-attr]


def test_artifacts_lie_in_the_repository_also_where_its_path_has_a_space(root: Path) -> None:
    assert publish.publish(params())
    [run] = runs(root)
    assert [item.path for item in client(root).list_artifacts(run.info.run_id)] == [
        "dvc.lock",
        "params.yaml",
        "reports",
    ]
    assert {path.name for path in files_in(root / "mlartifacts")} >= {"params.yaml", "train.csv"}


def follow(points: list[dict[str, float]]) -> None:
    """A training of the given points, as the stage reports it."""
    with live.live(params(), DIGEST) as run:
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
    assert {run.FINGERPRINT, "torch", "python", "device"} <= set(run.data.tags)
    assert artifacts(root) == {"previews/00000150.png"}


def test_use_of_the_machine_is_sampled_while_training_and_goes_on_when_it_resumes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    follow(POINTS[:1])
    assert [step for step, _ in history(root, CPU)] == [0]
    monkeypatch.setattr(live, "_INTERVAL", 0.02)
    with live.live(params(), DIGEST):
        wait(lambda: len(history(root, CPU)) > 3)
    sampled = history(root, CPU)
    assert [step for step, _ in sampled] == list(range(len(sampled)))
    assert publish.publish(params())
    assert history(root, CPU) == sampled


def test_publishing_after_a_live_run_completes_it_and_repeats_no_point(root: Path) -> None:
    follow(POINTS[:2])
    [before] = runs(root)
    assert publish.publish(params())
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
    run = live.Live(params().tracking, identity.fingerprint(DIGEST), {})
    run.log(POINTS[0], images_per_second=1.0)  # and never closed
    wait(lambda: bool(runs(root) and history(root, "images_per_second")))
    assert [run.info.status for run in runs(root)] == ["RUNNING"]
    assert publish.publish(params())
    assert [run.info.status for run in runs(root)] == ["FINISHED"]


def test_dvcs_name_of_the_experiment_names_the_run_and_stays(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-daks")
    assert publish.publish(params())
    monkeypatch.delenv("DVC_EXP_NAME")
    assert publish.publish(params())
    assert [run.info.run_name for run in runs(root)] == ["puffy-daks"]
    assert publish.publish(params(), name="by-hand")
    assert [run.info.run_name for run in runs(root)] == ["by-hand"]


def test_another_folder_is_published_as_what_its_own_files_say(root: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = repository(tmp_path / "other")
    edit(other / "params.yaml", lambda text: text.replace("eta: 1.0", "eta: 0.25"))
    assert publish.publish(params(), other, "other")
    [run] = runs(root)
    assert (run.info.run_name, run.data.params["sample.eta"]) == ("other", "0.25")
    assert "eta: 0.25" in (root / "mlartifacts" / run.info.run_id / "artifacts/params.yaml").read_text()


def trained(root: Path, model_file: Path) -> str:
    """The repository's model is this file; return its digest."""
    (root / "models").mkdir()
    shutil.copy(model_file, root / "models/model.safetensors")
    digest = str(files.read_metadata(model_file)["digest"])
    edit(root / "reports/metrics.json", lambda text: text.replace("m" * 64, digest))
    return digest


def test_the_model_is_logged_on_demand_and_once(
    root: Path, model_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = trained(root, model_file)
    assert publish.publish(params())
    assert not [path for path in artifacts(root) if path.startswith("model")]
    assert runs(root)[0].data.tags["ddpm.model"] == digest
    seen = []
    for _ in range(2):
        assert publish.publish(params(log_model=True))
        assert {"models/model.safetensors", "model/MLmodel", "model/artifacts/model.safetensors"} < artifacts(root)
        [written] = (root / "mlartifacts").rglob("MLmodel")
        seen.append((artifacts(root), written.read_text()))  # with a random name and the time
    assert seen[0] == seen[1]
    assert capfd.readouterr() == ("", "")


def test_a_model_that_the_results_do_not_come_from_is_not_logged(root: Path, model_file: Path) -> None:
    trained(root, model_file)
    edit(root / "reports/metrics.json", lambda _: json.dumps(METRICS))
    assert publish.publish(params(log_model=True))
    assert not [path for path in artifacts(root) if path.startswith("model")]


def test_a_logged_model_is_served_over_http(root: Path, model_file: Path) -> None:
    trained(root, model_file)
    assert publish.publish(params(log_model=True))
    [run] = runs(root)
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = ["mlflow", "models", "serve", "--model-uri", f"runs:/{run.info.run_id}/model"]
    command += ["--env-manager", "local", "--port", str(port)]
    body = json.dumps({"inputs": {"count": 3, "steps": 4, "seed": 5, "label": None}}).encode()
    asked = urllib.request.Request(f"{address}/invocations", body, {"Content-Type": "application/json"})
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{root}/mlflow.db"}
    with running(command, f"{address}/ping", environment() | store), urllib.request.urlopen(asked) as answer:
        served = json.load(answer)["predictions"]
    model = modelfile.load(model_file)
    chosen = settings(model.description, Options(count=3, steps=4, seed=5))
    assert served == blocks.draw(model, chosen).permute(0, 2, 3, 1).tolist()


def test_the_setting_then_the_environment_then_the_repository_decide_the_store(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.uri(params().tracking) == f"sqlite:///{root}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert store.uri(params().tracking) == "http://environment"
    assert store.uri(params(uri="http://setting").tracking) == "http://setting"


def test_a_relative_path_of_a_store_is_the_repositorys_wherever_a_stage_runs(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert store.uri(params(uri="sqlite:///a/runs.db").tracking) == f"sqlite:///{root}/a/runs.db"
    assert store.uri(params(uri="sqlite:////a/runs.db").tracking) == "sqlite:////a/runs.db"


def test_a_server_that_is_down_costs_a_training_one_line_and_little_time(
    root: Path, down: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    with live.live(params(uri=down), DIGEST) as run:
        run.log(POINTS[0], images_per_second=1.0)
    assert time.monotonic() - start < 10.5
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("MLflow could not be written (")
    assert line.endswith("; `ddpm publish` fills it in later")
    assert runs(root) == []


@pytest.mark.usefixtures("root")
def test_a_server_that_is_down_is_a_warning_of_publish(down: str, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    assert publish.publish(params(uri=down)) is False
    assert time.monotonic() - start < 10
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("lasts", ["experiments/get-by-name", "runs/log-batch"])
@pytest.mark.usefixtures("root")
def test_a_server_that_falls_silent_costs_training_and_publishing_one_call_each(
    lasts: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # and one more try
    with serving(lasts) as uri:
        start = time.monotonic()
        with live.live(params(uri=uri), DIGEST) as run:
            for point in POINTS:
                run.log(point, images_per_second=1.0)
        assert publish.publish(params(uri=uri)) is False
        assert time.monotonic() - start < 6
    lines = capsys.readouterr().err.splitlines()
    assert ["`ddpm publish` fills it in later" in line for line in lines] == [True, True]


@pytest.mark.usefixtures("root")
def test_the_usual_call_that_is_not_answered_takes_less_than_ten_seconds(
    down: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    assert publish.publish(params(uri=down)) is False
    tries = 1 + int(os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"])
    assert tries * int(os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"]) < 9


def test_a_training_does_not_wait_long_for_a_server_at_its_end(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_PATIENCE", 0.2)
    with serving("experiments/get-by-name") as uri:
        start = time.monotonic()
        with live.live(params(uri=uri), DIGEST):
            pass
        assert time.monotonic() - start < 1
    assert runs(root) == []


def test_without_results_publishing_is_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "reports/metrics.json").unlink()
    assert publish.publish(params()) is False
    assert "reports/metrics.json" in capsys.readouterr().err
    assert runs(root) == []
