"""The samplers with a Gaussian oracle, and the times they visit.

For x_0 ~ N(m, s^2) the optimal eps is known in closed form, so no network is trained. A sampler is then an affine map
of x_T and its noise. Every pixel is a separate experiment: the first starts at zero and has no noise, and each of the
others has a single 1 in x_T or in one draw of the noise. The results are the coefficients of the map. They give the
exact mean and variance of the samples, which are compared with moments propagated in float64.
"""

import math
from collections.abc import Callable, Iterator
from itertools import islice, pairwise
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import GaussianProcess, InterpolationProcess, Sigma
from ddpm.params import Gaussian, Interpolation, Sample
from ddpm.sampling.samplers import State, timesteps
from tests.diffusion.schedules import SCHEDULES, gaussian, table
from tests.sampling.chains import ancestral, ddim, dpm_solver, no_noise

MEAN, STD = 0.4, 0.3
CHAINS = {
    "full": range(100, 0, -1),
    "trailing": range(100, 0, -10),
    "leading": range(91, 0, -10),
    "uneven": [97, 60, 59, 20, 3],
}
Sampler = Callable[[Tensor, Callable[[], Tensor]], Iterator[State]]
Step = Callable[[int, int, np.ndarray], tuple[float, float, float]]  # see `propagated`
VARIANCE = {"learned": "learned", "learned_range": "learned_range"}  # else fixed
each_chain = pytest.mark.parametrize("chain", CHAINS)


class Oracle(Denoiser):
    """Predicts as the optimal network of its settings would, in float64."""

    def output(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        a_t, a_s = (self.gaussian.alpha_bar[times].view(-1, 1, 1, 1) for times in (t, t - 1))
        x_0 = MEAN + slope(a_t) * (x_t - a_t.sqrt() * MEAN)
        eps = (x_t - a_t.sqrt() * x_0) / (1 - a_t).sqrt()
        of_x_0, of_x_t, posterior = bayes(a_t, a_s)
        predicted = {
            "eps": eps,
            "x_0": x_0,
            "v": a_t.sqrt() * eps - (1 - a_t).sqrt() * x_0,
            "mu": of_x_0 * x_0 + of_x_t * x_t,
        }[self.settings.prediction]
        if self.settings.variance == "fixed":
            return predicted, None
        log_variance = (posterior + of_x_0**2 * left(a_t)).log()
        if self.settings.variance == "learned":
            return predicted, log_variance.expand_as(x_t)
        small, large = posterior.clamp_min(1e-30).log(), (1 - a_t / a_s).log()  # not used at s = 0
        return predicted, (2 * (log_variance - small) / (large - small) - 1).expand_as(x_t)


@pytest.fixture
def alpha_bar() -> np.ndarray:
    return np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-3, 0.15, 100))])


@pytest.fixture
def denoiser(alpha_bar: np.ndarray, diffusion_settings: Gaussian) -> Denoiser:
    return oracle(alpha_bar, diffusion_settings)


def oracle(alpha_bar: np.ndarray, settings: Gaussian) -> Denoiser:
    return Oracle(lambda x_t, _index: x_t, GaussianProcess(alpha_bar), settings)


def slope(a_t: Any) -> Any:
    """E[x_0 | x_t] = MEAN + slope (x_t - sqrt(a_t) MEAN)."""
    return a_t**0.5 * STD**2 / (a_t * STD**2 + 1 - a_t)


def left(a_t: Any) -> Any:
    """Var[x_0 | x_t]."""
    return STD**2 * (1 - a_t) / (a_t * STD**2 + 1 - a_t)


def bayes(a_t: Any, a_s: Any) -> tuple[Any, Any, Any]:
    """x_s given x_0 and x_t: the gain of a measurement x_t = sqrt(alpha) x_s + noise on the prior N(sqrt(a_s) x_0).

    The factors of x_0 and x_t in the mean, and the variance.
    """
    alpha = a_t / a_s
    gain = (1 - a_s) * alpha**0.5 / (alpha * (1 - a_s) + 1 - alpha)
    return a_s**0.5 * (1 - gain * alpha**0.5), gain, (1 - a_s) * (1 - gain * alpha**0.5)


