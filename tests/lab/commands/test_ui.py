"""`ddpm ui`: MLflow's server on this machine, or the address of another."""

import signal
import socket
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from lab.commands import ui
from lab.experiment import dvcfile
from lab.tracking import store
from lab.tracking.records import Records
from tests.commands import fails, run
from tests.lab.tracking.repository import ROOT, params
from tests.lab.tracking.server import free_port, listening
from tests.pipeline.project import environment

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def within(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return repository


def filled(folder: Path, first_publication: tuple[Path, str]) -> None:
    """Put a store with a run of the experiment ddpm into the folder."""
    from mlflow.tracking import MlflowClient

    (folder / "mlflow.db").write_bytes(first_publication[0].read_bytes())
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_run(client.create_experiment("ddpm"))


@pytest.mark.skipif(sys.platform == "win32", reason="signals differ")
def test_it_serves_the_runs_at_the_printed_address_until_it_is_interrupted(
    within: Path, first_publication: tuple[Path, str]
) -> None:
    filled(within, first_publication)
    port = free_port()
    command = [sys.executable, "-m", "lab.commands.app", "ui", "--no-open", "--port", str(port)]
    more = {"PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    with subprocess.Popen(command, env=environment() | more, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "starting MLflow's server\n"
        address = process.stdout.readline().removeprefix("the runs in MLflow: ").strip()
        started = psutil.Process(process.pid).children(recursive=True)
        group = Records(params().tracking).viewed()
        assert (
            address
            == f"http://127.0.0.1:{port}/#/experiments/{group}/runs?workflowType=machine_learning&viewStateShareKey=ddpm"
        )
        assert process.stdout.readline() == "press Ctrl-C to stop the server\n"
        with urllib.request.urlopen(address, timeout=30) as page:
            assert page.status == 200
        addresses = listening(process.pid)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert addresses == {"127.0.0.1"}
    assert started
    assert not [one for one in started if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_a_store_without_runs_is_an_error_with_advice(within: Path) -> None:
    assert fails("ui", "--no-open") == (
        f"ddpm: no experiment is tracked as ddpm in sqlite:///{within}/mlflow.db: "
        "run one with `dvc repro`, or publish those that DVC keeps with `ddpm publish --all`"
    )
    assert not (within / "mlflow.db").exists()


def test_a_server_is_shown_and_not_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Records, "viewed", lambda _: "7")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@server/mlflow/")
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setattr(ui, "_has_display", lambda: True)
    address = "https://server/mlflow/#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=ddpm"
    assert run("ui").stdout == f"the runs in MLflow: {address}\n"
    assert opened == [address]
    assert run("ui", "--no-open").stdout == f"the runs in MLflow: {address}\n"
    assert opened == [address]


def test_without_a_display_no_browser_opens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not ui._has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert ui._has_display()


def test_a_port_that_is_taken_is_an_error_or_the_next_one_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket()) as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        monkeypatch.setattr(Records, "viewed", lambda _: "1")
        assert fails("ui", "--port", taken).startswith(f"ddpm: --port {taken}: this port cannot be used; choose")
        monkeypatch.setattr(store, "PORT", taken)
        assert taken < ui._free(None) < taken + 20
        monkeypatch.setattr(ui, "_PORTS", 1)
        assert fails("ui") == f"ddpm: the ports {taken} to {taken} are taken: choose a free one with --port"


def test_a_server_that_does_not_start_is_an_error_with_its_reason(
    within: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Records, "viewed", lambda _: "1")
    monkeypatch.setattr(dvcfile, "ROOT", within)
    failing = within / "python"
    failing.write_text("#!/bin/sh\necho 'no access to //me:secret@server' >&2\necho >&2\nexit 3\n")
    failing.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(failing))
    result = run("ui", "--no-open", "--port", free_port())
    assert (result.exit_code, result.stdout) == (1, "starting MLflow's server\n")
    assert result.stderr == "ddpm: the MLflow server does not start: no access to //...@server\n"
