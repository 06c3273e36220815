"""Stopped and resumed equals uninterrupted, bit for bit."""

from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.files import TensorFileError
from ddpm.params import Gaussian, Train, UNetNetwork
from ddpm.training import checkpoint, loop
from ddpm.training.curve import LossCurve
from tests.training.runs import CPU, Run, start


@pytest.fixture
def settings(train_settings: Train) -> Train:
    """All that draws random numbers or keeps state: flips, micro-batches, warm-up, a lazy average."""
    return train_settings.model_copy(update={"horizontal_flip": True, "accumulate": 2, "warmup": 3, "ema_every": 2})


@pytest.fixture
def dropping(network_settings: UNetNetwork) -> UNetNetwork:
    return network_settings.model_copy(update={"dropout": 0.2})


def go(run: Run, settings: Train, curve: LossCurve, steps: int | None = None) -> None:
    for record in islice(loop.train(run.learner, run.denoiser, run.batches, settings), steps):
        curve.add(record)


def everything(run: Run, curve: LossCurve) -> dict[str, Tensor]:
    """All state by name."""
    learner = run.learner
    adam = {
        f"{key}/{name}": learner.optimizer.state[parameter][key]
        for name, parameter in learner.network.named_parameters()
        for key in ("step", "exp_avg", "exp_avg_sq")
    }
    average = {f"average/{name}": tensor for name, tensor in learner.average.state_dict().items()}
    points = torch.tensor([list(point.values()) for point in curve.points()], dtype=torch.float64)
    return {**learner.network.state_dict(), **average, **adam, "points": points, "step": torch.tensor(learner.step)}


@pytest.mark.parametrize("stop", [0, 1, 4, 6])
def test_resumed_training_equals_uninterrupted_bit_for_bit(
    tmp_path: Path, settings: Train, dropping: UNetNetwork, diffusion_settings: Gaussian, stop: int
) -> None:
    whole, whole_curve = start(settings, dropping, diffusion_settings), LossCurve(3, CPU)
    go(whole, settings, whole_curve)

    first, first_curve = start(settings, dropping, diffusion_settings), LossCurve(3, CPU)
    go(first, settings, first_curve, stop)
    checkpoint.save(tmp_path / "state.safetensors", first.learner, first_curve, "a training")

    second, second_curve = start(settings, dropping, diffusion_settings, weights_seed=1), LossCurve(3, CPU)
    checkpoint.load(tmp_path / "state.safetensors", second.learner, second_curve)
    assert second.learner.step == stop
    go(second, settings, second_curve)
    torch.testing.assert_close(everything(second, second_curve), everything(whole, whole_curve), rtol=0, atol=0)


def test_saving_changes_nothing_in_the_run_that_goes_on(
    tmp_path: Path, settings: Train, dropping: UNetNetwork, diffusion_settings: Gaussian
) -> None:
    results = []
    for saving in (True, False):
        run, curve = start(settings, dropping, diffusion_settings), LossCurve(3, CPU)
        for record in loop.train(run.learner, run.denoiser, run.batches, settings):
            curve.add(record)
            if saving:
                checkpoint.save(tmp_path / "state.safetensors", run.learner, curve, "a training")
        results.append(everything(run, curve))
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)


def test_constant_learning_rate_lets_a_longer_run_extend_a_shorter(
    tmp_path: Path, settings: Train, dropping: UNetNetwork, diffusion_settings: Gaussian
) -> None:
    shorter = settings.model_copy(update={"steps": 4})
    run, curve = start(shorter, dropping, diffusion_settings), LossCurve(3, CPU)
    go(run, shorter, curve)
    checkpoint.save(tmp_path / "state.safetensors", run.learner, curve, "a training")
    extended, extended_curve = start(settings, dropping, diffusion_settings), LossCurve(3, CPU)
    checkpoint.load(tmp_path / "state.safetensors", extended.learner, extended_curve)
    go(extended, settings, extended_curve)
    whole, whole_curve = start(settings, dropping, diffusion_settings), LossCurve(3, CPU)
    go(whole, settings, whole_curve)
    torch.testing.assert_close(everything(extended, extended_curve), everything(whole, whole_curve), rtol=0, atol=0)


def test_restored_moments_are_copies_in_the_weights_memory_format(
    tmp_path: Path, settings: Train, dropping: UNetNetwork, diffusion_settings: Gaussian
) -> None:
    run, curve = start(settings, dropping, diffusion_settings), LossCurve(3, CPU)
    go(run, settings, curve, 2)
    path = tmp_path / "state.safetensors"
    checkpoint.save(path, run.learner, curve, "a training")
    before = path.read_bytes()
    checkpoint.load(path, run.learner, curve)
    for parameter, state in run.learner.optimizer.state.items():
        assert state["exp_avg"].stride() == state["exp_avg_sq"].stride() == parameter.stride()
    go(run, settings, curve)
    assert path.read_bytes() == before


def test_missing_state_is_named(
    tmp_path: Path, settings: Train, dropping: UNetNetwork, diffusion_settings: Gaussian
) -> None:
    run = start(settings, dropping, diffusion_settings)
    with pytest.raises(TensorFileError, match="does not exist"):
        checkpoint.load(tmp_path / "state.safetensors", run.learner, LossCurve(3, CPU))
