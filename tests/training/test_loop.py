"""Algorithm 1: what a step does, in which order, with which numbers."""

import math
from dataclasses import replace
from itertools import islice

import pytest
import torch
from torch import Tensor, nn

from ddpm import rng
from ddpm.diffusion.denoiser import Denoiser
from ddpm.params import Gaussian, Train, UNetNetwork
from ddpm.training import loop
from ddpm.training.curve import DivergedError, LossCurve
from ddpm.training.loop import Learner, Record, learning_rate
from tests.training.runs import CPU, Run, start


@pytest.fixture
def run(train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Gaussian) -> Run:
    return start(train_settings, network_settings, diffusion_settings)


class Scale(nn.Module):
    """eps_theta(x_t, t) = w x_t: the smallest network with a gradient. Remembers the indices it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.3))
        self.asked: list[Tensor] = []

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        self.asked.append(index)
        return self.weight * x


def scaled(run: Run, settings: Train) -> tuple[Scale, Learner, Denoiser]:
    network = Scale()
    return network, Learner.start(network, settings), replace(run.denoiser, network=network)


def take(run: Run, settings: Train, steps: int | None = None) -> list[Record]:
    return list(islice(loop.train(run.learner, run.denoiser, run.batches, settings), steps))


def weights(network: nn.Module) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in network.parameters()]


def test_learning_rate_warms_up_from_zero(train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"warmup": 4, "learning_rate": 0.8})
    rates = [learning_rate(step, settings) for step in range(1, 8)]
    assert rates == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


def test_learning_rate_is_full_at_once_without_warmup(train_settings: Train) -> None:
    assert [learning_rate(step, train_settings) for step in (1, 7)] == [1e-2, 1e-2]


def test_learning_rate_decays_as_named(train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"steps": 4, "learning_rate": 8.0})
    linear = settings.model_copy(update={"learning_rate_decay": "linear"})
    cosine = settings.model_copy(update={"learning_rate_decay": "cosine"})
    assert [learning_rate(step, linear) for step in range(1, 5)] == pytest.approx([8, 6, 4, 2])
    root = math.sqrt(0.5)
    assert [learning_rate(step, cosine) for step in range(1, 5)] == pytest.approx([8, 4 + 4 * root, 4, 4 - 4 * root])


def test_warmup_multiplies_the_decay(train_settings: Train) -> None:
    changes = {"steps": 4, "learning_rate": 8.0, "warmup": 2, "learning_rate_decay": "linear"}
    settings = train_settings.model_copy(update=changes)
    assert [learning_rate(step, settings) for step in range(1, 5)] == pytest.approx([0, 3, 4, 2])


def test_first_warmup_step_changes_no_weight_and_the_second_does(run: Run, train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"warmup": 5})
    before = weights(run.learner.network)
    steps = loop.train(run.learner, run.denoiser, run.batches, settings)
    assert next(steps).learning_rate == 0
    torch.testing.assert_close(weights(run.learner.network), before, rtol=0, atol=0)
    assert next(steps).learning_rate == pytest.approx(2e-3)
    assert not weights(run.learner.network)[-1].equal(before[-1])


def test_record_follows_the_optimizer_and_the_average(run: Run, train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"ema_decay": 0.0})  # a complete step makes the average the weights
    before = weights(run.learner.network)
    for record in loop.train(run.learner, run.denoiser, run.batches, settings):
        now = weights(run.learner.network)
        assert not now[-1].equal(before[-1])
        torch.testing.assert_close(weights(run.learner.average), now, rtol=0, atol=0)
        assert run.learner.step == record.step
        before = now


def test_first_adam_step_moves_against_the_gradient_by_the_learning_rate(run: Run, train_settings: Train) -> None:
    network, learner, denoiser = scaled(run, train_settings)
    record = next(loop.train(learner, denoiser, run.batches, train_settings))
    assert network.weight.item() == pytest.approx(0.3 + record.learning_rate, rel=1e-5)  # best w is above 0.3


def test_steps_are_numbered_from_one_to_the_last(run: Run, train_settings: Train) -> None:
    assert [record.step for record in take(run, train_settings)] == [1, 2, 3, 4, 5, 6, 7]
    assert take(run, train_settings) == []


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_five_updates_of_the_average_are_bit_for_bit_a_linear_interpolation(
    run: Run, train_settings: Train, memory_format: torch.memory_format
) -> None:
    """w + (1 - decay) (w_trained - w), from a copy of the first weights."""
    network = run.learner.network.to(memory_format=memory_format)
    learner, expected = Learner.start(network, train_settings), weights(network)
    for _ in islice(loop.train(learner, run.denoiser, run.batches, train_settings), 5):
        expected = [w.lerp(trained, 1 - 0.9) for w, trained in zip(expected, weights(network), strict=True)]
        torch.testing.assert_close(weights(learner.average), expected, rtol=0, atol=0)


def test_average_weighs_each_past_weight_by_its_age(run: Run, train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"ema_decay": 0.75})
    network, learner, denoiser = scaled(run, settings)
    steps = loop.train(learner, denoiser, run.batches, settings)
    values = [network.weight.item(), *(network.weight.item() for _ in steps)]
    past = values[0] * 0.75**7 + sum(0.25 * 0.75 ** (7 - k) * values[k] for k in range(1, 8))
    assert weights(learner.average)[0].item() == pytest.approx(past, rel=1e-6)


def test_average_starts_as_a_copy_that_evaluates_and_takes_no_gradients(run: Run) -> None:
    network, average = run.learner.network, run.learner.average
    torch.testing.assert_close(weights(average), weights(network), rtol=0, atol=0)
    nn.init.zeros_(next(network.parameters()))
    assert not weights(average)[0].equal(weights(network)[0])
    assert not any(module.training for module in average.modules())
    assert not any(parameter.requires_grad for parameter in average.parameters())
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_average_is_updated_every_so_many_steps(run: Run, train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"ema_every": 3})
    moved, before = [], weights(run.learner.average)
    for record in loop.train(run.learner, run.denoiser, run.batches, settings):
        now = weights(run.learner.average)
        if any(not a.equal(b) for a, b in zip(now, before, strict=True)):
            moved.append(record.step)
        before = now
    assert moved == [3, 6]


def gradient(run: Run, settings: Train, step: int) -> tuple[float, float]:
    """Loss and gradient of `Scale` at w = 0.3, in float64, from the step's own random streams."""
    size = settings.batch_size // settings.accumulate
    losses, slopes = [], []
    for micro in range(settings.accumulate):
        generator = rng.torch_generator(CPU, settings.seed, "train", step, micro)
        x_0, _ = run.batches.get(step, micro, generator)
        t = torch.randint(1, 21, (size,), generator=generator)
        eps = torch.empty_like(x_0).normal_(generator=generator).double()
        kept = run.denoiser.gaussian.alpha_bar[t].view(-1, 1, 1, 1)
        x_t = kept.sqrt() * x_0 + (1 - kept).sqrt() * eps
        losses.append(((0.3 * x_t - eps) ** 2).mean().item())
        slopes.append((2 * (0.3 * x_t - eps) * x_t).mean().item())
    return sum(losses) / len(losses), sum(slopes) / len(slopes)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
