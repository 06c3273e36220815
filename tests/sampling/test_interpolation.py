"""Interpolation in the latent space, with known denoisers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import GaussianProcess, InterpolationProcess
from ddpm.params import Gaussian, Sample
from ddpm.sampling.interpolation import interpolate

ALPHA_BAR = np.concatenate([[1.0], np.cumprod(1 - np.linspace(0.01, 0.4, 20))])
SETTINGS = Gaussian(
    process="gaussian",
    timesteps=20,
    schedule="linear",
    beta_start=0.01,
    beta_end=0.4,
    prediction="eps",
    variance="fixed",
    value_range=[-1.0, 1.0],
)
SAMPLE: dict[str, Any] = {
    "seed": 0,
    "count": 1,
    "batch_size": 16,
    "sampler": "ddim",
    "steps": 20,
    "spacing": "trailing",
    "precision": "fp32",
    "eta": 0.0,
    "sigma": None,
    "clip": False,
    "guidance": None,
}
DDIM = Sample.model_validate(SAMPLE)
ANCESTRAL = Sample.model_validate(SAMPLE | {"sampler": "ancestral", "eta": None, "sigma": "large"})


def standard_normal(x_t: Tensor, index: Tensor) -> Tensor:
    """E[eps | x_t] for standard normal x_0. x_t is standard normal, too, and DDIM hardly changes it."""
    noise = torch.from_numpy(1 - ALPHA_BAR[index.numpy() + 1]).sqrt().view(-1, 1, 1, 1)
    return noise.float() * x_t


@pytest.fixture
def denoiser() -> Denoiser:
    return Denoiser(standard_normal, GaussianProcess(ALPHA_BAR), SETTINGS)


@pytest.fixture
def pair() -> Tensor:
    return torch.randn(2, 3, 4, 8, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)


def test_a_deterministic_linear_decoder_gives_linear_mixes(denoiser: Denoiser, pair: Tensor) -> None:
    mixed = interpolate(denoiser, pair, 12, 5, DDIM)
    assert mixed.shape == (5, 3, 4, 8)
    for index, share in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
        torch.testing.assert_close(mixed[index], (1 - share) * mixed[0] + share * mixed[4], rtol=1e-4, atol=1e-5)
    assert not mixed[0].isclose(mixed[4]).all()


@pytest.mark.parametrize("settings", [DDIM, ANCESTRAL], ids=["ddim", "ancestral"])
def test_little_noise_gives_back_both_images(denoiser: Denoiser, pair: Tensor, settings: Sample) -> None:
    ends = interpolate(denoiser, pair, 1, 2, settings)
    torch.testing.assert_close(ends, pair, rtol=0, atol=0.4)  # sqrt(beta_1) is 0.1
    torch.testing.assert_close(interpolate(denoiser, pair, 1, 7, settings)[[0, 6]], ends)


def test_the_ends_have_independent_noise_of_the_process(denoiser: Denoiser) -> None:
    """With eps = 0 the result is x_t / sqrt(alpha_bar_t)."""
    zero = Denoiser(lambda x_t, _: torch.zeros_like(x_t), denoiser.process, SETTINGS)
    x_0 = torch.tensor([0.5, -1.0]).view(2, 1, 1, 1).expand(2, 1, 64, 64)
    ends = interpolate(zero, x_0, 9, 2, DDIM)
    std = (1 / ALPHA_BAR[9] - 1) ** 0.5
    torch.testing.assert_close(ends.mean((1, 2, 3)), torch.tensor([0.5, -1.0]), rtol=0, atol=0.06 * std)
    torch.testing.assert_close(ends.std((1, 2, 3)), torch.full((2,), std), rtol=0.05, atol=0)
    noise = ends - x_0
    assert abs(float((noise[0] * noise[1]).mean())) < 0.06 * std**2


def test_all_mixes_share_the_noise_of_the_reverse_process(denoiser: Denoiser, pair: Tensor) -> None:
    same = pair[:1].expand(2, -1, -1, -1)
    zero = Denoiser(lambda x_t, _: torch.zeros_like(x_t), denoiser.process, SETTINGS)
    mixed = interpolate(zero, same, 15, 3, ANCESTRAL)
    torch.testing.assert_close(mixed[1], (mixed[0] + mixed[2]) / 2, rtol=1e-4, atol=1e-4)


def test_the_noise_of_the_ends_depends_on_the_seed_and_not_on_the_time(pair: Tensor) -> None:
    seen: list[Tensor] = []

    def network(x_t: Tensor, _index: Tensor) -> Tensor:
        seen.append(x_t)
        return torch.zeros_like(x_t)

    denoiser = Denoiser(network, GaussianProcess(ALPHA_BAR), SETTINGS)
    noises = []
    for time, seed in ((4, 0), (17, 0), (4, 1)):
        seen.clear()
        interpolate(denoiser, pair, time, 2, DDIM.model_copy(update={"seed": seed}))
        noises.append((seen[0] - ALPHA_BAR[time] ** 0.5 * pair) / (1 - ALPHA_BAR[time]) ** 0.5)
    torch.testing.assert_close(noises[0], noises[1], rtol=0, atol=1e-5)
    assert not noises[0].isclose(noises[2], atol=0.01).any(dim=3).all()


@pytest.mark.parametrize(("time", "steps", "expected"), [(6, 20, 6), (6, 3, 3), (20, 20, 20), (1, 5, 1)])
def test_the_reverse_process_starts_at_the_time_and_takes_at_most_as_many_steps(
    time: int, steps: int, expected: int, pair: Tensor
) -> None:
    indices: list[int] = []

    def network(x_t: Tensor, index: Tensor) -> Tensor:
        indices.append(int(index[0]))
        return torch.zeros_like(x_t)

    denoiser = Denoiser(network, GaussianProcess(ALPHA_BAR), SETTINGS)
    interpolate(denoiser, pair, time, 2, ANCESTRAL.model_copy(update={"steps": steps}))
    assert (indices[0], len(indices)) == (time - 1, expected)
    assert indices == sorted(indices, reverse=True)


def test_the_interpolation_process_mixes_with_uniform_noise() -> None:
    settings = SETTINGS.model_copy(update={"process": "interpolation", "prediction": "x_0", "value_range": [0.0, 1.0]})
    denoiser = Denoiser(lambda x_t, _: x_t, InterpolationProcess(10), settings)  # predicts x_0 = x_t
    x_0 = torch.tensor([0.2, 0.9]).view(2, 1, 1, 1).expand(2, 1, 16, 32)
    ends = interpolate(denoiser, x_0, 10, 2, DDIM.model_copy(update={"steps": 1}))
    assert 0 <= ends.min() < 0.01  # x_T is uniform noise
    assert 0.99 < ends.max() < 1