def moments(sampler: Sampler, draws: int) -> tuple[float, float]:
    """Exact mean and variance of samples from standard normal x_T and `draws` draws of noise."""
    units = torch.eye(draws + 2, dtype=torch.float64)  # pixel 0 has no noise
    rows = iter(units.view(draws + 2, 1, 1, 1, draws + 2))
    next(rows)
    *_, last = sampler(next(rows), lambda: next(rows))
    assert next(rows, None) is None, "the sampler drew less noise than expected"
    constant, *reached = last.x_0.flatten().tolist()
    return constant, sum((value - constant) ** 2 for value in reached)


def propagated(alpha_bar: np.ndarray, times: list[int], step: Step) -> tuple[float, float]:
    """Mean and variance after the chain; `step(t, s, alpha_bar)` gives x_s = of_x_0 x_0_hat + of_x_t x_t + N(0, v)."""
    mean, variance = 0.0, 1.0
    for t, s in zip(times, [*times[1:], 0], strict=True):
        a_t = alpha_bar[t]
        of_x_0, of_x_t, added = step(t, s, alpha_bar)
        mean = of_x_0 * (MEAN + slope(a_t) * (mean - a_t**0.5 * MEAN)) + of_x_t * mean
        variance = (of_x_0 * slope(a_t) + of_x_t) ** 2 * variance + (added if s > 0 else 0.0)
    return mean, variance


def ancestral_step(kind: str) -> Step:
    """Algorithm 2 with one kind of variance."""

    def step(t: int, s: int, a: np.ndarray) -> tuple[float, float, float]:
        of_x_0, of_x_t, small = bayes(a[t], a[s])
        if s == 0:
            return of_x_0, of_x_t, 0.0
        own, _, single = bayes(a[t], a[t - 1])
        exact = single + own**2 * left(a[t])  # of x_(t-1) given x_t
        large = 1 - a[t] / a[s]
        if kind == "learned_range":  # interpolates as on a single step, also on a longer one
            share = math.log(exact / single) / math.log((1 - a[t] / a[t - 1]) / single) if t > 1 else 0.0
            exact = small ** (1 - share) * large**share
        return of_x_0, of_x_t, {"large": large, "small": small}.get(kind, exact)

    return step


def ddim_step(eta: float) -> Step:
    """Equations (12) and (16) of DDIM."""

    def step(t: int, s: int, a: np.ndarray) -> tuple[float, float, float]:
        a_t, a_s = a[t], a[s]
        sigma = eta * ((1 - a_s) / (1 - a_t)) ** 0.5 * (1 - a_t / a_s) ** 0.5
        of_eps = max(1 - a_s - sigma**2, 0) ** 0.5  # and eps is (x_t - sqrt(a_t) x_0) / sqrt(1 - a_t)
        return a_s**0.5 - of_eps * (a_t / (1 - a_t)) ** 0.5, of_eps / (1 - a_t) ** 0.5, sigma**2

    return step


def ancestral_moments(denoiser: Denoiser, times: list[int], kind: str) -> tuple[float, float]:
    sigma: Sigma | None = kind if kind in ("large", "small") else None  # type: ignore[assignment]
    return moments(lambda x, noise: ancestral(denoiser, x, times, noise, sigma, clip=False), len(times) - 1)


def ddim_moments(denoiser: Denoiser, times: list[int], eta: float) -> tuple[float, float]:
    draws = len(times) - 1 if eta else 0
    return moments(lambda x, noise: ddim(denoiser, x, times, noise, eta, clip=False), draws)


@each_chain
@pytest.mark.parametrize("kind", ["large", "small", "learned_range"])
def test_ancestral_sampling_has_the_moments_of_its_chain(
    alpha_bar: np.ndarray, diffusion_settings: Gaussian, chain: str, kind: str
) -> None:
    settings = diffusion_settings.model_copy(update={"variance": VARIANCE.get(kind, "fixed")})
    times = list(CHAINS[chain])
    drawn = ancestral_moments(oracle(alpha_bar, settings), times, kind)
    assert drawn == pytest.approx(propagated(alpha_bar, times, ancestral_step(kind)), rel=1e-9)


@each_chain
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_has_the_moments_of_its_chain(denoiser: Denoiser, alpha_bar: np.ndarray, chain: str, eta: float) -> None:
    times = list(CHAINS[chain])
    expected = propagated(alpha_bar, times, ddim_step(eta))
    assert ddim_moments(denoiser, times, eta) == pytest.approx(expected, rel=1e-9)