def test_step_has_the_mean_loss_and_gradient_of_its_micro_batches(
    train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Gaussian, accumulate: int
) -> None:
    changes = {"accumulate": accumulate, "horizontal_flip": True, "grad_clip": None, "learning_rate": 1e-12}
    settings = train_settings.model_copy(update=changes)
    run = start(settings, network_settings, diffusion_settings)
    _, learner, denoiser = scaled(run, settings)
    for record in loop.train(learner, denoiser, run.batches, settings):  # no gradient is left over from the last step
        loss, slope = gradient(run, settings, record.step)
        assert record.loss.item() == pytest.approx(loss, rel=1e-5)
        assert record.gradient_norm.item() == pytest.approx(abs(slope), rel=1e-4)


def test_training_visits_every_time_of_the_chain(run: Run, train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"steps": 60})
    network, learner, denoiser = scaled(run, settings)
    assert len(list(loop.train(learner, denoiser, run.batches, settings))) == 60
    assert set(torch.cat(network.asked).tolist()) == set(range(20))


def test_gradient_is_clipped_by_its_global_norm(run: Run, train_settings: Train) -> None:
    """Seen through Adam's first moment, which is 0.1 of the first gradient."""
    settings = train_settings.model_copy(update={"grad_clip": 1e-3})
    record = take(run, settings, 1)[0]
    first = [state["exp_avg"].flatten() for state in run.learner.optimizer.state.values()]
    assert record.gradient_norm.item() > 0.1  # reported before the clip
    assert torch.cat(first).norm().item() == pytest.approx(0.1 * 1e-3, rel=1e-3)


