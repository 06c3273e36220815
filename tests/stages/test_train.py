"""Stage train: losses that are not finite, after which it ends or goes back; the time of a step."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ddpm import files, tables
from ddpm.params import Params
from ddpm.training import loop
from ddpm.training.curve import DivergedError
from lab.experiment import speed
from stages import train as stage_train
from tests.stages.conftest import changed, fill

Trained = Callable[..., dict[str, bytes]]
LOSS = loop.loss_of


@contextmanager
def no_tracking(*_: object) -> Iterator[SimpleNamespace]:
    yield SimpleNamespace(log=lambda *_, **__: None, preview=lambda *_: None)


def settings(**runtime: Any) -> Params:
    """20 steps that go back to multiples of 8."""
    section = {"steps": 20, "batch_size": 2, "accumulate": 1, "on_divergence": "rewind", "rewind_every": 8}
    return changed(
        network={"channels": 4, "groups": 2}, train=section, runtime={"log_every": 5, "checkpoint_every": 4} | runtime
    )


class Faults:
    """A loss that is not finite for some draws of noise. At a given call the process is killed, or gets SIGTERM."""

    def __init__(self, rare: float = 1.2, killed: int = 0, ended: int = 0) -> None:
        self.rare, self.killed, self.ended, self.calls = rare, killed, ended, 0

    def __call__(self, denoiser: Any, x_0: Tensor, t: Tensor, eps: Tensor, train: Any) -> Tensor:
        self.calls += 1
        if self.calls == self.killed:
            raise KeyboardInterrupt
        if self.calls == self.ended:
            signal.raise_signal(signal.SIGTERM)
        loss = LOSS(denoiser, x_0, t, eps, train)
        return loss * torch.nan if eps[0, 0, 0, 0] > self.rare else loss


@pytest.fixture
def trained(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """Return a function that runs the stage and returns the bytes that it has written."""
    monkeypatch.setattr(stage_train, "live", no_tracking)

    def run(params: Params, fault: Faults) -> dict[str, bytes]:
        out = tmp_path / "out"
        paths = {"model": out / "m.safetensors", "final_state": out / "s.safetensors", "snapshots": out / "snapshots"}
        monkeypatch.setattr(loop, "loss_of", fault)
        try:
            stage_train.train(params, folder / "train.safetensors", curve=out / "train.csv", **paths)
        except KeyboardInterrupt:
            assert fault.calls in (fault.killed, fault.ended)
        return {path.name: path.read_bytes() for path in out.glob("*.*") if path.is_file()}

    return run


def rewinds(tmp_path: Path) -> Any:
    return files.read_metadata(tmp_path / "out/s.safetensors").get("rewinds")


def test_training_goes_back_from_a_loss_that_is_not_finite_and_records_it(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(settings(), Faults())
    back = rewinds(tmp_path)
    assert len(back) >= 2
    assert all(step == (bad - 1) // 8 * 8 for bad, step in back)
    points = tables.read_points(tmp_path / "out/train.csv")
    assert [point["step"] for point in points] == [5, 10, 15, 20]
    assert points[-1]["rewinds"] == len(back)
    assert all(
        torch.isfinite(value).all() for value in files.read_tensors(tmp_path / "out/s.safetensors").tensors.values()
    )
    said = capsys.readouterr().err
    assert f"not finite at step {back[0][0]}: goes back to step {back[0][1]}, with other batches (rewind 1 of" in said


def test_the_result_depends_neither_on_checkpoints_nor_on_interruptions(trained: Trained) -> None:
    expected = trained(settings(resume=False), Faults())
    for every in (1, 1000):
        begun = settings(checkpoint_every=every, resume=False), settings(checkpoint_every=every)
        kills = [Faults(killed=calls) for calls in (9, 11, 7, 3)]
        for params, fault in zip((begun[0], *[begun[1]] * 4), [*kills, Faults()], strict=True):
            found = trained(params, fault)
        assert found == expected


def test_an_interruption_after_training_went_back_does_not_repeat_the_steps_before(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(settings(resume=False), Faults())
    first, _ = rewinds(tmp_path)[0]
    found_at = next(step for step in range(first, 21) if step % 4 == 0 or step % 5 == 0)  # where losses are looked up
    trained(settings(resume=False), Faults(killed=found_at + 2))
    assert f"not finite at step {first}: goes back" in capsys.readouterr().err
    trained(settings(), Faults())
    assert "(rewind 1 of" not in capsys.readouterr().err
    assert rewinds(tmp_path)[0][0] == first


def test_a_signal_at_a_loss_that_is_not_finite_saves_no_such_state(trained: Trained, tmp_path: Path) -> None:
    expected = trained(settings(resume=False), Faults())
    first, _ = rewinds(tmp_path)[0]
    assert first % 4, "found at once"
    assert first % 5, "found at once"
    trained(settings(resume=False), Faults(ended=first))
    assert not list(tmp_path.glob(f".ckpt/*/step-{first:08d}.safetensors"))
    assert trained(settings(), Faults()) == expected


def test_training_stops_at_such_a_loss_by_default(trained: Trained, tmp_path: Path) -> None:
    params = settings()
    stopping = params.model_copy(
        update={"train": params.train.model_copy(update={"on_divergence": "stop", "rewind_every": None})}
    )
    trained(params, Faults())
    first, _ = rewinds(tmp_path)[0]
    with pytest.raises(DivergedError, match=f"not finite at step {first}\\. Lower") as caught:
        trained(stopping.model_copy(update={"runtime": params.runtime.model_copy(update={"resume": False})}), Faults())
    assert caught.value.step == first


def test_training_goes_back_at_most_five_times(trained: Trained) -> None:
    with pytest.raises(DivergedError, match="not finite at step 1, after 5 rewinds"):
        trained(settings(), Faults(rare=-100.0))


def test_a_finite_training_is_the_same_with_either_setting(trained: Trained, tmp_path: Path, root: Path) -> None:
    params = settings(resume=False)
    rewinding = trained(params, Faults(rare=100.0))
    assert rewinds(tmp_path) is None
    stop = params.train.model_copy(update={"on_divergence": "stop", "rewind_every": None})
    assert trained(params.model_copy(update={"train": stop}), Faults(rare=100.0)) == rewinding
    assert not list(root.glob(".ckpt/*/kept/*"))


def test_the_time_of_a_step_is_measured_with_each_state(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_train, "live", no_tracking)
    fill(tmp_path)
    settings = changed()
    short = settings.train.model_copy(update={"steps": 3, "batch_size": 4, "warmup": 0})
    chosen = settings.model_copy(update={"train": short})
    out = {name: tmp_path / name for name in ("model", "final_state", "snapshots", "curve")}
    stage_train.train(chosen, tmp_path / "train.safetensors", **out)
    measured = speed.measured(chosen)
    assert measured is not None
    assert measured.done == 3
    assert 0 < measured.seconds < 60
    assert len([*root.glob(f".ckpt/*/{speed.NAME}")]) == 1
