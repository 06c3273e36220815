"""The samplers with the Gaussian oracle: for x_0 ~ N(m, s^2) the best eps is known, so nothing need be trained.

A sampler is then an affine map of x_T and its noise. Every pixel here is an experiment of its own: one starts at zero
and gets no noise, the others get a single 1 at one place. Their results are the map's coefficients, which give the
exact mean and variance of the samples; they are compared with moments that the test propagates in float64.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import GaussianProcess, Sigma
from ddpm.params import Gaussian
from ddpm.sampling import ancestral, ddim
from ddpm.sampling.state import State

MEAN, STD = 0.4, 0.3
CHAINS = {
    "full": range(100, 0, -1),
    "trailing": range(100, 0, -10),
    "leading": range(91, 0, -10),
    "uneven": [97, 60, 59, 20, 3],
}
Sampler = Callable[[Tensor, Callable[[], Tensor]], Iterator[State]]
each_chain = pytest.mark.parametrize("chain", CHAINS)


class Oracle(Denoiser):
    """Answers E[eps | x_t], in float64."""

    def output(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        kept = self.gaussian.alpha_bar[t].view(-1, 1, 1, 1)
        return (1 - kept).sqrt() * (x_t - kept.sqrt() * MEAN) / (kept * STD**2 + 1 - kept), None


@pytest.fixture
def alpha_bar() -> np.ndarray:
    return np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-3, 0.15, 100))])


@pytest.fixture
def denoiser(alpha_bar: np.ndarray, diffusion_settings: Gaussian) -> Denoiser:
    return Oracle(lambda x_t, _index: x_t, GaussianProcess(alpha_bar), diffusion_settings)


def moments(sampler: Sampler, draws: int) -> tuple[float, float]:
    """Exact mean and variance of what a sampler makes of standard normal x_T and `draws` draws of noise."""
    units = torch.eye(draws + 2, dtype=torch.float64)  # pixel 0 is left alone
    rows = iter(units.view(draws + 2, 1, 1, 1, draws + 2))
    next(rows)
    *_, last = sampler(next(rows), lambda: next(rows))
    assert next(rows, None) is None, "the sampler drew less noise than it should"
    constant, *reached = last.x_0.flatten().tolist()
    return constant, sum((value - constant) ** 2 for value in reached)


def propagated(
    alpha_bar: np.ndarray, times: list[int], step: Callable[[float, float], tuple[float, float, float]]
) -> tuple[float, float]:
    """Mean and variance after the chain; `step(a_t, a_s)` gives x_s = of_x_0 E[x_0 | x_t] + of_x_t x_t + N(0, v)."""
    mean, variance = 0.0, 1.0
    for t, s in zip(times, [*times[1:], 0], strict=True):
        a_t, a_s = alpha_bar[t], alpha_bar[s]
        slope = a_t**0.5 * STD**2 / (a_t * STD**2 + 1 - a_t)  # E[x_0 | x_t] = MEAN + slope (x_t - sqrt(a_t) MEAN)
        of_x_0, of_x_t, added = step(a_t, a_s)
        mean = of_x_0 * (MEAN + slope * (mean - a_t**0.5 * MEAN)) + of_x_t * mean
        variance = (of_x_0 * slope + of_x_t) ** 2 * variance + (added if s > 0 else 0.0)
    return mean, variance


def bayes(a_t: float, a_s: float) -> tuple[float, float, float]:
    """x_s given x_0 and x_t: the gain of a measurement x_t = sqrt(alpha) x_s + noise on the prior N(sqrt(a_s) x_0)."""
    alpha = a_t / a_s
    gain = (1 - a_s) * alpha**0.5 / (alpha * (1 - a_s) + 1 - alpha)
    return a_s**0.5 * (1 - gain * alpha**0.5), gain, (1 - a_s) * (1 - gain * alpha**0.5)


@each_chain
@pytest.mark.parametrize("sigma", ["large", "small"])
def test_ancestral_sampling_has_the_moments_of_its_chain(
    denoiser: Denoiser, alpha_bar: np.ndarray, chain: str, sigma: Sigma
) -> None:
    def step(a_t: float, a_s: float) -> tuple[float, float, float]:
        of_x_0, of_x_t, posterior = bayes(a_t, a_s)
        return of_x_0, of_x_t, 1 - a_t / a_s if sigma == "large" else posterior

    times = list(CHAINS[chain])
    drawn = moments(lambda x, noise: ancestral.sample(denoiser, x, times, noise, sigma, clip=False), len(times) - 1)
    assert drawn == pytest.approx(propagated(alpha_bar, times, step), rel=1e-9)


@each_chain
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_has_the_moments_of_its_chain(denoiser: Denoiser, alpha_bar: np.ndarray, chain: str, eta: float) -> None:
    def step(a_t: float, a_s: float) -> tuple[float, float, float]:
        sigma = eta * ((1 - a_s) / (1 - a_t)) ** 0.5 * (1 - a_t / a_s) ** 0.5  # equation (16) of DDIM
        of_eps = max(1 - a_s - sigma**2, 0) ** 0.5  # and eps is (x_t - sqrt(a_t) x_0) / sqrt(1 - a_t)
        return a_s**0.5 - of_eps * (a_t / (1 - a_t)) ** 0.5, of_eps / (1 - a_t) ** 0.5, sigma**2

    times = list(CHAINS[chain])
    draws = len(times) - 1 if eta else 0
    drawn = moments(lambda x, noise: ddim.sample(denoiser, x, times, noise, eta, clip=False), draws)
    assert drawn == pytest.approx(propagated(alpha_bar, times, step), rel=1e-9)


@pytest.mark.parametrize("sigma", ["large", "small"])
def test_full_chain_comes_close_to_the_distribution_itself(denoiser: Denoiser, sigma: Sigma) -> None:
    times = list(CHAINS["full"])
    mean, variance = moments(lambda x, noise: ancestral.sample(denoiser, x, times, noise, sigma, clip=False), 99)
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert variance**0.5 == pytest.approx(STD, abs=0.05)


@each_chain
def test_ddim_with_eta_one_is_ancestral_sampling_with_small_sigma(denoiser: Denoiser, chain: str) -> None:
    def result(sample: Sampler) -> Tensor:
        generator = torch.Generator().manual_seed(0)

        def draw() -> Tensor:
            return torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)

        *_, last = sample(draw(), draw)
        return last.x_0

    times = list(CHAINS[chain])
    torch.testing.assert_close(
        result(lambda x, noise: ddim.sample(denoiser, x, times, noise, 1.0, clip=True)),
        result(lambda x, noise: ancestral.sample(denoiser, x, times, noise, "small", clip=True)),
    )


def no_noise() -> Tensor:
    raise AssertionError("noise was drawn")


def test_last_reverse_step_adds_no_noise(denoiser: Denoiser) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (1, 40):
        expected = denoiser(x, torch.tensor([t, t]), clip=False).x_0
        for sampler in (
            ancestral.sample(denoiser, x, [t], no_noise, "large", clip=False),
            ddim.sample(denoiser, x, [t], no_noise, 1.0, clip=False),
        ):
            *_, last = sampler
            assert last.t == 0
            torch.testing.assert_close(last.x_0, expected)
            assert last.x_t.equal(last.x_0)


def test_ddim_with_eta_zero_draws_no_noise(denoiser: Denoiser) -> None:
    states = list(ddim.sample(denoiser, torch.ones(2, 3, 4, 5).double(), [90, 30, 5], no_noise, 0.0, clip=False))
    assert [state.t for state in states] == [90, 30, 5, 0]


def test_states_hold_x_t_and_the_estimate_made_from_it(denoiser: Denoiser) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = [90, 30, 5]
    for states in (
        list(ancestral.sample(denoiser, x, times, lambda: 0.1 * torch.ones_like(x), "large", clip=True)),
        list(ddim.sample(denoiser, x, times, lambda: 0.1 * torch.ones_like(x), 0.5, clip=True)),
    ):
        assert [state.t for state in states] == [90, 30, 5, 0]
        assert states[0].x_t.equal(x)
        for state in states[:-1]:
            torch.testing.assert_close(
                state.x_0, denoiser(state.x_t, torch.full((2,), state.t), clip=True).x_0, rtol=0, atol=0
            )


def test_clipped_chains_end_within_the_value_range(denoiser: Denoiser) -> None:
    x = 30 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for clip in (True, False):
        for states in (
            ancestral.sample(denoiser, x, [20, 1], lambda: torch.zeros_like(x), "large", clip),
            ddim.sample(denoiser, x, [20, 1], lambda: torch.zeros_like(x), 0.0, clip),
        ):
            *_, last = states
            assert (last.x_0.abs().max() <= 1 + 1e-9) == clip
