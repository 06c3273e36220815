"""The variational bound on the negative log likelihood, equations (3) and (5), in bits per dimension."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ddpm.device import for_float64
from ddpm.diffusion.denoiser import Denoised, Denoiser
from ddpm.diffusion.process import GaussianProcess, Sigma


def term(denoiser: Denoiser, estimate: Denoised, x_0: Tensor, x_t: Tensor, t: Tensor, sigma: Sigma) -> Tensor:
    """L_(t-1) of equation (5) at times t in 1..T, in bits per dimension, float32 of shape (N,).

    For t > 1 it is KL(q(x_(t-1) | x_t, x_0) || p(x_(t-1) | x_t)), for t = 1 it is L_0 = -log p(x_0 | x_1). `estimate`
    is the denoiser's estimate for x_t; `sigma` chooses the variance of p if it is fixed.
    """
    process = denoiser.gaussian
    true_mean = process.posterior_mean(x_0, x_t, t, t - 1)
    mean = process.posterior_mean(estimate.x_0, x_t, t, t - 1)
    true_log_variance = process.posterior_log_variance(t, t - 1, "small").to(x_t)
    log_variance = denoiser.log_variance(estimate, t, t - 1, sigma).to(x_t)
    divergence = normal_kl(true_mean, true_log_variance, mean, log_variance)
    decoded = -discretised_log_likelihood(x_0, mean, log_variance, denoiser.value_range)
    return _bits(torch.where((t == 1).view(-1, 1, 1, 1), decoded, divergence))


def prior_term(process: GaussianProcess, x_0: Tensor) -> Tensor:
    """L_T of equation (5), KL(q(x_T | x_0) || N(0, I)), in bits per dimension, of shape (N,)."""
    t = torch.full((len(x_0),), process.timesteps, device=x_0.device)
    mean = process.signal(t, like=x_0) * x_0
    zero = torch.zeros((), dtype=x_0.dtype, device=x_0.device)
    return _bits(normal_kl(mean, (2 * process.noise(t).log()).to(x_0), zero, zero))


def normal_kl(mean_1: Tensor, log_variance_1: Tensor, mean_2: Tensor, log_variance_2: Tensor) -> Tensor:
    """KL(N(mean_1, variance_1) || N(mean_2, variance_2)) of each element, in nats."""
    ratio = log_variance_1 - log_variance_2
    return 0.5 * (ratio.expm1() - ratio + (mean_1 - mean_2) ** 2 * (-log_variance_2).exp())


def discretised_log_likelihood(x_0: Tensor, mean: Tensor, log_variance: Tensor, value_range: Sequence[float]) -> Tensor:
    """The log-probability of the bin of each value of x_0 under N(mean, variance), in nats; equation (13).

    x_0 holds the 256 values of uint8 in the value range. The outermost bins extend to infinity. The difference of the
    distribution function is computed from logarithms in the tail where both are small, so that even the farthest bin
    has a gradient. It is computed in float64: autograd differentiates log_ndtr through a difference of squares, which
    float32 rounds to zero a thousand standard deviations away from the mean.
    """
    low, high = value_range
    half_bin = (high - low) / 255 / 2
    where = for_float64(mean.device)
    distance = (x_0 - mean).to(where, torch.float64)
    inverse_std = (-0.5 * log_variance.to(where, torch.float64)).exp()
    upper = (distance + half_bin) * inverse_std
    lower = (distance - half_bin) * inverse_std
    # P(lower < z < upper) = P(-upper < z < -lower): choose the interval that is nearer to minus infinity.
    flip = lower + upper > 0
    near, far = torch.where(flip, -lower, upper), torch.where(flip, -upper, lower)
    log_near, log_far = torch.special.log_ndtr(near), torch.special.log_ndtr(far)
    inside = log_near + torch.log(-torch.expm1(log_far - log_near))
    x_0 = x_0.to(where)
    inside = torch.where(x_0 < low + half_bin, torch.special.log_ndtr(upper), inside)
    return torch.where(x_0 > high - half_bin, torch.special.log_ndtr(-lower), inside).to(mean)


def _bits(nats: Tensor) -> Tensor:
    """The mean over the elements of each image, in bits."""
    return nats.flatten(1).mean(1) / math.log(2)