# Every schedule with every prediction on a short chain; one prediction on the paper's thousand steps.
COMBINATIONS = [
    (name, prediction, 40)
    for name in SCHEDULES
    for prediction in ("eps", "x_0", "v", "mu")
    if (name, prediction) != ("jsd", "eps")
] + [(name, "v", 1000) for name in ("linear", "jsd")]
each_combination = pytest.mark.parametrize(("name", "prediction", "timesteps"), COMBINATIONS)


@each_combination
@pytest.mark.parametrize("kind", ["large", "small", "learned", "learned_range"])
def test_ancestral_sampling_has_its_moments_with_every_schedule_and_prediction(
    name: str, prediction: str, timesteps: int, kind: str
) -> None:
    settings = gaussian(name, timesteps, prediction=prediction, variance=VARIANCE.get(kind, "fixed"))
    a, times = table(name, timesteps), list(range(timesteps, 0, -1))
    expected = propagated(a, times, ancestral_step(kind))
    assert ancestral_moments(oracle(a, settings), times, kind) == pytest.approx(expected, rel=1e-7)


@each_combination
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_has_its_moments_with_every_schedule_and_prediction(
    name: str, prediction: str, timesteps: int, eta: float
) -> None:
    a, times = table(name, timesteps), list(range(timesteps, 0, -1))
    drawn = ddim_moments(oracle(a, gaussian(name, timesteps, prediction=prediction)), times, eta)
    assert drawn == pytest.approx(propagated(a, times, ddim_step(eta)), rel=1e-7)


@each_combination
def test_dpm_solver_is_its_algorithm_with_every_schedule_and_prediction(
    name: str, prediction: str, timesteps: int
) -> None:
    a, times = table(name, timesteps), list(range(timesteps, 0, -3))
    denoiser = oracle(a, gaussian(name, timesteps, prediction=prediction))
    x = torch.tensor([0.0, 1.0, -2.5], dtype=torch.float64).view(1, 1, 1, 3)
    *_, last = dpm_solver(denoiser, x, times, clip=False)
    expected = [second_order(a, times, value) for value in x.flatten().tolist()]
    assert last.x_0.flatten().tolist() == pytest.approx(expected, rel=1e-7)


def second_order(a: np.ndarray, times: list[int], x: float) -> float:
    """Algorithm 2 of DPM-Solver++ for one number, in terms of lambda as in the paper."""

    def half_log_snr(t: int) -> float:
        return -math.inf if a[t] == 0 else math.inf if t == 0 else 0.5 * math.log(a[t] / (1 - a[t]))

    before: tuple[float, float] | None = None
    for t, s in zip(times, [*times[1:], 0], strict=True):
        h = half_log_snr(s) - half_log_snr(t)
        x_0 = MEAN + slope(a[t]) * (x - a[t] ** 0.5 * MEAN)
        d = x_0
        if before is not None and s > 0:
            r = before[1] / h
            d = (1 + 1 / (2 * r)) * x_0 - 1 / (2 * r) * before[0]
        x = ((1 - a[s]) / (1 - a[t])) ** 0.5 * x - a[s] ** 0.5 * math.expm1(-h) * d
        before = x_0, h
    return x


def flow_error(sample: Callable[[Denoiser, Tensor, list[int]], Iterator[State]], steps: int) -> float:
    """The error of a solver after `steps` steps from t = 20000 to 8000 of 40000."""
    a, first, end = table("linear", 40_000), 20_000, 8000
    denoiser = oracle(a, gaussian("linear", 40_000))
    times = [round(time) for time in np.linspace(first, end, steps + 1)]
    x = torch.tensor([-1.0, 0.5, 2.0], dtype=torch.float64).view(1, 1, 1, 3)
    *_, reached, _ = sample(denoiser, x, times)  # the step to t = 0 is of first order
    spread = [(a[t] * STD**2 + 1 - a[t]) ** 0.5 for t in (first, end)]
    exact = a[end] ** 0.5 * MEAN + spread[1] / spread[0] * (x - a[first] ** 0.5 * MEAN)  # the flow keeps quantiles
    return (reached.x_t - exact).abs().max().item()


