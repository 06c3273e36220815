"""Killed, continued and extended trainings give the bytes of an uninterrupted training."""

import re
import signal
import subprocess
import sys
import time

import pytest

from ddpm import tables
from tests.pipeline.project import Project, environment

COMMAND = [sys.executable, "-m", "stages.train", "--data", "data/train.safetensors"]


def outputs(name: str) -> list[str]:
    """The command that trains and writes its outputs to the folder `name`."""
    paths = {
        "--model": "model.safetensors",
        "--final-state": "state.safetensors",
        "--snapshots": "snapshots",
        "--curve": "train.csv",
    }
    return [*COMMAND, *(word for option, path in paths.items() for word in (option, f"{name}/{path}"))]


def train(project: Project, name: str) -> dict[str, bytes]:
    """Train into the folder `name`; return the bytes of every file."""
    project.run(*outputs(name))
    return written(project, name)


def written(project: Project, name: str) -> dict[str, bytes]:
    folder = project.path / name
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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
    """A project with packed data, whose training is long enough to interrupt."""
    fresh.set(train__steps=60, train__horizontal_flip=True, network__dropout=0.1, runtime__checkpoint_every=7)
    fresh.set(train__snapshots=[5, 7])
    fresh.run("dvc", "repro", "prepare")
    return fresh


def test_killed_and_continued_training_gives_the_same_bytes(prepared: Project) -> None:
    prepared.set(train__snapshots=[5, 7, 55])  # before, at and after the first saved state
    process = subprocess.Popen(outputs("killed"), cwd=prepared.path, env=environment(), stderr=subprocess.DEVNULL)
    wait_for_state(prepared, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (prepared.path / "killed/model.safetensors").exists()
    (state,) = states(prepared)
    continued = train(prepared, "continued")
    assert set(continued) >= {f"snapshots/{step:08d}.safetensors" for step in (5, 7, 55)}
    prepared.set(runtime__resume=False)
    assert continued == train(prepared, "uninterrupted")
    assert state < "step-00000060"


def test_ctrl_c_ends_training_with_one_line_on_how_to_continue(prepared: Project) -> None:
    prepared.set(train__steps=100_000)
    process = subprocess.Popen(
        outputs("stopped"),
        cwd=prepared.path,
        env=environment(),
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # pytest-xdist's workers may ignore SIGINT
    )
    wait_for_state(prepared, process)
    process.send_signal(signal.SIGINT)
    errors = process.communicate()[1].decode()
    assert process.returncode == 130
    assert re.search(r"\ntrain: interrupted; the same command continues from step \d+\n$", errors)
    assert "Traceback" not in errors
    assert not (prepared.path / "stopped").exists()


def test_more_steps_extend_a_finished_training(prepared: Project) -> None:
    prepared.set(train__steps=20)
    train(prepared, "shorter")
    prepared.set(train__steps=33)
    log = prepared.run(*outputs("extended")).stderr
    assert "\ntrain: continues from step 20\n" in log
    prepared.set(runtime__resume=False)
    extended, at_once = written(prepared, "extended"), train(prepared, "at once")
    assert extended == at_once
    assert len(extended) == 6


@pytest.mark.parametrize(("where", "snapshots"), [([], []), (["--temp"], [5, 7])])
def test_more_steps_extend_a_training_whose_state_is_only_in_the_cache_of_dvc(
    prepared: Project, where: list[str], snapshots: list[int]
) -> None:
    prepared.set(train__snapshots=snapshots)
    prepared.run("dvc", "config", "cache.dir", "../the cache")
    prepared.commit("prepared")
    prepared.run("dvc", "exp", "run", "train", "-S", "train.steps=20")
    prepared.git("checkout", "-q", ".")
    prepared.run("rm", "-r", ".ckpt")
    before = written(prepared, "../the cache/files")
    log = prepared.run("dvc", "exp", "run", *where, "--name", "longer", "train", "-S", "train.steps=33").stderr
    assert "\ntrain: continues from step 20, the end of a shorter training, whose state is in DVC's cache\n" in log
    assert "is empty" not in log  # DVC warns about a folder of snapshots without a file
    after = written(prepared, "../the cache/files")
    assert {path: after[path] for path in before} == before != {}
    prepared.git("checkout", "-q", ".")
    prepared.set(train__steps=33, runtime__resume=False)
    at_once = train(prepared, "at once")
    del at_once["train.csv"]  # not cached
    assert set(at_once.values()) <= set(after.values())
    assert len(at_once) == 3 + len(snapshots)


def test_a_snapshot_equals_the_model_of_a_training_that_ends_at_its_step(prepared: Project) -> None:
    prepared.set(train__steps=8)
    longer = train(prepared, "longer")
    prepared.set(train__steps=5, train__snapshots=[])
    shorter = train(prepared, "shorter")
    assert longer["snapshots/00000005.safetensors"] == shorter["model.safetensors"]
    assert longer["snapshots/00000007.safetensors"] != longer["model.safetensors"]
    assert set(shorter) == {"model.safetensors", "state.safetensors", "snapshots/steps.json", "train.csv"}


def test_another_learning_rate_starts_a_new_training(prepared: Project) -> None:
    prepared.set(train__steps=8)
    first = train(prepared, "first")
    prepared.set(train__learning_rate=5.0e-4)
    assert train(prepared, "second") != first
    assert len(list((prepared.path / ".ckpt").glob("*/"))) == 2


def test_training_starts_from_the_model_file_of_train_init(prepared: Project) -> None:
    prepared.set(train__steps=8)
    trained = train(prepared, "trained")
    trained_file = prepared.path / "trained/model.safetensors"
    prepared.set(train__init=str(trained_file), train__steps=0, train__snapshots=[])
    assert train(prepared, "as it is")["model.safetensors"] == trained["model.safetensors"]
    prepared.set(train__steps=3)
    assert train(prepared, "further")["model.safetensors"] != trained["model.safetensors"]


@pytest.mark.slow
def test_compiled_training_computes_the_same(prepared: Project) -> None:
    prepared.set(train__steps=3, train__snapshots=[], runtime__log_every=1)
    train(prepared, "plain")
    prepared.set(runtime__compile=True)
    train(prepared, "compiled")
    plain, compiled = (tables.read_points(prepared.path / name / "train.csv") for name in ("plain", "compiled"))
    assert [point["loss"] for point in compiled] == pytest.approx([point["loss"] for point in plain], rel=1e-4)


def test_error_names_a_broken_state(prepared: Project) -> None:
    prepared.set(train__steps=8)
    train(prepared, "first")
    (state,) = (prepared.path / ".ckpt").glob("*/step-*.safetensors")
    state.write_bytes(state.read_bytes()[:1000])
    result = prepared.run(*outputs("second"), check=False)
    assert result.returncode == 1
    assert f"{state.name} is not a complete safetensors file" in result.stderr
    assert "remove that file" in result.stderr
    assert "Traceback" not in result.stderr
