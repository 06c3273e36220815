"""Variance schedules: beta_1..beta_T of the forward process, and the signal that is left of an image."""

import numpy as np

from ddpm.params import Diffusion


def betas(settings: Diffusion) -> np.ndarray:
    """beta_1..beta_T, float64 of shape (T,), in (0, 1); Section 4 of the paper.

    `linear`: equally spaced from beta_start to beta_end.
    """
    return np.linspace(settings.beta_start, settings.beta_end, settings.timesteps)


def alpha_bar(betas: np.ndarray) -> np.ndarray:
    """alpha_bar_0..alpha_bar_T, float64 of shape (T + 1,): the products of 1 - beta, with alpha_bar[0] = 1.

    Index t is the paper's t, so no step needs an array of previous values; equation (4).
    """
    return np.concatenate([[1.0], np.cumprod(1.0 - betas)])
