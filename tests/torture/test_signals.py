"""SIGTERM and SIGHUP in the middle of random steps of a training."""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from torch import Generator, Tensor

from ddpm.data.batches import Batches
from lab.experiment import dvcfile, state
from lab.stage import Interrupted
from stages.train import train
from tests.stages.conftest import changed, fill

STEPS = 40
PARAMS = changed(
    train={"steps": STEPS, "batch_size": 4, "warmup": 2, "horizontal_flip": True, "snapshots": [20]},
    network={"channels": 8, "groups": 4, "dropout": 0.1},
    runtime={"checkpoint_every": 1000, "preview_every": 1000, "log_every": 7, "device": "cpu", "threads": 1},
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train without MLflow, and receive SIGHUP also under `nohup`."""
    monkeypatch.setattr("stages.train.live", MagicMock())
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def trained(data: Path, root: Path) -> dict[str, bytes]:
    """Train from the last state in `root` to the end; return the bytes of the outputs."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(dvcfile, "ROOT", root)
        train(PARAMS, data, root / "model", root / "state", root / "snapshots", root / "curve")
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file() and ".ckpt" not in path.parts}


@contextmanager
def sent(number: signal.Signals, at: int) -> Iterator[None]:
    """Send a signal to this process in a step of the training."""
    get = Batches.get

    def interrupted(batches: Batches, step: int, micro: int, generator: Generator) -> tuple[Tensor, Tensor]:
        if step == at:
            signal.raise_signal(number)
        return get(batches, step, micro, generator)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Batches, "get", interrupted)
        yield


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("count", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_signals_at_random_steps_lose_no_step_and_change_no_byte(
    number: signal.Signals, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path)
    data = tmp_path / "train.safetensors"
    expected = trained(data, tmp_path / "undisturbed")
    root = tmp_path / "ended"
    monkeypatch.setattr(dvcfile, "ROOT", root)
    for step in sorted(random.Random(number).sample(range(1, STEPS), count)):
        with sent(number, step), pytest.raises(Interrupted) as ended:
            trained(data, root)
        (kept,) = state.folders()
        assert (ended.value.number, kept.reached) == (number, f"step {step}")
    assert trained(data, root) == expected
    assert set(expected) == {"model", "state", "curve", "steps.json", "00000020.safetensors"}