@pytest.mark.parametrize("grad_clip", [1e6, None])
def test_gradient_below_the_limit_or_without_a_limit_is_not_clipped(
    run: Run, train_settings: Train, grad_clip: float | None
) -> None:
    record = take(run, train_settings.model_copy(update={"grad_clip": grad_clip}), 1)[0]
    first = [state["exp_avg"].flatten() for state in run.learner.optimizer.state.values()]
    assert torch.cat(first).norm().item() == pytest.approx(0.1 * record.gradient_norm.item(), rel=1e-4)


def test_training_depends_on_its_seed_and_on_no_global_state(
    train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Gaussian
) -> None:
    dropping = network_settings.model_copy(update={"dropout": 0.3})
    results = []
    for seed, disturbance in ((0, 1), (0, 2), (1, 1)):
        settings = train_settings.model_copy(update={"seed": seed})
        run = start(settings, dropping, diffusion_settings)
        steps = loop.train(run.learner, run.denoiser, run.batches, settings)
        torch.manual_seed(disturbance)
        results.append([(record.loss.item(), torch.rand(disturbance).sum().item())[0] for record in steps])
    assert results[0] == results[1]
    assert results[0] != results[2]


def test_network_trains_with_dropout_and_its_average_without(
    train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Gaussian
) -> None:
    run = start(train_settings, network_settings.model_copy(update={"dropout": 0.3}), diffusion_settings)
    run.learner.network.eval()  # as sampling might have left it
    take(run, train_settings, 1)
    assert all(module.training for module in run.learner.network.modules())
    assert not any(module.training for module in run.learner.average.modules())


def test_training_lowers_the_loss(run: Run, train_settings: Train) -> None:
    losses = [record.loss.item() for record in take(run, train_settings.model_copy(update={"steps": 60}))]
    assert losses[0] == pytest.approx(1, abs=0.2)  # the untrained network answers 0, and eps has variance 1
    assert sum(losses[-20:]) / 20 < 0.8 * losses[0]


def test_divergence_is_reported_with_its_step(run: Run, train_settings: Train) -> None:
    curve = LossCurve(100, CPU)
    for record in loop.train(run.learner, run.denoiser, run.batches, train_settings):
        curve.add(record)
        if record.step == 2:
            nn.init.constant_(next(run.learner.network.parameters()), math.nan)
    with pytest.raises(DivergedError) as caught:
        curve.check()
    assert caught.value.step == 3


def test_bf16_trains_with_finite_losses_and_keeps_fp32_weights(run: Run, train_settings: Train) -> None:
    types: set[torch.dtype] = set()
    middle = run.learner.network.get_submodule("middle")
    middle.register_forward_hook(lambda _module, _inputs, output: types.add(output.dtype))
    records = take(run, train_settings.model_copy(update={"precision": "bf16"}))
    assert types == {torch.bfloat16}
    assert all(math.isfinite(record.loss.item()) and record.loss.dtype == torch.float32 for record in records)
    everything = [*run.learner.network.parameters(), *run.learner.average.parameters()]
    assert {parameter.dtype for parameter in everything} == {torch.float32}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_steps_on_cuda_do_not_wait_for_the_device(
    train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Gaussian
) -> None:
    changes = {"accumulate": 2, "precision": "bf16", "horizontal_flip": True, "label_dropout": 0.1}
    settings = train_settings.model_copy(update=changes)
    conditional = network_settings.model_copy(update={"dropout": 0.1, "conditional": True})
    cuda = torch.device("cuda")
    run, curve = start(settings, conditional, diffusion_settings, cuda), LossCurve(2, cuda)
    steps = loop.train(run.learner, run.denoiser, run.batches, settings)
    curve.add(next(steps))  # the first step makes handles and workspaces
    torch.cuda.set_sync_debug_mode("error")
    try:
        for record in steps:
            curve.add(record)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert run.learner.step == settings.steps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_steps_on_cuda_repeat_bit_for_bit(
    train_settings: Train, network_settings: UNetNetwork, diffusion_settings: Gaussian, precision: str
) -> None:
    changes = {"steps": 2, "precision": precision, "horizontal_flip": True}
    settings = train_settings.model_copy(update=changes)
    dropping = network_settings.model_copy(update={"dropout": 0.1})
    results = []
    for _ in range(2):
        run = start(settings, dropping, diffusion_settings, torch.device("cuda"))
        results.append([record.loss.item() for record in take(run, settings)])
    assert len(results[0]) == 2
    assert all(map(math.isfinite, results[0]))
    assert results[0] == results[1]
