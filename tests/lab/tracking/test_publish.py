"""An experiment's files in its MLflow run, against a store of SQLite in a repository of made-up results."""

import json
import shutil
import time
import urllib.request
from pathlib import Path

import pytest
import yaml

from ddpm import files
from ddpm.network import modelfile
from ddpm.sampling import blocks
from ddpm.sampling.options import Options, settings
from lab.experiment import dvcfile, identity, journal
from lab.tracking import publish
from lab.tracking.run import EXTRACTOR, FINGERPRINT
from tests.lab.tracking.repository import (
    DIGEST,
    METRICS,
    POINTS,
    PROTOCOL,
    REPORTS,
    artifacts,
    edit,
    history,
    params,
    repository,
    runs,
)
from tests.lab.tracking.server import free_port, listening, running
from tests.pipeline.project import environment

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_publishing_again_adds_no_run_point_or_artifact(root: Path) -> None:
    seen = []
    for _ in range(3):
        assert publish.publish(params())
        seen.append(([run.info.run_id for run in runs(root)], history(root, "train/loss"), artifacts(root)))
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0][0]) == 1
    assert seen[0][1] == [(point["step"], point["loss"]) for point in POINTS]
    assert seen[0][2] == {"params.yaml", "dvc.lock", *(f"reports/{name}" for name in REPORTS)}


def test_a_published_run_is_finished_and_has_numbers_parameters_and_tags(root: Path) -> None:
    assert publish.publish(params())
    [run] = runs(root)
    fingerprint = identity.fingerprint(DIGEST)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"digits-ddim50-{fingerprint[:4]}"
    metrics = run.data.metrics
    assert metrics["classifier.fid"] == 1.25
    assert (metrics["likelihood.bits_per_dim"], metrics["snapshots.best_step"]) == (3.5, 100)
    assert not [key for key in metrics if key.startswith("protocol")]
    assert run.data.tags["ddpm.model"] == "m" * 64
    assert run.data.tags[EXTRACTOR] == "e" * 64
    assert (run.data.tags["extractor"], run.data.tags["network_parameters"]) == ("classifier", "1234")
    assert run.data.tags[FINGERPRINT] == fingerprint


def test_warnings_are_a_tag_and_a_useless_extractor_is_a_metric(root: Path) -> None:
    measured = {**METRICS, "classifier": METRICS["classifier"] | {"useless": 1.0}}
    (root / "reports/metrics.json").write_text(json.dumps(measured))
    (root / "reports/protocol.json").write_text(json.dumps(PROTOCOL | {"warnings": ["it is useless", "too few"]}))
    assert publish.publish(params())
    [run] = runs(root)
    assert run.data.tags["warnings"] == "it is useless\ntoo few"
    assert run.data.metrics["classifier.useless"] == 1


def test_the_lock_of_the_stages_behind_the_results_is_an_artifact(root: Path) -> None:
    assert publish.publish(params())
    [path] = (root / "mlartifacts").rglob("dvc.lock")
    entries, whole = yaml.safe_load(path.read_text()), yaml.safe_load((root / "dvc.lock").read_text())
    assert entries["schema"] == whole["schema"]
    assert entries["stages"] == {name: whole["stages"][name] for name in identity.MEASURED}
    edit(root / "dvc.lock", lambda text: text.partition("  report:")[0])  # as stage report itself finds it
    assert publish.publish(params())
    assert yaml.safe_load(path.read_text()) == entries


def test_durations_and_the_machine_of_the_training_are_tags(root: Path) -> None:
    journal.record("train", dvcfile.observed("train"), 61.5)
    assert publish.publish(params())
    tags = runs(root)[0].data.tags
    assert tags["seconds.train"] == "61.5"
    assert {key: tags[key] for key in journal.machine()} == journal.machine()


def test_an_experiment_that_dvc_keeps_has_its_own_origin(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "git", lambda _, *words: " ".join(words))
    assert publish.publish(params(), Path(), "puffy-daks", "c0ffee")
    tags = runs(root)[0].data.tags
    assert (tags["dvc.experiment"], tags["mlflow.source.git.commit"]) == ("puffy-daks", "c0ffee")
    assert tags["dvc.baseline"] == "rev-parse c0ffee^"
    assert "git.dirty" not in tags


def test_snapshots_are_a_curve_over_steps_however_often_they_are_published(root: Path) -> None:
    for _ in range(2):
        assert publish.publish(params())
        assert history(root, "train/snapshots/fid") == [(50, 5.0), (100, 2.5)]
        assert history(root, "train/snapshots/is") == [(50, 3.0), (100, 4.0)]


def test_an_experiment_without_snapshots_is_published_too(root: Path) -> None:
    (root / "reports/snapshots.csv").unlink()
    assert publish.publish(params())
    assert history(root, "train/snapshots/fid") == []
    assert runs(root)[0].info.status == "FINISHED"


def test_another_folder_is_published_with_its_own_parameters(root: Path, tmp_path: Path) -> None:
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
    edit(root / "reports/protocol.json", lambda text: text.replace("m" * 64, digest))
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


def test_a_model_other_than_that_of_the_results_is_not_logged(root: Path, model_file: Path) -> None:
    trained(root, model_file)
    edit(root / "reports/protocol.json", lambda _: json.dumps(PROTOCOL))
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
    with running(command, f"{address}/ping", environment() | store) as process:
        assert listening(process) == {"127.0.0.1"}
        with urllib.request.urlopen(asked) as answer:
            served = json.load(answer)["predictions"]
    model = modelfile.load(model_file)
    chosen = settings(model.description, Options(count=3, steps=4, seed=5))
    assert served == blocks.draw(model, chosen).permute(0, 2, 3, 1).tolist()


@pytest.mark.usefixtures("root")
def test_publishing_to_a_server_that_is_down_is_one_warning(down: str, capsys: pytest.CaptureFixture[str]) -> None:
    start = time.monotonic()
    assert publish.publish(params(uri=down)) is None
    assert time.monotonic() - start < 10
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_results_of_earlier_versions_have_the_protocol_among_the_metrics(root: Path) -> None:
    (root / "reports/protocol.json").unlink()
    edit(root / "reports/metrics.json", lambda _: json.dumps(METRICS | {"protocol": PROTOCOL}))
    assert publish.publish(params())
    [run] = runs(root)
    assert run.data.tags["ddpm.model"] == PROTOCOL["model_digest"]
    assert not [key for key in run.data.metrics if key.startswith("protocol")]


def test_without_results_publishing_is_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "reports/metrics.json").unlink()
    assert publish.publish(params()) is None
    assert "reports/metrics.json" in capsys.readouterr().err
    assert runs(root) == []


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.json", "{"),
        ("metrics.json", '{"classifier": 3}'),
        ("protocol.json", "{}"),
        ("train.csv", "step,loss\n50,?\n"),
        ("snapshots.csv", "step\n50\n"),
    ],
)
def test_publishing_damaged_results_is_one_warning_that_names_the_file(
    name: str, content: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (root / "reports" / name).write_text(content)
    assert publish.publish(params()) is None
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"MLflow could not be written: reports/{name}")
    assert runs(root) == []


def test_a_damaged_model_is_not_logged(root: Path, model_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(root, model_file)
    path = root / "models/model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert publish.publish(params(log_model=True)) is None
    [line] = capsys.readouterr().err.splitlines()
    assert "models/model.safetensors is damaged: its contents do not match its digest" in line
    assert not [path for path in artifacts(root) if path.startswith("model")]
