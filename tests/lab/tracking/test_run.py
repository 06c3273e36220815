"""One run per experiment: its name, parameters and points."""

import json
import sys
from pathlib import Path

import pytest

from ddpm import tables
from lab.experiment import identity
from lab.tracking import publish
from tests.lab.tracking.repository import POINTS, client, edit, history, params, runs

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


def test_a_run_keeps_the_name_of_its_dvc_experiment(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_EXP_NAME", "puffy-daks")
    assert publish.publish(params())
    monkeypatch.delenv("DVC_EXP_NAME")
    assert publish.publish(params())
    assert [run.info.run_name for run in runs(root)] == ["puffy-daks"]
    assert publish.publish(params(), name="by-hand")
    assert [run.info.run_name for run in runs(root)] == ["by-hand"]
