"""Samples and features that two processes share."""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from lab.experiment import dvcfile
from lab.experiment.rows import COUNT, Rows
from tests.imports import ROOT
from tests.pipeline.project import environment
from tests.stages.conftest import changed, command, fill, run, values

STAGES = ("reference", "sample", "evaluate")
SETTINGS = {"sample": {"count": 600, "guidance": None}}  # three batches of features
TWO = (sys.executable, "-m", "lab.launch", "--standalone", "--nproc-per-node=2", "-m")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs, and with the outputs that one process has written."""
    path = tmp_path_factory.mktemp("alone")
    fill(path)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dvcfile, "ROOT", path)
        for stage in STAGES:
            run(stage, path, changed(**SETTINGS), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the inputs and the parameters."""
    fill(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values(**SETTINGS)))
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    return tmp_path


def outputs(folder: Path) -> dict[str, bytes]:
    endings = (".safetensors", ".json", ".csv", ".png", ".gif")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in endings}


@contextmanager
def sharing(folder: Path, stage: str) -> Iterator["subprocess.Popen[str]"]:
    """A stage that two processes run."""
    started = subprocess.Popen(
        [*TWO, f"stages.{stage}", *command(stage, folder, folder)],
        cwd=folder,
        env=environment() | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield started
    finally:
        kill(started)


def kill(started: "subprocess.Popen[str]") -> None:
    """Kill the launcher and its workers, which have process groups of their own."""
    if started.poll() is None:
        every = [*psutil.Process(started.pid).children(), psutil.Process(started.pid)]
        for process in every:
            process.kill()
        psutil.wait_procs(every)


def wait_for_a_batch(folder: Path) -> None:
    end = time.monotonic() + 100
    while not [path for path in folder.glob(f".ckpt/*/*/{COUNT}") if Rows(path.parent).done]:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_two_processes_write_what_one_writes(alone: Path, folder: Path) -> None:
    for stage in STAGES:
        with sharing(folder, stage) as started:
            _, said = started.communicate(timeout=200)
        assert started.returncode == 0, said
        assert len(said.splitlines()) <= 4, said  # by process 0 only
    assert outputs(folder) == outputs(alone)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_ended_processes_lose_no_batch_that_one_process_then_needs(
    number: signal.Signals,
    alone: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with sharing(folder, "sample") as started:
        wait_for_a_batch(folder)
        if number == signal.SIGKILL:
            kill(started)
        else:
            started.send_signal(number)
        _, said = started.communicate(timeout=100)
    assert not (folder / "samples.safetensors").exists()
    kept = sum(Rows(path.parent).done for path in folder.glob(f".ckpt/*/*/{COUNT}"))
    continues = f"continues from image {kept:,} of 2,400\n"
    if number == signal.SIGTERM:
        assert started.returncode == 128 + number
        assert said.endswith(f"sample: ended by SIGTERM; the same command {continues}")
        assert "Traceback" not in said
    monkeypatch.setattr(dvcfile, "ROOT", folder)
    monkeypatch.chdir(folder)
    capsys.readouterr()
    run("sample", folder, changed(**SETTINGS), folder)
    assert f"sample: {continues}" in capsys.readouterr().err
    for name in ("samples.safetensors", "snapshot-samples.safetensors"):
        assert (folder / name).read_bytes() == (alone / name).read_bytes()
