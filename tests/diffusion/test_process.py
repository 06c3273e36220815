"""Compare the Gaussian process with iterated single steps and with Bayes' rule, both computed here."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.diffusion import schedule
from ddpm.diffusion.process import GaussianProcess, InterpolationProcess, from_settings
from ddpm.params import Gaussian, Interpolation

SHAPE = (2, 3, 8, 16)
PAIRS = [(1, 0), (2, 1), (2, 0), (7, 3), (20, 19), (20, 1)]  # t and an earlier s


@pytest.fixture
def betas(diffusion_settings: Gaussian) -> np.ndarray:
    """beta_t at index t, so that index 0 is unused."""
    d = diffusion_settings
    return np.array([0.0] + [d.beta_start + i * (d.beta_end - d.beta_start) / 19 for i in range(20)])


@pytest.fixture
def process(diffusion_settings: Gaussian) -> GaussianProcess:
    return GaussianProcess(schedule.alpha_bar(diffusion_settings))


def times(value: int, count: int = SHAPE[0]) -> Tensor:
    return torch.full((count,), value)


def draw(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(count)]


def test_q_sample_has_the_moments_of_iterated_single_steps(process: GaussianProcess, betas: np.ndarray) -> None:
    x_0, one = torch.full(SHAPE, 0.7, dtype=torch.float64), torch.ones(SHAPE, dtype=torch.float64)
    mean, variance = 0.7, 0.0
    for t in range(1, 21):  # x_t = sqrt(1 - beta_t) x_(t-1) + sqrt(beta_t) eps, equation (2)
        mean, variance = (1 - betas[t]) ** 0.5 * mean, (1 - betas[t]) * variance + betas[t]
        torch.testing.assert_close(process.q_sample(x_0, times(t), 0 * one), mean * one)
        torch.testing.assert_close(process.q_sample(0 * one, times(t), one), variance**0.5 * one)


def test_each_image_of_a_batch_has_its_own_time(process: GaussianProcess) -> None:
    x_0, eps, x_t = draw(3)
    t, s = torch.tensor([3, 17]), torch.tensor([1, 9])
    together = [
        process.q_sample(x_0, t, eps),
        process.predict_x_0(x_t, t, eps),
        process.predict_eps(x_t, t, x_0),
        process.posterior_mean(x_0, x_t, t, s),
    ]
    for i in range(2):
        x, e, y = (tensor[i : i + 1] for tensor in (x_0, eps, x_t))
        ti, si = t[i : i + 1], s[i : i + 1]
        alone = [
            process.q_sample(x, ti, e),
            process.predict_x_0(y, ti, e),
            process.predict_eps(y, ti, x),
            process.posterior_mean(x, y, ti, si),
        ]
        torch.testing.assert_close([tensor[i : i + 1] for tensor in together], alone)


def test_q_sample_at_time_zero_is_x_0(process: GaussianProcess) -> None:
    x_0, eps = draw(2)
    assert process.q_sample(x_0, times(0), eps).equal(x_0)


def test_signal_and_noise_have_unit_energy_and_broadcast_over_images(process: GaussianProcess) -> None:
    t = torch.arange(21)
    assert process.signal(t).shape == process.noise(t).shape == (21, 1, 1, 1)
    torch.testing.assert_close(process.signal(t) ** 2 + process.noise(t) ** 2, torch.ones(21, 1, 1, 1).double())


def test_x_0_and_eps_are_recovered_at_every_time(process: GaussianProcess) -> None:
    x_0, eps = draw(2)
    for t in range(1, 21):
        x_t = process.q_sample(x_0, times(t), eps)
        torch.testing.assert_close(process.predict_x_0(x_t, times(t), eps), x_0)
        torch.testing.assert_close(process.predict_eps(x_t, times(t), x_0), eps)


def test_x_0_is_recovered_in_float32_at_every_time_of_the_papers_schedule(diffusion_settings: Gaussian) -> None:
    paper = diffusion_settings.model_copy(update={"timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02})
    process = GaussianProcess(schedule.alpha_bar(paper))
    t = torch.arange(1, 1001)
    x_0, eps = (torch.randn(1000, 1, 2, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    x_t = process.q_sample(x_0, t, eps)
    recovered = process.predict_x_0(x_t, t, eps)
    assert x_t.dtype == recovered.dtype == torch.float32
    # The rounding error grows with noise / signal, which is 157 at t = 1000.
    torch.testing.assert_close(recovered, x_0, rtol=0, atol=2e-4)


@pytest.mark.parametrize(("t", "s"), PAIRS)
def test_posterior_is_bayes_rule_on_gaussians(process: GaussianProcess, betas: np.ndarray, t: int, s: int) -> None:
    x_0, x_t = draw(2)
    a_s, alpha = np.prod(1 - betas[1 : s + 1]), np.prod(1 - betas[s + 1 : t + 1])
    # prior x_s ~ N(sqrt(a_s) x_0, 1 - a_s), likelihood x_t ~ N(sqrt(alpha) x_s, 1 - alpha)
    gain = (1 - a_s) * alpha**0.5 / (alpha * (1 - a_s) + 1 - alpha)
    mean = a_s**0.5 * x_0 + gain * (x_t - alpha**0.5 * a_s**0.5 * x_0)
    variance = (1 - a_s) * (1 - gain * alpha**0.5)
    torch.testing.assert_close(process.posterior_mean(x_0, x_t, times(t), times(s)), mean)
    expected = torch.full((2, 1, 1, 1), variance, dtype=torch.float64)
    torch.testing.assert_close(process.posterior_variance(times(t), times(s), "small"), expected)


def test_strided_posterior_is_the_composition_of_single_steps(process: GaussianProcess) -> None:
    x_0, x_t = draw(2)
    zeros, ones = torch.zeros_like(x_0), torch.ones_like(x_0)
    mean, variance = x_t, torch.zeros(2, 1, 1, 1, dtype=torch.float64)
    for t in range(12, 5, -1):
        slope = process.posterior_mean(zeros, ones, times(t), times(t - 1))[:, :1, :1, :1]
        mean = process.posterior_mean(x_0, mean, times(t), times(t - 1))
        variance = slope**2 * variance + process.posterior_variance(times(t), times(t - 1), "small")
    torch.testing.assert_close(process.posterior_mean(x_0, x_t, times(12), times(5)), mean)
    torch.testing.assert_close(process.posterior_variance(times(12), times(5), "small"), variance)


def test_large_variance_is_that_of_the_forward_step(process: GaussianProcess, betas: np.ndarray) -> None:
    for t in range(1, 21):
        expected = torch.full((2, 1, 1, 1), betas[t], dtype=torch.float64)
        torch.testing.assert_close(process.posterior_variance(times(t), times(t - 1), "large"), expected)
    strided = 1 - np.prod(1 - betas[4:10])  # of x_9 given x_3
    torch.testing.assert_close(process.posterior_variance(times(9, 1), times(3, 1), "large").item(), strided)


def test_step_to_time_zero_has_no_variance_and_returns_x_0(process: GaussianProcess) -> None:
    x_0, x_t = draw(2)
    for t in (1, 7, 20):
        torch.testing.assert_close(process.posterior_mean(x_0, x_t, times(t), times(0)), x_0)
        assert not process.posterior_variance(times(t), times(0), "small").any()


def test_alpha_bar_is_float64_and_images_keep_their_dtype(process: GaussianProcess) -> None:
    x_0, eps = (tensor.float() for tensor in draw(2))
    assert process.alpha_bar.dtype == torch.float64
    assert process.timesteps == 20
    assert process.q_sample(x_0, times(5), eps).dtype == torch.float32
    assert process.posterior_mean(x_0, eps, times(5), times(4)).dtype == torch.float32


@pytest.mark.parametrize("alpha_bar", [[0.9, 0.5], [1.0, 0.5, 0.5], [1.0, 0.5, 0.6], [1.0, 0.5, -0.1]])
def test_alpha_bar_that_does_not_fall_from_one_is_rejected(alpha_bar: list[float]) -> None:
    with pytest.raises(ValueError, match="fall strictly"):
        GaussianProcess(np.array(alpha_bar))


def test_alpha_bar_may_end_at_zero() -> None:
    process = GaussianProcess(np.array([1.0, 0.5, 0.0]))
    x_0, eps = draw(2)
    assert process.q_sample(x_0, times(2), eps).equal(eps)
    torch.testing.assert_close(process.posterior_mean(x_0, eps, times(2), times(1)), 0.5**0.5 * x_0)


def test_interpolation_mixes_image_and_noise_in_proportion_to_time() -> None:
    process = InterpolationProcess(20)
    x_0, u = draw(2)
    for t in range(21):
        torch.testing.assert_close(process.q_sample(x_0, times(t), u), (1 - t / 20) * x_0 + t / 20 * u)
        if t > 0:
            x_t = process.q_sample(x_0, times(t), u)
            torch.testing.assert_close(process.predict_eps(x_t, times(t), x_0), u)


def test_priors_are_standard_normal_and_uniform_from_zero_to_one() -> None:
    shape, seeded = (50, 2, 30, 40), torch.Generator().manual_seed
    normal = GaussianProcess(np.array([1.0, 0.5])).prior(shape, seeded(0))
    uniform = InterpolationProcess(20).prior(shape, seeded(0))
    for noise, mean, deviation in ((normal, 0.0, 1.0), (uniform, 0.5, 12**-0.5)):
        assert noise.shape == shape
        assert noise.dtype == torch.float32
        assert noise.mean().item() == pytest.approx(mean, abs=0.01)
        assert noise.std().item() == pytest.approx(deviation, abs=0.01)
    assert 0 <= uniform.min() < 0.001
    assert 0.999 < uniform.max() < 1
    assert normal.max() > 3


def test_the_noise_of_the_interpolation_process_is_uniform_in_the_value_range() -> None:
    settings = Interpolation(
        process="interpolation", timesteps=4, prediction="x_0", variance="fixed", value_range=[-1.0, 3.0]
    )
    noise = from_settings(settings).prior((50, 2, 30, 40), torch.Generator().manual_seed(0))
    assert (noise.min().item(), noise.max().item()) == pytest.approx((-1, 3), abs=0.001)
    assert noise.mean().item() == pytest.approx(1, abs=0.01)


def test_settings_choose_the_process(diffusion_settings: Gaussian) -> None:
    course = Interpolation(
        process="interpolation", timesteps=40, prediction="x_0", variance="fixed", value_range=[0.0, 1.0]
    )
    interpolation, gaussian = from_settings(course), from_settings(diffusion_settings)
    assert isinstance(interpolation, InterpolationProcess)
    assert isinstance(gaussian, GaussianProcess)
    assert (interpolation.timesteps, gaussian.timesteps) == (40, 20)
