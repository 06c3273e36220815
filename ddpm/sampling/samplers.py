"""The reverse process: one loop over the times, and the update rules of the samplers.

An update rule maps x_t, the denoiser's estimate from it, and the times t and s < t to the mean of x_s and its standard
deviation. The standard deviation is None if the rule is deterministic. The times are int64 (1,): all images have the
same, so their embedding and their statistics are computed once, not for each image.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoised, Denoiser
from ddpm.diffusion.process import GaussianProcess, Sigma
from ddpm.params import Sample

Update = tuple[Tensor, Tensor | None]
Rule = Callable[[Tensor, Denoised, Tensor, Tensor], Update]


@dataclass(frozen=True)
class State:
    """x_t at time t and the x_0 predicted from it, both (N, C, H, W). At t = 0 both are the sample."""

    t: int
    x_t: Tensor
    x_0: Tensor


def reverse(
    denoiser: Denoiser, settings: Sample, x: Tensor, times: Sequence[int], noise: Callable[[], Tensor]
) -> Iterator[State]:
    """Sample along falling `times`, then at s = 0: Algorithm 2 of the paper with the rule of `settings.sampler`.

    x is x_t at times[0], (N, C, H, W). `noise()` draws standard normal noise of its shape.
    """
    update = _rule(denoiser, settings)
    for time, earlier in pairwise([*times, 0]):
        t, s = (torch.full((1,), value, device=x.device) for value in (time, earlier))
        estimate = denoiser(x, t, settings.clip)
        yield State(time, x, estimate.x_0)
        x, std = update(x, estimate, t, s)
        if std is not None and earlier > 0:  # the last step returns the mean
            x = x + std.to(x) * noise()
    yield State(0, x, x)


def _rule(denoiser: Denoiser, settings: Sample) -> Rule:
    match settings.sampler:
        case "ancestral":
            return partial(ancestral, denoiser, settings.sigma or "large")
        case "ddim":
            return partial(ddim, denoiser, settings.eta or 0.0)
        case "dpm_solver":
            return DPMSolver(denoiser.gaussian)


def ancestral(denoiser: Denoiser, sigma: Sigma, x_t: Tensor, estimate: Denoised, t: Tensor, s: Tensor) -> Update:
    """p(x_s | x_t), equation (1) of the paper: the posterior mean at the predicted x_0, equation (7).

    `sigma` chooses the variance if the network has not learned it.
    """
    mean = denoiser.gaussian.posterior_mean(estimate.x_0, x_t, t, s)
    return mean, (0.5 * denoiser.log_variance(estimate, t, s, sigma)).exp()


def ddim(denoiser: Denoiser, eta: float, x_t: Tensor, estimate: Denoised, t: Tensor, s: Tensor) -> Update:
    """DDIM (Song, Meng, Ermon 2021), equation (12), with the standard deviation of equation (16).

    eta = 0 is deterministic and needs no Gaussian process: on the interpolation process it is Euler's method, the loop
    of the Hugging Face course. eta = 1 has the variance of ancestral sampling with small sigma.
    """
    process, std = denoiser.process, None
    along_eps = process.noise(s)
    if eta > 0:
        variance = eta**2 * denoiser.gaussian.posterior_variance(t, s, "small")
        along_eps, std = (along_eps**2 - variance).clamp_min(0).sqrt(), variance.sqrt()
    mean = process.signal(s, like=x_t) * estimate.x_0 + along_eps.to(x_t) * estimate.eps
    return mean, std


class DPMSolver:
    """DPM-Solver++(2M), Algorithm 2 of Lu et al. (2022): the probability flow ODE in x_0, solved to second order.

    Each step extrapolates x_0 linearly in lambda, half the log signal-to-noise ratio, from the last two predictions.
    The first step has one prediction, and the last has infinite size in lambda, so both are of first order, as DDIM's.
    """

    def __init__(self, process: GaussianProcess) -> None:
        self._process = process
        self._previous: tuple[Tensor, Tensor] | None = None  # x_0 and h of the previous step

    def __call__(self, x_t: Tensor, estimate: Denoised, t: Tensor, s: Tensor) -> Update:
        """x_s = (sigma_s / sigma_t) x_t + alpha_s (1 - exp(-h)) D, with h = lambda_s - lambda_t."""
        process, x_0 = self._process, estimate.x_0
        h = 0.5 * (process.snr(s).log() - process.snr(t).log())
        extrapolated = x_0  # D
        if self._previous is not None:
            previous, previous_h = self._previous
            weight = (0.5 * h / previous_h).masked_fill(h.isinf(), 0.0)
            extrapolated = x_0 + weight.to(x_t) * (x_0 - previous)
        self._previous = x_0, h
        ratio = process.noise(s) / process.noise(t)
        along_x_0 = process.signal(s) - ratio * process.signal(t)  # alpha_s (1 - exp(-h)), also where h is infinite
        return ratio.to(x_t) * x_t + along_x_0.to(x_t) * extrapolated, None


def timesteps(settings: Sample, timesteps: int) -> list[int]:
    """The times t in 1..T at which the network is evaluated, falling; at most `settings.steps` of them.

    `leading`: every (T // steps)-th time from t = 1, as in DDIM's code; it starts below T.
    `trailing`: every (T / steps)-th time down from T, so it starts from pure noise.
    `linspace`: evenly spaced from T to 1, both included.
    `quad`: squares of evenly spaced numbers up to sqrt(0.8 T), dense near the image; Section D.2 of DDIM. Times that
    round to the same integer are merged, so a short chain has fewer than `steps` times.
    """
    steps = settings.steps
    match settings.spacing:
        case "leading":
            times = 1 + np.arange(steps) * (timesteps // steps)
        case "trailing":
            times = np.round(np.arange(steps, 0, -1) * (timesteps / steps)).astype(int)
        case "linspace":
            times = 1 + np.round(np.linspace(timesteps - 1, 0, steps)).astype(int)  # rounds halves as diffusers does
        case "quad":
            times = 1 + (np.linspace(0, np.sqrt(0.8 * timesteps), steps) ** 2).astype(int)
    return [int(t) for t in np.unique(times)[::-1]]