def test_dpm_solver_converges_at_second_order_and_ddim_at_first() -> None:
    def order(sample: Callable[[Denoiser, Tensor, list[int]], Iterator[State]]) -> list[float]:
        errors = [flow_error(sample, steps) for steps in (20, 40, 80)]
        return [coarse / fine for coarse, fine in pairwise(errors)]

    assert order(lambda d, x, times: dpm_solver(d, x, times, clip=False)) == pytest.approx([4, 4], rel=0.1)
    assert order(lambda d, x, times: ddim(d, x, times, no_noise, 0.0, clip=False)) == pytest.approx([2, 2], rel=0.1)


def test_dpm_solvers_first_and_last_steps_are_those_of_ddim(denoiser: Denoiser) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for times, same in (([90], True), ([90, 30], True), ([90, 60, 30], False)):
        *_, solved = dpm_solver(denoiser, x, times, clip=True)
        *_, followed = ddim(denoiser, x, times, no_noise, 0.0, clip=True)
        assert torch.allclose(solved.x_0, followed.x_0, rtol=1e-9) == same


@pytest.mark.parametrize("variance", ["learned", "learned_range"])
def test_exact_mean_and_variance_keep_the_distribution_at_every_time(variance: str) -> None:
    """From t = T of jsd, which is pure noise, to x_1; compared with q(x_t), not with propagated moments."""
    a, draws = table("jsd", 60), 58
    denoiser = oracle(a, gaussian("jsd", 60, prediction="x_0", variance=variance))
    units = iter(torch.eye(draws + 2, dtype=torch.float64).view(draws + 2, 1, 1, 1, draws + 2)[1:])
    states = ancestral(denoiser, next(units), range(60, 0, -1), lambda: next(units), None, clip=False)
    for state in islice(states, 59):
        constant, *reached = state.x_t.flatten().tolist()
        assert constant == pytest.approx(a[state.t] ** 0.5 * MEAN, abs=1e-9)
        variance_found = sum((value - constant) ** 2 for value in reached)
        assert variance_found == pytest.approx(a[state.t] * STD**2 + 1 - a[state.t], rel=1e-9)


