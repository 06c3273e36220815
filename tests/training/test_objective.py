"""The losses, with networks whose error is known, against sums written out here."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import schedule
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.prediction import Prediction, target
from ddpm.diffusion.process import GaussianProcess
from ddpm.params import Gaussian, Train
from ddpm.training.objective import loss

SHAPE = (2, 3, 8, 16)
T = torch.tensor([4, 17])
Network = Callable[[Tensor, Tensor], Tensor]
Make = Callable[..., Denoiser]
each_prediction = pytest.mark.parametrize("prediction", ["eps", "x_0", "v", "mu"])


@pytest.fixture
def process(diffusion_settings: Gaussian) -> GaussianProcess:
    return GaussianProcess(schedule.alpha_bar(diffusion_settings))


@pytest.fixture
def denoiser(process: GaussianProcess, diffusion_settings: Gaussian) -> Make:
    """A function from a network, and from what else differs from the paper, to a denoiser."""
    return lambda network, **changes: Denoiser(network, process, diffusion_settings.model_copy(update=changes))


def draw() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(SHAPE, generator=generator) * 2 - 1, torch.randn(SHAPE, generator=generator)


def batch() -> tuple[Tensor, Tensor, Tensor]:
    x_0, eps = draw()
    return x_0, T, eps


def answering(output: Tensor) -> Network:
    """A network that answers the same whatever it is asked."""
    return lambda _x, _index: output


def wanted(process: GaussianProcess, prediction: Prediction) -> Tensor:
    """What a network that knows everything answers for the images of `draw`."""
    x_0, eps = draw()
    return target(prediction, process, x_0, process.q_sample(x_0, T, eps), T, eps)


@each_prediction
def test_network_that_knows_everything_has_no_loss(
    denoiser: Make, process: GaussianProcess, train_settings: Train, prediction: Prediction
) -> None:
    knowing = denoiser(answering(wanted(process, prediction)), prediction=prediction)
    assert loss(knowing, *batch(), train_settings).item() == 0


@each_prediction
def test_simple_loss_is_the_mean_square_error_over_all_pixels(
    denoiser: Make, process: GaussianProcess, train_settings: Train, prediction: Prediction
) -> None:
    truth = wanted(process, prediction)
    found = loss(denoiser(answering(truth + 0.5), prediction=prediction), *batch(), train_settings)
    assert found.shape == ()
    assert found.item() == pytest.approx(0.25, rel=1e-5)
    zero = loss(denoiser(answering(torch.zeros(SHAPE)), prediction=prediction), *batch(), train_settings)
    assert zero.item() == pytest.approx((truth.double() ** 2).sum().item() / (2 * 3 * 8 * 16), rel=1e-5)


def test_network_sees_the_noisy_image_and_its_time(
    denoiser: Make, process: GaussianProcess, train_settings: Train
) -> None:
    x_0, _ = draw()

    def network(x_t: Tensor, index: Tensor) -> Tensor:
        """Solve x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps for eps."""
        kept = process.alpha_bar[index + 1].view(-1, 1, 1, 1)
        return (x_t - kept.sqrt() * x_0) / (1 - kept).sqrt()

    assert loss(denoiser(network), *batch(), train_settings).item() < 1e-10


def test_every_image_weighs_the_same_whatever_its_time(denoiser: Make, train_settings: Train) -> None:
    _, eps = draw()
    for place in range(2):
        error = torch.zeros(SHAPE)
        error[place] = 1
        found = loss(denoiser(answering(eps + error)), *batch(), train_settings)
        assert found.item() == pytest.approx(0.5, rel=1e-6)


def test_loss_reaches_the_weights(denoiser: Make, train_settings: Train) -> None:
    _, eps = draw()
    scale = torch.tensor(0.5, requires_grad=True)
    loss(denoiser(answering(scale * eps)), *batch(), train_settings).backward()
    assert scale.grad is not None  # d/dw mean((w - 1)^2 eps^2)
    assert scale.grad.item() == pytest.approx(-(eps**2).mean().item(), rel=1e-5)
