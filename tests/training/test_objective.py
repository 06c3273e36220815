"""L_simple with networks whose error is known."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import GaussianProcess
from ddpm.params import Diffusion
from ddpm.training.objective import simple_loss

SHAPE = (2, 3, 8, 16)
T = torch.tensor([4, 17])


@pytest.fixture
def process(diffusion_settings: Diffusion) -> GaussianProcess:
    return GaussianProcess.from_settings(diffusion_settings)


def draw() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(SHAPE, generator=generator) * 2 - 1, torch.randn(SHAPE, generator=generator)


def answering(output: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that answers the same whatever it is asked."""
    return lambda _x, _index: output


def test_network_that_knows_the_noise_has_no_loss(process: GaussianProcess) -> None:
    x_0, eps = draw()
    assert simple_loss(Denoiser(answering(eps), process), x_0, T, eps).item() == 0


def test_loss_is_the_mean_square_error_over_all_pixels(process: GaussianProcess) -> None:
    x_0, eps = draw()
    loss = simple_loss(Denoiser(answering(eps + 0.5), process), x_0, T, eps)
    assert loss.shape == ()
    assert loss.item() == pytest.approx(0.25, rel=1e-6)
    zero = simple_loss(Denoiser(answering(torch.zeros(SHAPE)), process), x_0, T, eps)
    assert zero.item() == pytest.approx((eps.double() ** 2).sum().item() / (2 * 3 * 8 * 16), rel=1e-6)


def test_network_sees_the_noisy_image_and_its_time(process: GaussianProcess) -> None:
    x_0, eps = draw()

    def network(x_t: Tensor, index: Tensor) -> Tensor:
        """Solve x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps for eps."""
        kept = process.alpha_bar[index + 1].view(-1, 1, 1, 1)
        return (x_t - kept.sqrt() * x_0) / (1 - kept).sqrt()

    assert simple_loss(Denoiser(network, process), x_0, T, eps).item() < 1e-10


def test_every_image_weighs_the_same_whatever_its_time(process: GaussianProcess) -> None:
    x_0, eps = draw()
    for place in range(2):
        error = torch.zeros(SHAPE)
        error[place] = 1
        loss = simple_loss(Denoiser(answering(eps + error), process), x_0, T, eps)
        assert loss.item() == pytest.approx(0.5, rel=1e-6)


def test_loss_reaches_the_weights(process: GaussianProcess) -> None:
    x_0, eps = draw()
    weight = torch.tensor(0.5, requires_grad=True)
    simple_loss(Denoiser(answering(weight * eps), process), x_0, T, eps).backward()
    assert weight.grad is not None  # d/dw mean((w - 1)^2 eps^2)
    assert weight.grad.item() == pytest.approx(-(eps**2).mean().item(), rel=1e-5)
