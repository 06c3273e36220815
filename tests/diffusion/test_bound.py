"""Compare the variational bound with the paper's equations, computed here in float64."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from ddpm import images
from ddpm.diffusion import bound
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import GaussianProcess, Sigma
from tests.diffusion.schedules import gaussian, process, table

SHAPE = (5, 2, 3, 4)
T = torch.tensor([1, 2, 17, 50, 1])
RANGES = [[-1.0, 1.0], [0.0, 1.0]]
each_range = pytest.mark.parametrize("value_range", RANGES)


class FixedOutput(Denoiser):
    """A denoiser whose network returns a given x_0 and variance output, both kept in float64."""

    def output(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        predicted, variance = self.network(x_t, t)
        return predicted, None if self.settings.variance == "fixed" else variance


def batch(value_range: list[float]) -> tuple[Tensor, ...]:
    """x_0 on the grid of uint8 values, x_t, an estimate of x_0, and a random variance output."""
    generator = torch.Generator().manual_seed(0)
    grid = torch.randint(0, 256, SHAPE, generator=generator, dtype=torch.uint8)
    grid[:, 0, 0, :2] = torch.tensor([0, 255], dtype=torch.uint8)
    x_0 = images.to_float(grid, value_range).double()
    x_t, error, variance = (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(3))
    return x_0, x_t, x_0 + 0.05 * error, variance


def expected(x_0: Tensor, x_t: Tensor, estimate: Tensor, t: int, log_variance: Tensor, half_bin: float) -> float:
    """L_(t-1) of one image: equations (5), (7) and (13)."""
    a_t, a_s = table("linear", 50)[[t, t - 1]]
    beta = 1 - a_t / a_s

    def mean(image: Tensor) -> Tensor:
        return (math.sqrt(a_s) * beta * image + math.sqrt(1 - beta) * (1 - a_s) * x_t) / (1 - a_t)

    reverse = Normal(mean(estimate), (0.5 * log_variance).exp())
    if t > 1:
        truth = Normal(mean(x_0), math.sqrt((1 - a_s) / (1 - a_t) * beta))
        return kl_divergence(truth, reverse).mean().item() / math.log(2)
    upper, lower = reverse.cdf(x_0 + half_bin), reverse.cdf(x_0 - half_bin)
    upper[0, 0, 1], lower[0, 0, 0] = 1, 0  # the pixels 255 and 0
    return -(upper - lower).log().mean().item() / math.log(2)


def log_variance(settings: dict[str, Any], sigma: Sigma, output: Tensor, t: int) -> Tensor:
    """Section 3.2; at t = 1 the posterior's variance is that of t = 2, as in the paper's code."""
    a = table("linear", 50)
    beta = 1 - a[t] / a[t - 1]
    later = max(t, 2)
    small = math.log((1 - a[later - 1]) / (1 - a[later]) * (1 - a[later] / a[later - 1]))
    if settings["variance"] == "learned":
        return output
    if settings["variance"] == "learned_range":
        fraction = (output + 1) / 2
        return fraction * math.log(beta) + (1 - fraction) * small
    return torch.full_like(output, math.log(beta) if sigma == "large" and t > 1 else small)


@each_range
@pytest.mark.parametrize(
    ("variance", "sigma"),
    [("fixed", "large"), ("fixed", "small"), ("learned", "large"), ("learned_range", "large")],
)
def test_terms_equal_the_papers_equations(value_range: list[float], variance: str, sigma: Sigma) -> None:
    settings = {"prediction": "x_0", "variance": variance, "value_range": value_range}
    x_0, x_t, estimate, output = batch(value_range)
    denoiser = FixedOutput(lambda *_: (estimate, output), process("linear", 50), gaussian("linear", 50, **settings))
    found = bound.term(denoiser, denoiser(x_t, T, clip=False), x_0, x_t, T, sigma)
    half_bin = (value_range[1] - value_range[0]) / 510
    terms = [
        expected(x_0[i], x_t[i], estimate[i], t, log_variance(settings, sigma, output[i], t), half_bin)
        for i, t in enumerate(T.tolist())
    ]
    torch.testing.assert_close(found, torch.tensor(terms, dtype=torch.float64), rtol=1e-8, atol=1e-12)


def test_normal_kl_equals_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    mean_1, log_1, mean_2, log_2 = (torch.randn(SHAPE, generator=generator, dtype=torch.float64) for _ in range(4))
    first, second = Normal(mean_1, (log_1 / 2).exp()), Normal(mean_2, (log_2 / 2).exp())
    torch.testing.assert_close(bound.normal_kl(mean_1, log_1, mean_2, log_2), kl_divergence(first, second))


def test_normal_kl_of_almost_equal_variances_is_accurate_in_float32() -> None:
    """If the log variances differ by a small h, the divergence 0.5 (exp(h) - 1 - h) is about h^2 / 4."""
    zero, difference = torch.zeros(3), torch.tensor([-1e-2, 1e-2, 2e-2])
    torch.testing.assert_close(bound.normal_kl(zero, difference, zero, zero), difference**2 / 4, rtol=1e-2, atol=0)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("deviation", [1e-3, 0.004, 0.1, 3.0])
@each_range
def test_probabilities_of_all_bins_sum_to_one(
    value_range: list[float], deviation: float, dtype: torch.dtype, rounding: float
) -> None:
    low, high = value_range
    values = (low + (high - low) / 255 * torch.arange(256, dtype=torch.float64)).to(dtype)
    log_variance = torch.tensor(2 * math.log(deviation), dtype=dtype)
    for mean in (-0.4, 0.0, 0.123, 0.9, 1.0, 1.7):
        centre = torch.tensor(mean, dtype=dtype)
        nats = bound.discretised_log_likelihood(values, centre, log_variance, value_range)
        assert nats.dtype == dtype
        assert nats.double().exp().sum().item() == pytest.approx(1, abs=rounding)


@pytest.mark.parametrize("log_variance", [-20.0, -14.0, -7.0, 0.0, 6.0])
def test_gradient_is_finite_and_correct_far_from_the_mean(log_variance: float) -> None:
    x_0 = images.to_float(torch.tensor([0, 153, 255], dtype=torch.uint8), (-1.0, 1.0))
    mean = torch.tensor([-50.0, -1.0, 0.2, 1.0, 50.0])[:, None].expand(5, 3).clone().requires_grad_()
    spread = torch.full((5, 3), log_variance, requires_grad=True)
    nats = bound.discretised_log_likelihood(x_0, mean, spread, (-1.0, 1.0))
    by_mean, by_spread = torch.autograd.grad(nats.sum(), [mean, spread])
    assert torch.stack([nats, by_mean, by_spread]).isfinite().all()
    # Far from the mean, almost all probability of a bin lies at its nearer edge, z deviations away.
    # Its logarithm is about -z^2 / 2.
    for row, distance in ((0, -50.2 + 1 / 255), (4, 49.8 - 1 / 255)):
        if log_variance < 0:
            assert by_mean[row, 1].item() == pytest.approx(-distance / math.exp(log_variance), rel=1e-3)


@pytest.mark.parametrize("alpha_bar", [table("linear", 50), table("jsd", 50), np.array([1.0, 0.6, 0.3])])
def test_prior_term_is_the_divergence_from_the_standard_normal(alpha_bar: np.ndarray) -> None:
    forward = GaussianProcess(alpha_bar)
    x_0, *_ = batch([-1.0, 1.0])
    last = forward.alpha_bar[-1]
    deviation = (1 - last).sqrt()
    expected = kl_divergence(Normal(last.sqrt() * x_0, deviation), Normal(0.0, 1.0)).flatten(1).mean(1) / math.log(2)
    torch.testing.assert_close(bound.prior_term(forward, x_0), expected)
    torch.testing.assert_close(bound.prior_term(forward, x_0.float()), expected.float(), rtol=1e-4, atol=1e-9)
