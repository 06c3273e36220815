"""The losses, with networks whose error is known, against sums written out here."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import bound, schedule
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.prediction import Prediction, target
from ddpm.diffusion.process import GaussianProcess
from ddpm.params import Gaussian, Train
from ddpm.training.objective import loss, weight

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
def test_loss_of_the_optimal_network_is_zero(
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


def test_every_image_has_the_same_weight_at_every_time(denoiser: Make, train_settings: Train) -> None:
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


def learned(denoiser: Make, prediction: str) -> tuple[Denoiser, Tensor, Tensor]:
    """A denoiser that answers with two leaves: a prediction, and the place of its variance in the range."""
    generator = torch.Generator().manual_seed(1)
    predicted, variance = (torch.randn(SHAPE, generator=generator).requires_grad_() for _ in range(2))

    def network(_x: Tensor, _index: Tensor) -> Tensor:
        return torch.cat([predicted, variance], dim=1)

    return denoiser(network, prediction=prediction, variance="learned_range"), predicted, variance


def terms(denoiser: Denoiser) -> Tensor:
    """The bound's terms for `batch`, one for each image."""
    x_0, t, eps = batch()
    x_t = denoiser.process.q_sample(x_0, t, eps)
    return bound.term(denoiser, denoiser(x_t, t, clip=False), x_0, x_t, t, "large")


@each_prediction
def test_vlb_is_the_mean_term_of_the_bound(denoiser: Make, train_settings: Train, prediction: Prediction) -> None:
    settings = train_settings.model_copy(update={"loss": "vlb"})
    for chosen in (learned(denoiser, prediction)[0], denoiser(answering(0.5 * draw()[1]), prediction=prediction)):
        torch.testing.assert_close(loss(chosen, *batch(), settings), terms(chosen).mean())


@each_prediction
def test_hybrid_adds_a_thousandth_of_the_bound(
    denoiser: Make, train_settings: Train, process: GaussianProcess, prediction: Prediction
) -> None:
    chosen, predicted, _ = learned(denoiser, prediction)
    found = loss(chosen, *batch(), train_settings.model_copy(update={"loss": "hybrid"}))
    simple = (predicted - wanted(process, prediction)).square().mean()
    torch.testing.assert_close(found, simple + 20 * terms(chosen).mean() / 1000)  # L has T = 20 terms


@each_prediction
def test_bound_of_the_hybrid_trains_the_variance_alone(
    denoiser: Make, train_settings: Train, process: GaussianProcess, prediction: Prediction
) -> None:
    chosen, predicted, variance = learned(denoiser, prediction)
    found = loss(chosen, *batch(), train_settings.model_copy(update={"loss": "hybrid"}))
    by_prediction, by_variance = torch.autograd.grad(found, [predicted, variance])
    torch.testing.assert_close(by_prediction, 2 * (predicted - wanted(process, prediction)) / predicted.numel())
    torch.testing.assert_close(by_variance, torch.autograd.grad(terms(chosen).mean() / 50, variance)[0])


@pytest.mark.parametrize("gamma", [0.3, 5.0, 1e4])
@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_min_snr_weights_have_their_closed_forms(denoiser: Make, prediction: Prediction, gamma: float) -> None:
    chosen = denoiser(answering(torch.zeros(SHAPE)), prediction=prediction)
    t = torch.arange(1, 21)
    a = chosen.process.signal(t).flatten() ** 2
    snr = a / (1 - a)
    least = snr.clamp(max=gamma)
    expected = {"eps": least / snr, "x_0": least, "v": least / (snr + 1)}[prediction]
    torch.testing.assert_close(weight(chosen, t, gamma).flatten(), expected)


def test_each_image_is_weighed_by_its_own_time(denoiser: Make, process: GaussianProcess, train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"weighting": "min_snr", "min_snr_gamma": 0.5})
    chosen = denoiser(answering(draw()[1] + torch.tensor([1.0, 3.0]).view(2, 1, 1, 1)))
    a = process.alpha_bar[T]
    snr = (a / (1 - a)).tolist()
    expected = (min(snr[0], 0.5) / snr[0] * 1 + min(snr[1], 0.5) / snr[1] * 9) / 2
    assert loss(chosen, *batch(), settings).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("prediction", ["x_0", "v"])
def test_snr_weighting_makes_every_loss_that_of_the_noise(
    denoiser: Make, process: GaussianProcess, train_settings: Train, prediction: Prediction
) -> None:
    x_0, _, eps = batch()
    guess = wanted(process, prediction) + 0.3 * torch.randn(SHAPE, generator=torch.Generator().manual_seed(2))
    chosen = denoiser(answering(guess), prediction=prediction)
    implied = chosen(process.q_sample(x_0, T, eps), T, clip=False).eps
    found = loss(chosen, *batch(), train_settings.model_copy(update={"weighting": "snr"}))
    torch.testing.assert_close(found, (implied - eps).square().mean(), rtol=1e-4, atol=0)
