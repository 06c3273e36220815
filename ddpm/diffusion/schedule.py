"""Variance schedules: beta_t of each step of the forward process, and their cumulative product alpha_bar_t."""

import numpy as np

from ddpm.params import Gaussian

_LARGEST = 0.999  # beta of the schedules defined by alpha_bar, which would end at beta_T = 1


def alpha_bar(settings: Gaussian) -> np.ndarray:
    """alpha_bar_0..alpha_bar_T, float64 of shape (T + 1,): the cumulative products of 1 - beta; equation (4).

    alpha_bar[0] is 1, so that index t is the paper's t.
    """
    return np.concatenate([[1.0], np.cumprod(1.0 - betas(settings))])


def betas(settings: Gaussian) -> np.ndarray:
    """beta_1..beta_T, float64 of shape (T,), in (0, 1].

    The first six are in the paper's code. `linear` rises from beta_start to beta_end in equal steps (Section 4). In
    `quad` the square root of beta does so. `const` is beta_end. `warmup10` and `warmup50` rise linearly over the first
    10 or 50 percent of the steps, then stay at beta_end. `jsd` is 1/T, 1/(T-1), .., 1, so that alpha_bar_t = 1 - t/T.
    `cosine`: alpha_bar follows a squared cosine (Nichol & Dhariwal 2021, equation (17)).
    `sigmoid`: alpha_bar follows a sigmoid from -3 to 3 (Jabri, Fleet, Chen 2022), 1/2 at half time.
    """
    steps, first, last = settings.timesteps, settings.beta_start, settings.beta_end
    match settings.schedule:
        case "linear":
            return np.linspace(_given(first), _given(last), steps)
        case "quad":
            return np.linspace(_given(first) ** 0.5, _given(last) ** 0.5, steps) ** 2
        case "const":
            return np.full(steps, _given(last))
        case "warmup10":
            return _warmup(_given(first), _given(last), steps, 0.1)
        case "warmup50":
            return _warmup(_given(first), _given(last), steps, 0.5)
        case "jsd":
            return 1.0 / np.linspace(steps, 1, steps)
        case "cosine":
            offset = 0.008  # without it beta_1 would be far smaller than the quantisation of the images
            angle = (np.linspace(0, 1, steps + 1) + offset) / (1 + offset) * np.pi / 2
            return _from_curve(np.cos(angle) ** 2)
        case "sigmoid":
            return _from_curve(_sigmoid(np.linspace(3, -3, steps + 1)) - _sigmoid(-3.0))


def _given(beta: float | None) -> float:
    assert beta is not None, "params.py must require the betas of a schedule"
    return beta


def _warmup(first: float, last: float, steps: int, part: float) -> np.ndarray:
    result = np.full(steps, last)
    rising = int(steps * part)
    result[:rising] = np.linspace(first, last, rising)
    return result


def _from_curve(curve: np.ndarray) -> np.ndarray:
    """The betas whose alpha_bar is proportional to the given curve; large betas at the end are limited."""
    return np.minimum(1 - curve[1:] / curve[:-1], _LARGEST)


def _sigmoid(x: np.ndarray | float) -> np.ndarray:
    return 1 / (1 + np.exp(-np.asarray(x)))
