"""Training that is killed, continued, extended: the bytes are those of a training that was left alone."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ddpm.reporting import curve
from tests.pipeline.project import Project, environment

COMMAND = [sys.executable, "-m", "stages.train", "--data", "data/train.safetensors"]
OUTPUTS = ("models/model.safetensors", "reports/train.csv")


def train(project: Project, name: str) -> list[bytes]:
    """Train to files of their own; return their bytes."""
    paths = [project.path / name / Path(output).name for output in OUTPUTS]
    project.run(*COMMAND, "--model", str(paths[0]), "--curve", str(paths[1]))
    return [path.read_bytes() for path in paths]


def states(project: Project) -> list[str]:
    return sorted(path.name for path in (project.path / ".ckpt").glob("*/step-*.safetensors"))


def wait_for_state(project: Project, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not states(project):
        assert process.poll() is None, "training ended before it saved anything"
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.fixture
def prepared(fresh: Project) -> Project:
    """A project with data, whose training is long enough to be caught."""
    fresh.set(train__steps=60, train__horizontal_flip=True, network__dropout=0.1, runtime__checkpoint_every=7)
    fresh.run("dvc", "repro", "prepare")
    return fresh


def test_killed_and_continued_training_gives_the_same_bytes(prepared: Project) -> None:
    command = [*COMMAND, "--model", "killed/model.safetensors", "--curve", "killed/train.csv"]
    process = subprocess.Popen(command, cwd=prepared.path, env=environment(), stderr=subprocess.DEVNULL)
    wait_for_state(prepared, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (prepared.path / "killed/model.safetensors").exists()
    (caught,) = states(prepared)
    continued = train(prepared, "continued")
    prepared.set(runtime__resume=False)
    assert continued == train(prepared, "uninterrupted")
    assert caught < "step-00000060"


def test_more_steps_extend_a_finished_training(prepared: Project) -> None:
    prepared.set(train__steps=20)
    train(prepared, "shorter")
    prepared.set(train__steps=33)
    log = prepared.run(*COMMAND, "--model", "extended/model.safetensors", "--curve", "extended/train.csv").stderr
    assert "20/33" in log
    extended = [(prepared.path / "extended" / Path(output).name).read_bytes() for output in OUTPUTS]
    prepared.set(runtime__resume=False)
    assert extended == train(prepared, "at once")


def test_another_learning_rate_continues_nothing(prepared: Project) -> None:
    prepared.set(train__steps=8)
    first = train(prepared, "first")
    prepared.set(train__learning_rate=5.0e-4)
    assert train(prepared, "second") != first
    assert len(list((prepared.path / ".ckpt").glob("*/"))) == 2


def test_a_model_file_is_where_training_starts(prepared: Project) -> None:
    prepared.set(train__steps=8)
    trained = train(prepared, "trained")
    prepared.set(train__init=str(prepared.path / "trained/model.safetensors"), train__steps=0)
    assert train(prepared, "as it is")[0] == trained[0]
    prepared.set(train__steps=3)
    assert train(prepared, "further")[0] != trained[0]


@pytest.mark.slow
def test_compiled_training_computes_the_same(prepared: Project) -> None:
    prepared.set(train__steps=3, runtime__log_every=1)
    train(prepared, "plain")
    prepared.set(runtime__compile=True)
    train(prepared, "compiled")
    plain, compiled = (curve.read(prepared.path / name / "train.csv") for name in ("plain", "compiled"))
    assert [point["loss"] for point in compiled] == pytest.approx([point["loss"] for point in plain], rel=1e-4)


def test_a_broken_state_is_an_error_that_names_it(prepared: Project) -> None:
    prepared.set(train__steps=8)
    train(prepared, "first")
    (state,) = (prepared.path / ".ckpt").glob("*/step-*.safetensors")
    state.write_bytes(state.read_bytes()[:1000])
    command = [*COMMAND, "--model", "second/model.safetensors", "--curve", "second/train.csv"]
    result = prepared.run(*command, check=False)
    assert result.returncode == 1
    assert state.name in result.stderr
    assert "Traceback" not in result.stderr
