"""A terminal that is closed, and pipes that nobody reads, while a process runs."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lab.terminal import ending_signals
from tests.imports import ROOT

WRITES = """
import sys
from lab import terminal

terminal.outlive()
print("begun", flush=True)
sys.stdin.read()  # until this end of the pipe is closed
for line in range(10_000):
    print(line)
    print(line, file=sys.stderr)
with open("end", "w") as file:
    file.write(f"{sys.stdout.isatty()} {sys.stderr.encoding}")
"""


@contextmanager
def started(folder: Path, **streams: int) -> Iterator["subprocess.Popen[bytes]"]:
    command, environment = [sys.executable, "-c", WRITES], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdin=subprocess.PIPE, bufsize=0, **streams) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_process_goes_on_when_nobody_reads_its_output(tmp_path: Path) -> None:
    with started(tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == b"begun\n"
        process.stdout.close()
        process.stderr.close()
        process.stdin.close()
        assert process.wait(60) == 0
    assert (tmp_path / "end").read_text() == "False utf-8"


def test_a_process_goes_on_when_its_terminal_is_closed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with started(tmp_path, stdout=theirs, stderr=theirs) as process:
        assert process.stdin
        os.close(theirs)
        with os.fdopen(ours) as terminal:
            assert terminal.readline() == "begun\n"
        process.stdin.close()
        assert process.wait(60) == 0
    assert (tmp_path / "end").exists()


def test_other_errors_of_writing_remain_errors(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full, started(tmp_path, stdout=full.fileno()) as process:
        assert process.stdin
        process.stdin.close()
        assert process.wait(60) == 1


@pytest.mark.parametrize("handling", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_of_a_closed_terminal_that_is_ignored_remains_ignored(handling: signal.Handlers) -> None:
    before = signal.signal(signal.SIGHUP, handling)
    try:
        assert (signal.SIGHUP in ending_signals()) == (handling == signal.SIG_DFL)
        assert signal.SIGTERM in ending_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
