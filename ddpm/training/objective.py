"""The training losses."""

import math

from torch import Tensor

from ddpm.diffusion import bound
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.prediction import target, x_0_error
from ddpm.params import Train

_HYBRID = 1 / 1000  # lambda of L_hybrid, Nichol & Dhariwal 2021, Section 3.1


def loss(denoiser: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor, settings: Train) -> Tensor:
    """The loss of a batch, a scalar: x_0 and eps are (N, C, H, W), t in 1..T is (N,).

    `simple`: the mean square error of the prediction; for eps that is L_simple, equation (14).
    `vlb`: the mean over times of the terms of the bound, in bits per dimension: L of equation (5) divided by T, as in
    the paper's code, with sigma^2 = beta_t where the variance is fixed.
    `hybrid`: L_simple for the prediction, and L / 1000 for the learned variance alone (Nichol & Dhariwal 2021).
    """
    x_t = denoiser.process.q_sample(x_0, t, eps)
    predicted, variance = denoiser.output(x_t, t)
    if settings.loss != "vlb":
        expected = target(denoiser.settings.prediction, denoiser.process, x_0, x_t, t, eps)
        error = (predicted - expected).square()
        if settings.weighting != "none":
            error = weight(denoiser, t, settings.min_snr_gamma).to(error) * error
        if settings.loss == "simple":
            return error.mean()
    mean = predicted if settings.loss == "vlb" else predicted.detach()  # L_hybrid: the bound trains the variance alone
    estimate = denoiser.interpret(mean, variance, x_t, t, clip=False)
    term = bound.term(denoiser, estimate, x_0, x_t, t, "large").mean()
    return term if settings.loss == "vlb" else error.mean() + _HYBRID * denoiser.process.timesteps * term


def weight(denoiser: Denoiser, t: Tensor, gamma: float | None) -> Tensor:
    """The weights that give a square error of x_0 the factor min(SNR, gamma), float64 of shape (N, 1, 1, 1).

    Hang et al. 2023, for every kind of prediction. Without gamma the factor is the SNR: the square error of eps.
    """
    process = denoiser.gaussian
    limit = math.inf if gamma is None else gamma
    return process.snr(t).clamp(max=limit) * x_0_error(denoiser.settings.prediction, process, t)
