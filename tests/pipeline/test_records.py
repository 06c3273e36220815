"""MLflow's runs of experiments that were cloned, queued, run in part, or killed."""

import re
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.pipeline.project import Project, environment
from tests.pipeline.test_end_to_end import rows
from tests.pipeline.test_interruption import wait_for_state


def curves(project: Project) -> list[tuple[str, ...]]:
    """The name of every finished run, and the numbers of points and of distinct steps in its loss curve."""
    return rows(project, "SELECT name, COUNT(*), COUNT(DISTINCT step) FROM runs JOIN metrics USING (run_uuid) "
                "WHERE status = 'FINISHED' AND key = 'train/loss' GROUP BY name ORDER BY name")  # fmt: skip


def test_a_clone_that_pulls_publishes_the_same_run_without_training(reproduced: Project, tmp_path: Path) -> None:
    storage = str(tmp_path / "storage")
    reproduced.run("dvc", "remote", "add", "--local", "--default", "--force", "local", storage)
    reproduced.run("dvc", "push", "-q")
    clone = Project(tmp_path / "a clone")
    reproduced.git("clone", "-q", ".", str(clone.path))
    clone.run("dvc", "remote", "add", "--local", "--default", "local", storage)
    clone.run("dvc", "pull", "-q")
    clone.run("ddpm", "publish")
    query = "SELECT value FROM tags WHERE key = 'ddpm.fingerprint'"
    assert rows(clone, query)[0] in rows(reproduced, query)
    [(_, *points)] = curves(clone)
    assert points == [3, 3]
    assert not (clone.path / ".ckpt").exists()


def test_two_experiments_that_end_together_without_a_database_record_two_complete_runs(reproduced: Project) -> None:
    store, aside = reproduced.path / "mlflow.db", reproduced.path / ".ckpt/mlflow.db"
    for name, steps in (("one", 6), ("two", 7)):
        reproduced.run("dvc", "exp", "run", "--queue", "-n", name, "-S", f"sample.steps={steps}")
    store.rename(aside)
    try:
        reproduced.run("dvc", "queue", "start", "-j", "2")
        for name in ("one", "two"):
            assert "Running stage 'train'" not in reproduced.run("dvc", "queue", "logs", "--follow", name).stdout
        assert curves(reproduced) == [("one", 3, 3), ("two", 3, 3)]
        assert reproduced.git("status", "--porcelain") == ""
    finally:
        aside.replace(store)


def test_publish_all_skips_an_experiment_with_outdated_results(reproduced: Project) -> None:
    reproduced.run("dvc", "exp", "run", "--temp", "-n", "partial", "-S", "train.seed=5", "train")
    result = reproduced.run("ddpm", "publish", "--all")
    assert "partial is not published: sample: models/model.safetensors has changed" in result.stderr
    published, address = result.stdout.splitlines()
    assert re.fullmatch(r"published \d+ experiments? to sqlite:///.*/mlflow.db", published)
    assert address.startswith("the runs in MLflow: `ddpm ui`, http://127.0.0.1:5000/#/experiments/")
    query = "SELECT DISTINCT name FROM runs JOIN metrics USING (run_uuid) WHERE key = 'classifier.fid'"
    assert ("partial",) not in rows(reproduced, query) != []


@pytest.mark.slow
def test_a_run_killed_during_training_is_completed_by_the_next_repro(fresh: Project) -> None:
    fresh.set(train__steps=80, runtime__checkpoint_every=10, runtime__log_every=10)
    process = subprocess.Popen(["dvc", "repro"], cwd=fresh.path, env=environment(), stdout=subprocess.DEVNULL)
    wait_for_state(fresh, process)
    for killed in [*psutil.Process(process.pid).children(recursive=True), process]:
        killed.send_signal(signal.SIGKILL)
    process.wait()
    fresh.run("dvc", "repro")
    [(_, *points)] = curves(fresh)
    assert points == [8, 8]
    assert rows(fresh, "SELECT COUNT(*) FROM runs") == [(1,)]
