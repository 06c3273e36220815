"""The records in MLflow's own server, with PostgreSQL behind it and its artifact proxy; skipped without PostgreSQL."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ddpm.params import Params
from lab.experiment import dvcfile
from lab.tracking import live, publish
from tests.lab.tracking.repository import CPU, DIGEST, POINTS, REPORTS, params, repository, wait
from tests.lab.tracking.server import free_port, running
from tests.pipeline.project import environment

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def binary(name: str) -> str:
    """A program of PostgreSQL's; Debian keeps them out of PATH."""
    debian = os.pathsep.join(str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True))
    found = shutil.which(name) or shutil.which(name, path=debian)
    return found or pytest.skip(f"PostgreSQL's {name} is not installed")


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A database that only a socket in the folder leads to. It refuses to run as root, so it runs as nobody then."""
    initdb, postgres = binary("initdb"), binary("postgres")
    other: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        other = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        shutil.chown(folder, nobody.pw_uid, nobody.pw_gid)
    data, quiet = str(folder / "data"), {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    options = ["--username=ddpm", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
    subprocess.run([initdb, "--pgdata", data, *options], check=True, **quiet, **other)
    command = [postgres, "-D", data, "-k", str(folder), "-c", "listen_addresses=", "-c", "fsync=off"]
    process = subprocess.Popen(command, **quiet, **other)
    try:
        yield f"postgresql+psycopg2://ddpm@/postgres?host={folder}"
    finally:
        process.send_signal(signal.SIGINT)  # ends the connections, too
        process.wait()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """The address and the process of a tracking server."""
    with tempfile.TemporaryDirectory(prefix="pg", dir="/tmp") as name, postgresql(Path(name)) as database:
        port, folder = free_port(), tempfile.mkdtemp(dir=name)
        command = ["mlflow", "server", "--port", str(port), "--workers", "1", "--backend-store-uri", database]
        command += ["--serve-artifacts", "--artifacts-destination", folder]
        more = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}  # seven processes that nothing here asks for
        address = f"http://127.0.0.1:{port}"
        with running(command, f"{address}/health", environment() | more) as process:
            yield address, process


@pytest.fixture
def settings(server: tuple[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Parameters of a repository, which is the working directory, with an MLflow experiment of its own."""
    monkeypatch.chdir(repository(tmp_path))
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return params(uri=server[0], experiment=tmp_path.name)


def follow(settings: Params) -> None:
    with live.live(settings, DIGEST) as run:
        for point in POINTS:
            run.log(point, images_per_second=100.0)


def client(settings: Params) -> "MlflowClient":
    from mlflow.tracking import MlflowClient

    return MlflowClient(settings.tracking.uri)


def runs(settings: Params) -> list["Run"]:
    found = client(settings).get_experiment_by_name(settings.tracking.experiment)
    return list(client(settings).search_runs([found.experiment_id])) if found else []


def contents(settings: Params) -> tuple["Run", dict[str, int], set[str]]:
    """The one run there is, the number of points of each metric, and the paths of all artifacts."""
    [run] = runs(settings)
    id = run.info.run_id
    points = {key: len(client(settings).get_metric_history(id, key)) for key in run.data.metrics}
    paths = {item.path for folder in (None, "reports") for item in client(settings).list_artifacts(id, folder)}
    return run, points, paths


def test_a_live_run_is_completed_and_publishing_again_adds_nothing(settings: Params, tmp_path: Path) -> None:
    follow(settings)
    live, points, _ = contents(settings)
    assert (live.info.status, points["train/loss"], points["train/optimizer/images_per_second"], points[CPU]) == (
        "RUNNING",
        3,
        3,
        1,
    )
    seen = []
    for _ in range(3):
        assert publish.publish(settings)
        run, *counted = contents(settings)
        seen.append((run.info.run_id, run.info.status, *counted))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][:2] == (live.info.run_id, "FINISHED")
    assert points.items() <= seen[0][2].items()
    assert seen[0][3] == {"dvc.lock", "params.yaml", "reports", *(f"reports/{name}" for name in REPORTS)}
    assert run.info.artifact_uri.startswith("mlflow-artifacts:")
    brought = client(settings).download_artifacts(run.info.run_id, "reports/train.csv", str(tmp_path))
    assert Path(brought).read_bytes() == (tmp_path / "reports/train.csv").read_bytes()


def test_a_server_that_stops_during_training_has_it_all_after_publishing(
    settings: Params, server: tuple[str, int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with live.live(settings, DIGEST) as run:
        run.log(POINTS[0], images_per_second=100.0)
        wait(lambda: bool(runs(settings)))
        os.killpg(server[1], signal.SIGSTOP)
        try:
            run.log(POINTS[1], images_per_second=100.0)
            run.close("RUNNING")
        finally:
            os.killpg(server[1], signal.SIGCONT)
    assert "`ddpm publish` fills it in later" in capsys.readouterr().err
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT")
    assert publish.publish(settings)
    complete, points, paths = contents(settings)
    assert (complete.info.status, points["train/loss"]) == ("FINISHED", 3)
    assert "reports/report.md" in paths
