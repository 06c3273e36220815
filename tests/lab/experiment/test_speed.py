"""The time of a step of a training, as `ddpm check` reads it."""

import os
from pathlib import Path
from typing import Any

import pytest

from ddpm.params import Params, check
from lab.experiment import dvcfile, speed
from lab.experiment.speed import Speed
from tests.test_params import changed


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a measurement of the default recipe on the CPU and a state of step 7."""
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    folder = tmp_path / ".ckpt/one"
    speed.record(folder, of({}), "cpu", 0.25)
    (folder / "step-00000007.safetensors").touch()
    return folder


def of(changes: dict[str, Any]) -> Params:
    return check(changed(changes))


def test_nothing_is_measured_before_the_first_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    assert speed.measured(of({})) is None


@pytest.mark.usefixtures("states")
@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({}, 7),
        ({"train.steps": 5000}, 7),
        ({"train.steps": 6}, 0),
        ({"sample.count": 3}, 7),
        ({"train.learning_rate": 0.5}, 0),
        ({"train.learning_rate_decay": "linear"}, 0),
        ({"data.seed": 1}, 0),
        ({"runtime.device": "cpu"}, 7),
    ],
)
def test_the_same_work_has_its_speed_and_the_same_training_its_steps(changes: dict[str, Any], done: int) -> None:
    assert speed.measured(of(changes)) == Speed(0.25, done)


@pytest.mark.usefixtures("states")
@pytest.mark.parametrize(
    "changes",
    [
        {"network.channels": 64},
        {"train.batch_size": 32},
        {"train.accumulate": 2},
        {"data.image_size": 16},
        {"train.precision": "bf16"},
        {"runtime.threads": 1},
        {"runtime.device": "cuda:0"},
    ],
)
def test_other_work_has_no_speed(changes: dict[str, Any]) -> None:
    assert speed.measured(of(changes)) is None


def test_the_newest_measurement_counts(states: Path) -> None:
    speed.record(states.parent / "two", of({"train.seed": 3}), "cpu", 0.5)
    os.utime(states / speed.NAME, (1, 1))
    assert speed.measured(of({})) == Speed(0.5, 0)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "{}", '{"seconds": "x"}', "3"])
def test_a_damaged_measurement_is_none(states: Path, content: str) -> None:
    (states / speed.NAME).write_text(content)
    (states / "step-00000007 copy.safetensors").touch()
    assert speed.measured(of({})) is None
