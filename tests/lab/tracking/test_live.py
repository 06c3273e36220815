"""A training that is logged while it runs, against stores that answer and stores that do not."""

import json
import time
from pathlib import Path

import pytest

from ddpm.network import modelfile
from lab.experiment import identity
from lab.tracking import live, publish, store
from lab.tracking.records import Records
from lab.tracking.run import FINGERPRINT
from tests.lab.tracking.repository import CPU, DIGEST, POINTS, artifacts, edit, follow, history, params, runs, wait
from tests.lab.tracking.server import serving

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def test_a_live_run_has_points_previews_parameters_and_tags(root: Path, model_file: Path) -> None:
    follow(POINTS, modelfile.load(model_file))
    [run] = runs(root)
    assert run.info.status == "RUNNING"
    assert history(root, "train/loss") == [(point["step"], point["loss"]) for point in POINTS]
    assert history(root, "train/optimizer/images_per_second") == [(point["step"], 100.0) for point in POINTS]
    assert json.loads(run.data.params["train.steps"]) == params().train.steps
    assert {FINGERPRINT, "torch", "python", "device"} <= set(run.data.tags)
    assert artifacts(root) == {"previews/00000150.png"}


def test_system_metrics_are_logged_while_training_and_continue_when_it_resumes(
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
    assert history(root, "train/loss") == [(point["step"], point["loss"]) for point in POINTS]


def test_a_resumed_training_repeats_no_point_of_its_curve(root: Path) -> None:
    follow(POINTS[:2])
    follow(POINTS[1:], speed=50.0)
    assert history(root, "train/loss") == [(point["step"], point["loss"]) for point in POINTS]
    assert history(root, "train/optimizer/images_per_second") == [(50, 100.0), (100, 100.0), (150, 50.0)]


def test_a_training_that_fails_leaves_a_failed_run_and_its_error(root: Path) -> None:
    def training() -> None:
        with live.live(params(), DIGEST) as run:
            run.log(POINTS[0], images_per_second=1.0)
            raise KeyError("a bug")

    with pytest.raises(KeyError, match="a bug"):
        training()
    [failed] = runs(root)
    assert failed.info.status == "FAILED"
    assert len(history(root, "train/loss")) == 1


def test_an_interrupted_training_leaves_a_run_that_is_interrupted_and_not_failed(root: Path) -> None:
    def training() -> None:
        with live.live(params(), DIGEST):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training()
    assert [one.info.status for one in runs(root)] == ["KILLED"]
    assert [one.status for one in Records(params().tracking).experiments()] == ["interrupted"]
    follow(POINTS)
    assert [one.info.status for one in runs(root)] == ["RUNNING"]


def test_publishing_finishes_the_run_of_a_killed_training(root: Path) -> None:
    run = live.Live(params().tracking, identity.fingerprint(DIGEST), {})
    run.log(POINTS[0], images_per_second=1.0)  # and never closed
    wait(lambda: bool(runs(root) and history(root, "train/optimizer/images_per_second")))
    assert [run.info.status for run in runs(root)] == ["RUNNING"]
    assert publish.publish(params())
    assert [run.info.status for run in runs(root)] == ["FINISHED"]


def test_parameters_are_those_at_the_start_of_the_training(root: Path) -> None:
    with store.lock():  # the thread cannot open the run yet
        run = live.Live(params().tracking, identity.fingerprint(DIGEST), {})
        edit(root / "params.yaml", lambda text: text.replace("steps: 2500", "steps: 2600"))
    run.close("RUNNING")
    assert runs(root)[0].data.params["train.steps"] == "2500"


def test_a_server_that_is_down_costs_a_training_one_line_and_little_time(
    root: Path, down: str, capsys: pytest.CaptureFixture[str]
) -> None:
    start = time.monotonic()
    follow(POINTS[:1], uri=down)
    assert time.monotonic() - start < 10.5
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("MLflow could not be written (")
    assert line.endswith("; `ddpm publish` fills it in later")
    assert runs(root) == []


@pytest.mark.parametrize("last", ["experiments/get-by-name", "runs/log-batch"])
@pytest.mark.usefixtures("root")
def test_a_server_that_stops_answering_costs_training_and_publishing_one_call_each(
    last: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")  # and one more try
    with serving(last) as uri:
        start = time.monotonic()
        follow(POINTS, uri=uri)
        assert publish.publish(params(uri=uri)) is None
        assert time.monotonic() - start < 6
    lines = capsys.readouterr().err.splitlines()
    assert ["`ddpm publish` fills it in later" in line for line in lines] == [True, True]


def test_a_training_waits_for_a_server_at_its_end_no_longer_than_its_limit(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "_PATIENCE", 0.2)
    with serving("experiments/get-by-name") as uri:
        start = time.monotonic()
        follow([], uri=uri)
        assert time.monotonic() - start < 1
    assert runs(root) == []
