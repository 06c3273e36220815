"""Serve the repository's MLflow runs on this machine, and open their table in a browser."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

import psutil
import typer

from ddpm.errors import UsageError
from ddpm.params import Tracking
from lab import terminal
from lab.experiment import dvcfile
from lab.tracking import store
from lab.tracking.records import Records

_HOST = "127.0.0.1"
_PORTS = 20  # that are tried if none is given
_PATIENCE = 120  # seconds until the server must respond


def ui(settings: Tracking, port: int | None, browse: bool) -> None:
    """Serve the runs until Ctrl-C, and print the address of their table. A server of `tracking.uri` is only shown.

    Raises `UsageError` if there are no runs, if the port is taken, or if the server does not start.
    """
    group = Records(settings).viewed()
    if store.is_server(settings):
        _show(store.address(settings, group), browse)
        return
    port = _free(port)
    typer.echo("starting MLflow's server")
    with _serving(store.uri(settings), port) as server:
        _show(store.address(settings, group, port), browse)
        typer.echo("press Ctrl-C to stop the server")
        server.wait()
    raise UsageError(f"the MLflow server ended with exit code {server.returncode}")


def _show(address: str, browse: bool) -> None:
    typer.echo(f"the runs in MLflow: {address}")
    if browse and _has_display():
        webbrowser.open(address)


def _has_display() -> bool:
    """Whether a graphical browser can open; Python would also start one that takes over the terminal."""
    return sys.platform in ("darwin", "win32") or bool({"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys())


def _free(port: int | None) -> int:
    """The given port, or the first free one from 5000. Raises `UsageError` if it is taken."""
    ports = range(store.PORT, store.PORT + _PORTS) if port is None else [port]
    for candidate in ports:
        with socket.socket() as probe:
            if os.name == "posix":  # on Windows this option would allow a port that is taken
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, candidate))
            except OSError:
                continue
            return candidate
    if port is None:
        raise UsageError(f"the ports {ports[0]} to {ports[-1]} are taken: choose a free one with --port")
    raise UsageError(f"--port {port}: this port cannot be used; choose another, or omit --port for the next free one")


@contextmanager
def _serving(uri: str, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Start MLflow's server and yield its process when it responds. Ctrl-C ends the block, and the server with it."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": uri,  # an argument would show a password to other users of the machine
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # jobs of GenAI: eight more processes
    }
    for number in terminal.ending_signals():
        signal.signal(number, signal.default_int_handler)
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            command, cwd=dvcfile.ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            if not _responds(server, f"http://{_HOST}:{port}/health"):
                log.seek(0)
                raise UsageError(f"the MLflow server does not start: {store.masked(_last_line(log.read()))}")
            yield server
        except KeyboardInterrupt:
            raise typer.Exit from None
        finally:
            _end(server)


def _responds(server: "subprocess.Popen[bytes]", url: str) -> bool:
    """Wait until the server responds; False if it ends before, or does not respond in time."""
    deadline = monotonic() + _PATIENCE
    while server.poll() is None and monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return True
        except OSError:
            sleep(0.2)
    return False


def _last_line(log: bytes) -> str:
    lines = log.decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "it printed nothing")


def _end(server: "subprocess.Popen[bytes]") -> None:
    """End the server and the processes that it has started."""
    try:
        processes = [*psutil.Process(server.pid).children(recursive=True), psutil.Process(server.pid)]
    except psutil.NoSuchProcess:
        return
    for process in processes:
        process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        process.kill()
    server.wait()