@pytest.mark.parametrize("timesteps", [40, 400])
def test_ddim_on_the_interpolation_process_is_the_courses_loop(timesteps: int) -> None:
    settings = Interpolation(
        process="interpolation", timesteps=timesteps, prediction="x_0", variance="fixed", value_range=[0.0, 1.0]
    )
    x_t = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    denoiser = Denoiser(lambda x, _index: torch.sin(3 * x), InterpolationProcess(timesteps), settings)
    times = list(range(timesteps, 0, -timesteps // 40))
    *_, last = ddim(denoiser, x_t, times, no_noise, 0.0, clip=False)
    x = x_t
    for i in range(40):
        x = x + (torch.sin(3 * x) - x) / (40 - i)
    torch.testing.assert_close(last.x_0, x, rtol=0, atol=2e-5)


@pytest.mark.parametrize("sigma", ["large", "small"])
def test_full_chain_comes_close_to_the_distribution_itself(denoiser: Denoiser, sigma: Sigma) -> None:
    times = list(CHAINS["full"])
    mean, variance = moments(lambda x, noise: ancestral(denoiser, x, times, noise, sigma, clip=False), 99)
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert variance**0.5 == pytest.approx(STD, abs=0.05)


@each_chain
def test_ddim_with_eta_1_is_ancestral_sampling_with_small_sigma(denoiser: Denoiser, chain: str) -> None:
    def result(sample: Sampler) -> Tensor:
        generator = torch.Generator().manual_seed(0)

        def draw() -> Tensor:
            return torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)

        *_, last = sample(draw(), draw)
        return last.x_0

    times = list(CHAINS[chain])
    torch.testing.assert_close(
        result(lambda x, noise: ddim(denoiser, x, times, noise, 1.0, clip=True)),
        result(lambda x, noise: ancestral(denoiser, x, times, noise, "small", clip=True)),
    )


def test_last_reverse_step_adds_no_noise(denoiser: Denoiser) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for t in (1, 40):
        expected = denoiser(x, torch.tensor([t, t]), clip=False).x_0
        for sampler in (
            ancestral(denoiser, x, [t], no_noise, "large", clip=False),
            ddim(denoiser, x, [t], no_noise, 1.0, clip=False),
        ):
            *_, last = sampler
            assert last.t == 0
            torch.testing.assert_close(last.x_0, expected)
            assert last.x_t.equal(last.x_0)


def test_ddim_with_eta_0_draws_no_noise(denoiser: Denoiser) -> None:
    states = list(ddim(denoiser, torch.ones(2, 3, 4, 5).double(), [90, 30, 5], no_noise, 0.0, clip=False))
    assert [state.t for state in states] == [90, 30, 5, 0]


def test_ddim_without_eta_is_ddim_with_eta_0(denoiser: Denoiser) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    without, zero = (list(ddim(denoiser, x, [90, 30, 5], no_noise, eta)) for eta in (None, 0.0))
    assert without[-1].x_0.equal(zero[-1].x_0)


def test_sampling_never_waits_for_the_device(alpha_bar: np.ndarray, diffusion_settings: Gaussian) -> None:
    """Tensors on the meta device have no values, so reading one on the host raises."""
    denoiser = Denoiser(lambda x_t, _index: x_t, GaussianProcess(alpha_bar, "meta"), diffusion_settings)
    x = torch.empty(2, 3, 4, 5, device="meta")
    for states in (
        ancestral(denoiser, x, [90, 30, 5], lambda: x, "small", clip=True),
        ddim(denoiser, x, [90, 30, 5], lambda: x, 0.5, clip=True),
        dpm_solver(denoiser, x, [90, 30, 5], clip=True),
    ):
        assert [state.t for state in states] == [90, 30, 5, 0]


def test_states_hold_x_t_and_the_estimate_made_from_it(denoiser: Denoiser) -> None:
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    times = [90, 30, 5]
    for states in (
        list(ancestral(denoiser, x, times, lambda: 0.1 * torch.ones_like(x), "large", clip=True)),
        list(ddim(denoiser, x, times, lambda: 0.1 * torch.ones_like(x), 0.5, clip=True)),
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
            ancestral(denoiser, x, [20, 1], lambda: torch.zeros_like(x), "large", clip),
            ddim(denoiser, x, [20, 1], lambda: torch.zeros_like(x), 0.0, clip),
        ):
            *_, last = states
            assert (last.x_0.abs().max() <= 1 + 1e-9) == clip


Spacing = Literal["leading", "trailing", "linspace", "quad"]


def spaced(settings: Sample, spacing: Spacing, steps: int, chain: int) -> list[int]:
    return timesteps(settings.model_copy(update={"spacing": spacing, "steps": steps}), chain)


@pytest.mark.parametrize(
    ("spacing", "steps", "chain", "expected"),
    [
        ("leading", 5, 1000, [801, 601, 401, 201, 1]),
        ("leading", 3, 10, [7, 4, 1]),
        ("trailing", 5, 1000, [1000, 800, 600, 400, 200]),
        ("trailing", 3, 10, [10, 7, 3]),
        ("linspace", 4, 10, [10, 7, 4, 1]),
        ("linspace", 3, 1000, [1000, 501, 1]),
        ("quad", 3, 1000, [801, 201, 1]),
        ("quad", 5, 500, [401, 226, 101, 26, 1]),
    ],
)
def test_spacing_gives_these_times(
    sample_settings: Sample, spacing: Spacing, steps: int, chain: int, expected: list[int]
) -> None:
    assert spaced(sample_settings, spacing, steps, chain) == expected


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace"])
def test_a_full_chain_visits_every_time(sample_settings: Sample, spacing: Spacing) -> None:
    for chain in (2, 7, 20, 1000):
        assert spaced(sample_settings, spacing, chain, chain) == list(range(chain, 0, -1))


@pytest.mark.parametrize("spacing", ["leading", "trailing", "linspace", "quad"])
def test_times_are_within_the_chain_and_at_most_steps(sample_settings: Sample, spacing: Spacing) -> None:
    for chain in (2, 7, 20, 63):
        for steps in range(1, chain + 1):
            times = spaced(sample_settings, spacing, steps, chain)
            assert times == sorted(set(times), reverse=True)
            assert 1 <= times[-1] <= times[0] <= chain
            assert len(times) == steps or (spacing == "quad" and len(times) < steps)


def test_quad_is_dense_near_the_image_and_merges_equal_times(sample_settings: Sample) -> None:
    assert spaced(sample_settings, "quad", 20, 20) == [17, 15, 13, 12, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]
