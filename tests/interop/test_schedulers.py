"""Compare sampling with diffusers' schedulers, for the same network and the same noise.

Diffusers stores alpha_bar in float32. Near t = 1 only four digits of 1 - alpha_bar are correct, which determines the
tolerances. The paper's equations in float64 decide where both implementations could be wrong.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from torch import Tensor

from ddpm.diffusion import process, schedule
from ddpm.diffusion.denoiser import Denoiser
from ddpm.network.unet import UNet
from ddpm.params import Gaussian, Sample, UNetNetwork
from ddpm.sampling.samplers import timesteps
from tests.sampling.chains import ancestral, ddim, dpm_solver

SHAPE = (2, 3, 4, 8)
TIMES = [*range(1, 31), *range(40, 1001, 20)]  # of 1000; every t where float32 is least accurate
TYPES = {"eps": "epsilon", "x_0": "sample", "v": "v_prediction"}
each_prediction = pytest.mark.parametrize("prediction", TYPES)


@pytest.fixture
def paper(diffusion_settings: Gaussian) -> Gaussian:
    """The paper's thousand steps."""
    return diffusion_settings.model_copy(update={"timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02})


def constant(settings: Gaussian, output: Tensor) -> Denoiser:
    """A denoiser whose network returns `output` for every input."""
    return Denoiser(lambda _x, _index: output, process.from_settings(settings), settings)


def step(denoiser: Denoiser, x: Tensor, t: int, noise: Tensor, sigma: Literal["large", "small"], clip: bool) -> Tensor:
    """x_(t-1), the second state of ancestral sampling here."""
    states = ancestral(denoiser, x, [t, *([t - 1] if t > 1 else [])], lambda: noise, sigma, clip)
    next(states)
    return next(states).x_t


def draws(count: int, shape: tuple[int, ...] = SHAPE) -> list[Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The noise that diffusers' DDPMScheduler adds in every step."""
    fixed = torch.randn(SHAPE, generator=torch.Generator().manual_seed(4))
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_args, **_kwargs: fixed)
    return fixed


@each_prediction
@pytest.mark.parametrize("sigma", ["large", "small"])
@pytest.mark.parametrize("clip", [True, False])
def test_ancestral_step_equals_that_of_diffusers(
    paper: Gaussian,
    noise: Tensor,
    prediction: str,
    sigma: Literal["large", "small"],
    clip: bool,
) -> None:
    settings = paper.model_copy(update={"prediction": prediction})
    scheduler = DDPMScheduler(
        beta_end=0.02, prediction_type=TYPES[prediction], variance_type=f"fixed_{sigma}", clip_sample=clip
    )
    x_0, output = draws(2)
    denoiser = constant(settings, output)
    for t in TIMES:
        x = denoiser.process.q_sample(0.5 * x_0, torch.tensor([t, t]), output)
        theirs = scheduler.step(output, t - 1, x).prev_sample
        torch.testing.assert_close(step(denoiser, x, t, noise, sigma, clip), theirs, rtol=0, atol=5e-4)


@each_prediction
@pytest.mark.parametrize("sigma", ["large", "small"])
def test_ancestral_step_equals_the_papers_equations_in_float64(
    paper: Gaussian, prediction: str, sigma: Literal["large", "small"]
) -> None:
    """Equations (7), (11) and (15), with the betas of Section 4."""
    beta = np.concatenate([[0.0], np.linspace(1e-4, 0.02, 1000)])
    alpha_bar = np.cumprod(1 - beta)
    settings = paper.model_copy(update={"prediction": prediction})
    x, output, noise = draws(3)
    denoiser = constant(settings, output)
    x_t, predicted, eps = (tensor.double() for tensor in (x, output, noise))
    for t in TIMES:
        now, before = alpha_bar[t], alpha_bar[t - 1]
        x_0 = {
            "eps": (x_t - (1 - now) ** 0.5 * predicted) / now**0.5,
            "x_0": predicted,
            "v": now**0.5 * x_t - (1 - now) ** 0.5 * predicted,
        }[prediction].clamp(-1, 1)
        mean = (before**0.5 * beta[t] * x_0 + (1 - beta[t]) ** 0.5 * (1 - before) * x_t) / (1 - now)
        variance = beta[t] if sigma == "large" else beta[t] * (1 - before) / (1 - now)
        expected = mean + (t > 1) * variance**0.5 * eps
        ours = step(denoiser, x, t, noise, sigma, clip=True)
        torch.testing.assert_close(ours, expected.float(), rtol=1e-6, atol=1e-6)


def test_step_with_a_learned_range_equals_that_of_diffusers(paper: Gaussian, noise: Tensor) -> None:
    scheduler = DDPMScheduler(beta_end=0.02, variance_type="learned_range")
    x, eps, fraction = draws(3)
    output = torch.cat([eps, fraction], dim=1)
    denoiser = constant(paper.model_copy(update={"variance": "learned_range"}), output)
    for t in TIMES:
        theirs = scheduler.step(output, t - 1, x).prev_sample
        torch.testing.assert_close(step(denoiser, x, t, noise, "large", True), theirs, rtol=0, atol=5e-4)


@pytest.fixture
def network(network_settings: UNetNetwork) -> UNet:
    """A small U-Net with random weights, scaled so that its output is about as large as noise."""
    torch.manual_seed(0)
    network = UNet(network_settings, 3, 8, 3, 0)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    return network.requires_grad_(False)


def chain(network: UNet, times: list[int], x: Tensor, step: Callable[[Tensor, int, Tensor], Tensor]) -> Tensor:
    """The sampling loop of diffusers; `times` count from 1."""
    for t in times:
        x = step(network(x, torch.full((len(x),), t - 1)), t - 1, x)
    return x


@pytest.mark.parametrize(
    ("prediction", "eta", "clip"),
    [("eps", 0.0, False), ("eps", 1.0, True), ("x_0", 1.0, False), ("v", 0.0, True), ("v", 1.0, False)],
)
def test_fifty_steps_of_ddim_give_the_samples_of_diffusers(
    paper: Gaussian, sample_settings: Sample, network: UNet, prediction: str, eta: float, clip: bool
) -> None:
    """Use leading spacing, for which diffusers' previous times are correct.

    With clipping, diffusers recomputes eps from the clipped x_0 only with `use_clipped_model_output`.
    """
    settings = paper.model_copy(update={"prediction": prediction})
    spacing = sample_settings.model_copy(update={"spacing": "leading", "steps": 50})
    times, (x, *noise) = timesteps(spacing, 1000), draws(51, (2, 3, 8, 8))
    scheduler = DDIMScheduler(beta_end=0.02, prediction_type=TYPES[prediction], clip_sample=clip)
    scheduler.set_timesteps(50)
    ours, theirs = iter(noise), iter(noise)

    def diffusers_step(output: Tensor, t: int, x: Tensor) -> Tensor:
        return scheduler.step(output, t, x, eta, use_clipped_model_output=clip, variance_noise=next(theirs)).prev_sample

    denoiser = Denoiser(network, process.from_settings(settings), settings)
    *_, last = ddim(denoiser, x, times, lambda: next(ours), eta, clip)
    expected = chain(network, times, x, diffusers_step)
    scale = expected.std()
    torch.testing.assert_close(last.x_0 / scale, expected / scale, rtol=0, atol=1e-4)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # raised in diffusers by numpy 2
@pytest.mark.parametrize(
    ("prediction", "steps", "spacing"),
    [("eps", 5, "leading"), ("eps", 20, "trailing"), ("x_0", 10, "linspace"), ("v", 10, "quad")],
)
def test_dpm_solver_gives_the_samples_of_diffusers(
    paper: Gaussian, sample_settings: Sample, network: UNet, prediction: str, steps: int, spacing: str
) -> None:
    """Pass the times of this project, because diffusers' leading and linspace spacings omit the last time."""
    settings = paper.model_copy(update={"prediction": prediction})
    times = timesteps(sample_settings.model_copy(update={"spacing": spacing, "steps": steps}), 1000)
    scheduler = DPMSolverMultistepScheduler(beta_end=0.02, prediction_type=TYPES[prediction], solver_order=2)
    scheduler.set_timesteps(timesteps=[t - 1 for t in times])
    (x,) = draws(1, (2, 3, 8, 8))
    denoiser = Denoiser(network, process.from_settings(settings), settings)
    *_, last = dpm_solver(denoiser, x, times, clip=False)
    expected = chain(network, times, x, lambda output, t, x: scheduler.step(output, t, x).prev_sample)
    scale = expected.std()
    torch.testing.assert_close(last.x_0 / scale, expected / scale, rtol=0, atol=1e-4)


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
@pytest.mark.parametrize(("steps", "chain_length"), [(1000, 1000), (50, 1000), (7, 1000), (3, 10), (20, 20), (6, 25)])
def test_times_equal_those_of_diffusers(sample_settings: Sample, spacing: str, steps: int, chain_length: int) -> None:
    scheduler = DDPMScheduler(chain_length, timestep_spacing=spacing)
    scheduler.set_timesteps(steps)
    ours = timesteps(sample_settings.model_copy(update={"spacing": spacing, "steps": steps}), chain_length)
    assert ours == [t + 1 for t in scheduler.timesteps.tolist()]


@pytest.mark.parametrize(("steps", "chain_length"), [(100, 1000), (20, 1000), (10, 100), (6, 25)])
def test_quad_times_equal_those_of_ddims_code(sample_settings: Sample, steps: int, chain_length: int) -> None:
    """DDIM's code computes seq = linspace(0, sqrt(0.8 T), S)^2, counted from 0; diffusers has no such spacing."""
    root = (0.8 * chain_length) ** 0.5
    expected = sorted({1 + int((i * root / (steps - 1)) ** 2 + 1e-9) for i in range(steps)}, reverse=True)
    ours = timesteps(sample_settings.model_copy(update={"spacing": "quad", "steps": steps}), chain_length)
    assert ours == expected


@pytest.mark.parametrize(("spacing", "steps"), [("linspace", 50), ("trailing", 300), ("quad", 50)])
def test_ddim_steps_from_each_time_to_the_next_in_the_list(
    paper: Gaussian, sample_settings: Sample, spacing: str, steps: int
) -> None:
    """Check equation (12) in the spacings for which diffusers steps to t - T // S instead (see the next test)."""
    times = timesteps(sample_settings.model_copy(update={"spacing": spacing, "steps": steps}), 1000)
    x, eps = draws(2)
    alpha_bar = schedule.alpha_bar(paper)
    states = list(ddim(constant(paper, eps), x, times, lambda: eps, 0.0, False))
    for state, after in pairwise(states):
        x_0 = (state.x_t - (1 - alpha_bar[state.t]) ** 0.5 * eps) / alpha_bar[state.t] ** 0.5
        expected = alpha_bar[after.t] ** 0.5 * x_0 + (1 - alpha_bar[after.t]) ** 0.5 * eps
        torch.testing.assert_close(after.x_t, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("spacing", "steps", "correct"),
    [("leading", 50, True), ("trailing", 50, True), ("linspace", 50, False), ("trailing", 300, False)],
)
def test_diffusers_ddim_does_not_follow_its_times_in_some_spacings(spacing: str, steps: int, correct: bool) -> None:
    """Diffusers is no reference in linspace spacing, nor in trailing spacing if S does not divide T.

    For the true eps, a step from x_t must lead to x_s of the same image and noise, where s is the next time.
    """
    scheduler = DDIMScheduler(beta_end=0.02, timestep_spacing=spacing, clip_sample=False)
    scheduler.set_timesteps(steps)
    x_0, eps = draws(2)
    errors = []
    for t, s in pairwise(scheduler.timesteps):
        reached = scheduler.step(eps, t, scheduler.add_noise(x_0, eps, t)).prev_sample
        errors.append((reached - scheduler.add_noise(x_0, eps, s)).abs().max().item())
    assert (max(errors) < 1e-4) == correct
