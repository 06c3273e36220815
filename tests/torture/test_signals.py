"""SIGTERM and SIGHUP in the middle of random steps of a training."""

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch import Generator, Tensor

from ddpm.data.batches import Batches
from lab.experiment import dvcfile, state
from lab.stage import Interrupted
from tests.stages.conftest import fill
from tests.torture.training import params, trained


@pytest.fixture(autouse=True)
def _received() -> Iterator[None]:
    """Receive SIGHUP also where these tests run under `nohup`."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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
@pytest.mark.parametrize(("steps", "count"), [(12, 2), pytest.param(40, 20, marks=pytest.mark.slow)])
def test_signals_at_random_steps_lose_no_step_and_change_no_byte(
    number: signal.Signals, steps: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = params(steps=steps, snapshots=[6])
    settings = settings.model_copy(update={"runtime": settings.runtime.model_copy(update={"checkpoint_every": 1000})})
    fill(tmp_path)
    data, root = tmp_path / "train.safetensors", tmp_path / "ended"
    expected = trained(settings, data, tmp_path / "undisturbed")
    monkeypatch.setattr(dvcfile, "ROOT", root)
    for step in sorted(random.Random(number).sample(range(1, steps), count)):
        with sent(number, step), pytest.raises(Interrupted) as ended:
            trained(settings, data, root)
        (kept,) = state.folders()
        assert (ended.value.number, kept.reached) == (number, f"step {step}")
    assert trained(settings, data, root) == expected
    assert set(expected) == {"model", "state", "curve", "steps.json", "00000006.safetensors"}
