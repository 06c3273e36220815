"""Servers that tests talk to: MLflow's own, and a tracking server that stops answering."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil


def free_port() -> int:
    """One that nobody listens at, a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(command: list[str], url: str, environment: dict[str, str]) -> Iterator[int]:
    """A server in a group of processes, whose id is given, from when it answers at `url` until the block ends."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    deadline = time.monotonic() + 90
    try:
        while not _answers(url):
            assert process.poll() is None, f"{command} ended"
            assert time.monotonic() < deadline, f"{command} does not answer"
            time.sleep(0.1)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def listening(pid: int) -> set[str]:
    """The addresses at which a process and those that it has started listen."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    found = (connection for one in processes for connection in one.net_connections("inet"))
    return {connection.laddr.ip for connection in found if connection.status == psutil.CONN_LISTEN}


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


EXPERIMENT = {"experiment_id": "1", "name": "ddpm", "artifact_location": "mlflow-artifacts:/1"}
INFO = {"run_id": "r", "experiment_id": "1", "status": "RUNNING", "start_time": 1, "artifact_uri": "."}
ANSWERS = {
    "experiments/get-by-name": {"experiment": EXPERIMENT},
    "runs/create": {"run": {"info": INFO, "data": {}}},
    "runs/get": {"run": {"info": INFO, "data": {}}},
    "runs/update": {"run_info": INFO},
}


@contextmanager
def serving(lasts: str) -> Iterator[str]:
    """The address of a server that accepts connections, and answers until it is asked for `lasts`."""
    gone = threading.Event()  # for good, whatever it is asked then
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked = self.path.partition("?")[0].rpartition("mlflow/")[2]
            if asked == lasts:
                gone.set()
            if gone.is_set():
                end.wait()
                return
            body = json.dumps(ANSWERS.get(asked, {})).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        end.set()
        server.shutdown()
        server.server_close()
