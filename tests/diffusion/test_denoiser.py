"""The only place that shifts times and clips x_0."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import schedule
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import GaussianProcess
from ddpm.params import Gaussian

SHAPE = (2, 3, 8, 16)


@pytest.fixture
def process(diffusion_settings: Gaussian) -> GaussianProcess:
    return GaussianProcess(schedule.alpha_bar(diffusion_settings))


def noisy(process: GaussianProcess, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 in [-2, 2], eps, and the x_t made of both."""
    generator = torch.Generator().manual_seed(0)
    x_0 = 4 * torch.rand(SHAPE, generator=generator) - 2
    eps = torch.randn(SHAPE, generator=generator)
    return x_0, eps, process.q_sample(x_0, t, eps)


def answering(output: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that answers the same whatever it is asked."""
    return lambda _x, _index: output


def test_network_sees_times_counted_from_zero(process: GaussianProcess, diffusion_settings: Gaussian) -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, index: Tensor) -> Tensor:
        seen.append(index)
        return x

    Denoiser(network, process, diffusion_settings)(torch.zeros(SHAPE), torch.tensor([1, 20]), clip=False)
    torch.testing.assert_close(seen, [torch.tensor([0, 19])])


def test_true_noise_gives_the_image_back(process: GaussianProcess, diffusion_settings: Gaussian) -> None:
    t = torch.tensor([3, 20])
    x_0, eps, x_t = noisy(process, t)
    estimate = Denoiser(answering(eps), process, diffusion_settings)(x_t, t, clip=False)
    torch.testing.assert_close(estimate.x_0, x_0, rtol=0, atol=1e-4)
    assert estimate.eps.equal(eps)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_clip_holds_x_0_to_the_value_range(
    process: GaussianProcess, diffusion_settings: Gaussian, value_range: tuple[float, float]
) -> None:
    t = torch.tensor([3, 20])
    x_0, eps, x_t = noisy(process, t)
    settings = diffusion_settings.model_copy(update={"value_range": list(value_range)})
    estimate = Denoiser(answering(eps), process, settings)(x_t, t, clip=True)
    torch.testing.assert_close(estimate.x_0, x_0.clamp(*value_range), rtol=0, atol=1e-4)


@pytest.mark.parametrize("clip", [True, False])
def test_x_0_and_eps_always_make_up_x_t(process: GaussianProcess, diffusion_settings: Gaussian, clip: bool) -> None:
    t = torch.tensor([3, 20])
    _, eps, x_t = noisy(process, t)
    estimate = Denoiser(answering(0.5 * eps), process, diffusion_settings)(x_t, t, clip)
    torch.testing.assert_close(process.q_sample(estimate.x_0, t, estimate.eps), x_t, rtol=0, atol=1e-5)


def test_output_is_float32_whatever_the_network_computes_in(
    process: GaussianProcess, diffusion_settings: Gaussian
) -> None:
    denoiser = Denoiser(answering(torch.ones(SHAPE, dtype=torch.bfloat16)), process, diffusion_settings)
    predicted, _ = denoiser.output(torch.ones(SHAPE), torch.tensor([1, 2]))
    assert predicted.dtype == torch.float32
