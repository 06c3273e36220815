"""One run per experiment: its name, parameters and points."""

import json
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from ddpm import tables
from lab.experiment import dvcfile, identity, journal
from lab.tracking import publish
from tests.lab.tracking.repository import DIGEST, POINTS, client, edit, follow, history, params, runs

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.mark.parametrize("changed", [("1.25", "1.125"), ("1.25", "2.5"), ("m" * 64, "n" * 64), ("1.25", "Infinity")])
def test_different_results_of_the_same_experiment_replace_its_run(root: Path, changed: tuple[str, str]) -> None:
    assert publish.publish(params(), name="mine")
    [before] = runs(root)
    for name in ("metrics.json", "protocol.json"):
        edit(root / "reports" / name, lambda text: text.replace(*changed))
    assert publish.publish(params())
    [after] = runs(root)
    assert (after.info.run_name, after.info.run_id == before.info.run_id) == ("mine", False)
    assert publish.publish(params())
    assert [run.info.run_id for run in runs(root)] == [after.info.run_id]
    fid = json.loads((root / "reports/metrics.json").read_text())["classifier"]["fid"]
    assert after.data.metrics["classifier.fid"] == min(fid, sys.float_info.max)
    assert len(history(root, "classifier.fid")) == 1


def test_a_metric_that_is_nan_again_is_not_a_different_result(root: Path) -> None:
    edit(root / "reports/metrics.json", lambda text: text.replace("1.25", "NaN"))
    assert publish.publish(params())
    before = [run.info.run_id for run in runs(root)]
    assert publish.publish(params())
    assert [run.info.run_id for run in runs(root)] == before


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


def test_a_curve_of_more_points_than_one_call_takes_is_whole(root: Path) -> None:
    points = [{"step": step, "loss": 1 / step, "gradient_norm": 1.0, "learning_rate": 1.0} for step in range(1, 502)]
    tables.write_points(root / "reports/train.csv", points, ("step", "loss", "gradient_norm", "learning_rate"))
    assert publish.publish(params())
    assert history(root, "train/loss") == [(point["step"], point["loss"]) for point in points]


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
    assert len(history(root, "train/loss")) == len(POINTS)


def test_a_run_whose_writer_was_killed_after_creating_it_has_its_own_name(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("mlflow.tracking.MlflowClient.update_run", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            publish.publish(params())
    assert publish.publish(params())
    assert [run.info.run_name for run in runs(root)] == [identity.title(identity.fingerprint(DIGEST))]


def test_a_run_keeps_the_name_of_its_dvc_experiment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-daks")
    assert publish.publish(params())
    monkeypatch.delenv("DVC_EXP_NAME")
    assert publish.publish(params())
    assert [run.info.run_name for run in runs(root)] == ["puffy-daks"]
    assert publish.publish(params(), name="by-hand")
    assert [run.info.run_name for run in runs(root)] == ["by-hand"]


def test_a_run_without_a_name_of_dvc_is_named_after_its_images_and_sampler(root: Path) -> None:
    edit(Path("params.yaml"), lambda text: text.replace("sampler: ddim", "sampler: ancestral"))
    published = publish.publish(params())
    assert published is not None
    assert published.name == runs(root)[0].info.run_name == f"digits-ancestral50-{identity.fingerprint(DIGEST)[:4]}"


def times(root: Path, key: str) -> list[int]:
    """The times of the points of the only run, in milliseconds."""
    [run] = runs(root)
    return [point.timestamp for point in client(root).get_metric_history(run.info.run_id, key)]


def test_points_that_are_logged_live_have_the_time_at_which_they_were_measured(root: Path) -> None:
    before = 1000 * time.time()
    follow(POINTS)
    logged = {key: times(root, key) for key in ("train/loss", "train/optimizer/images_per_second")}
    assert all(before - 1 <= moment <= 1000 * time.time() for moments in logged.values() for moment in moments)
    time.sleep(0.01)
    assert publish.publish(params())
    assert {key: times(root, key) for key in logged} == logged


@pytest.mark.parametrize("value", ["1.25", "NaN", "Infinity"])
def test_publishing_later_changes_neither_times_nor_duration(root: Path, value: str) -> None:
    edit(root / "reports/metrics.json", lambda text: text.replace("1.25", value))
    journal.record("train", dvcfile.observed("train"), 60.0)
    seen = []
    for _ in range(2):
        assert publish.publish(params())
        [run] = runs(root)
        seen.append((run.info.end_time, times(root, "train/loss"), times(root, "classifier.fid")))
        time.sleep(0.01)
    assert seen[0] == seen[1]


def test_a_restored_experiment_lasts_as_long_as_its_stages_took_and_ends_now(root: Path) -> None:
    journal.record("train", dvcfile.observed("train"), 60.0)
    journal.record("sample", dvcfile.observed("sample"), 30.0)
    assert publish.publish(params())
    [run] = runs(root)
    start, end = run.info.start_time, run.info.end_time
    assert end - start == pytest.approx(90_000, abs=2)
    assert end / 1000 == pytest.approx(time.time(), abs=30)
    relative = [moment - start for moment in times(root, "train/loss")]
    assert relative == pytest.approx([20_000, 40_000, 60_000], abs=2)  # steps 50, 100 and 150
    assert times(root, "classifier.fid") == pytest.approx([end], abs=2)


def test_a_run_of_unknown_duration_has_none(root: Path) -> None:
    assert publish.publish(params())
    [run] = runs(root)
    assert (run.info.status, run.info.end_time) == ("FINISHED", None)
    assert set(times(root, "train/loss")) == {run.info.start_time}
