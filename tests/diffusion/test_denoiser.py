"""The denoiser shifts t, splits a learned variance and clips x_0."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ddpm.diffusion import schedule
from ddpm.diffusion.denoiser import Denoised, Denoiser
from ddpm.diffusion.prediction import Prediction, target
from ddpm.diffusion.process import GaussianProcess, Sigma
from ddpm.params import Gaussian

SHAPE = (2, 3, 8, 16)


@pytest.fixture
def process(diffusion_settings: Gaussian) -> GaussianProcess:
    return GaussianProcess(schedule.alpha_bar(diffusion_settings))


def noisy(process: GaussianProcess, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 in [-2, 2], eps, and x_t, which mixes them."""
    generator = torch.Generator().manual_seed(0)
    x_0 = 4 * torch.rand(SHAPE, generator=generator) - 2
    eps = torch.randn(SHAPE, generator=generator)
    return x_0, eps, process.q_sample(x_0, t, eps)


def constant(output: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A network that returns `output` for every input."""
    return lambda _x, _index: output


def test_network_receives_t_minus_one(process: GaussianProcess, diffusion_settings: Gaussian) -> None:
    seen: list[Tensor] = []

    def network(x: Tensor, index: Tensor) -> Tensor:
        seen.append(index)
        return x

    Denoiser(network, process, diffusion_settings)(torch.zeros(SHAPE), torch.tensor([1, 20]), clip=False)
    torch.testing.assert_close(seen, [torch.tensor([0, 19])])


def test_true_eps_recovers_x_0(process: GaussianProcess, diffusion_settings: Gaussian) -> None:
    t = torch.tensor([3, 20])
    x_0, eps, x_t = noisy(process, t)
    estimate = Denoiser(constant(eps), process, diffusion_settings)(x_t, t, clip=False)
    torch.testing.assert_close(estimate.x_0, x_0, rtol=0, atol=1e-4)
    assert estimate.eps.equal(eps)


@pytest.mark.parametrize("value_range", [(-1.0, 1.0), (0.0, 1.0)])
def test_clip_limits_x_0_to_the_value_range(
    process: GaussianProcess, diffusion_settings: Gaussian, value_range: tuple[float, float]
) -> None:
    t = torch.tensor([3, 20])
    x_0, eps, x_t = noisy(process, t)
    settings = diffusion_settings.model_copy(update={"value_range": list(value_range)})
    estimate = Denoiser(constant(eps), process, settings)(x_t, t, clip=True)
    torch.testing.assert_close(estimate.x_0, x_0.clamp(*value_range), rtol=0, atol=1e-4)


@pytest.mark.parametrize("clip", [True, False])
def test_x_0_and_eps_always_combine_to_x_t(process: GaussianProcess, diffusion_settings: Gaussian, clip: bool) -> None:
    t = torch.tensor([3, 20])
    _, eps, x_t = noisy(process, t)
    estimate = Denoiser(constant(0.5 * eps), process, diffusion_settings)(x_t, t, clip)
    torch.testing.assert_close(process.q_sample(estimate.x_0, t, estimate.eps), x_t, rtol=0, atol=1e-5)


def test_output_is_float32_if_the_network_returns_bfloat16(
    process: GaussianProcess, diffusion_settings: Gaussian
) -> None:
    denoiser = Denoiser(constant(torch.ones(SHAPE, dtype=torch.bfloat16)), process, diffusion_settings)
    predicted, _ = denoiser.output(torch.ones(SHAPE), torch.tensor([1, 2]))
    assert predicted.dtype == torch.float32


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_learned_variance_is_the_second_half_of_the_channels(
    process: GaussianProcess, diffusion_settings: Gaussian, variance: str
) -> None:
    settings = diffusion_settings.model_copy(update={"variance": variance})
    output = torch.randn(2, 6, 8, 16, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(constant(output), process, settings)
    predicted, variance_output = denoiser.output(torch.zeros(SHAPE), torch.tensor([3, 20]))
    assert predicted.equal(output[:, :3])
    assert variance_output is not None
    assert variance_output.equal(output[:, 3:])


def learned(process: GaussianProcess, settings: Gaussian, variance: str, output: Tensor, t: int, s: int) -> Tensor:
    """The log variance of p(x_s | x_t) for a variance output of the network."""
    denoiser = Denoiser(constant(output), process, settings.model_copy(update={"variance": variance}))
    zeros = torch.zeros(SHAPE)
    times = (torch.full((2,), time) for time in (t, s))
    return denoiser.log_variance(Denoised(zeros, zeros, output), *times, "large")


def test_learned_variance_is_the_log_variance_itself(process: GaussianProcess, diffusion_settings: Gaussian) -> None:
    output = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    for t in (1, 2, 20):
        assert learned(process, diffusion_settings, "learned", output, t, t - 1).equal(output)


@pytest.mark.parametrize(("t", "s"), [(1, 0), (2, 1), (20, 19), (20, 1), (11, 6), (9, 0)])
def test_learned_range_interpolates_between_the_fixed_log_variances(
    process: GaussianProcess, diffusion_settings: Gaussian, t: int, s: int
) -> None:
    a = process.alpha_bar.tolist()
    upper = math.log(1 - a[t] / a[s])
    # At s = 0 the posterior variance is 0; the paper's code uses that of the step from 2 to 1.
    later, earlier = (t, s) if s > 0 else (2, 1)
    lower = math.log((1 - a[earlier]) / (1 - a[later]) * (1 - a[later] / a[earlier]))
    for output, expected in (
        (-1.0, lower),
        (1.0, upper),
        (0.0, (lower + upper) / 2),
        (1.5, 1.25 * upper - 0.25 * lower),
    ):
        found = learned(process, diffusion_settings, "learned_range", torch.full(SHAPE, output), t, s)
        torch.testing.assert_close(found, torch.full(SHAPE, expected))


@pytest.mark.parametrize("sigma", ["large", "small"])
def test_fixed_variance_is_that_of_the_process(
    process: GaussianProcess, diffusion_settings: Gaussian, sigma: Sigma
) -> None:
    denoiser, zeros = Denoiser(constant(torch.zeros(SHAPE)), process, diffusion_settings), torch.zeros(SHAPE)
    t, s = torch.tensor([1, 20]), torch.tensor([0, 19])
    found = denoiser.log_variance(Denoised(zeros, zeros, None), t, s, sigma)
    a = process.alpha_bar.tolist()
    small = [(1 - a[t - 1]) / (1 - a[t]) * (1 - a[t] / a[t - 1]) for t in (2, 20)]
    expected = small if sigma == "small" else [small[0], 1 - a[20] / a[19]]
    torch.testing.assert_close(found.flatten().exp().tolist(), expected)


@pytest.mark.parametrize("kind", ["x_0", "v", "mu"])
@pytest.mark.parametrize("clip", [True, False])
def test_every_prediction_gives_the_same_x_0_and_eps(
    process: GaussianProcess, diffusion_settings: Gaussian, kind: Prediction, clip: bool
) -> None:
    t = torch.tensor([3, 20])
    x_0, eps, x_t = noisy(process, t)
    network = constant(target(kind, process, x_0, x_t, t, eps))
    estimate = Denoiser(network, process, diffusion_settings.model_copy(update={"prediction": kind}))(x_t, t, clip)
    torch.testing.assert_close(estimate.x_0, x_0.clamp(-1, 1) if clip else x_0, rtol=0, atol=1e-4)
    torch.testing.assert_close(process.q_sample(estimate.x_0, t, estimate.eps), x_t, rtol=0, atol=1e-5)


def test_given_labels_reach_the_network(process: GaussianProcess, diffusion_settings: Gaussian) -> None:
    def network(x: Tensor, _index: Tensor, labels: Tensor | None = None) -> Tensor:
        return x if labels is None else x + labels.view(-1, 1, 1, 1)

    denoiser, x, t = Denoiser(network, process, diffusion_settings), torch.zeros(SHAPE), torch.tensor([1, 2])
    assert denoiser.given(None) is denoiser
    predicted, _ = denoiser.given(torch.tensor([5, 7])).output(x, t)
    assert predicted[:, 0, 0, 0].tolist() == [5, 7]
