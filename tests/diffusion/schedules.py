"""Every schedule for any number of steps T, with betas scaled so that the chain ends with the paper's noise."""

from typing import Any, get_args

import numpy as np

from ddpm.diffusion import schedule
from ddpm.diffusion.process import GaussianProcess
from ddpm.params import Gaussian

SCHEDULES = get_args(Gaussian.model_fields["schedule"].annotation)
# beta_start and beta_end; the other schedules take both.
BETAS = {"const": (None, 0.02), "jsd": (None, None), "cosine": (None, None), "sigmoid": (None, None)}


def gaussian(name: str, timesteps: int = 1000, **changes: Any) -> Gaussian:
    """Settings of section `diffusion` with the paper's betas, scaled by 1000 / timesteps."""
    first, last = BETAS.get(name, (1e-4, 0.02))
    values = {
        "process": "gaussian",
        "timesteps": timesteps,
        "schedule": name,
        "beta_start": first and first * 1000 / timesteps,
        "beta_end": last and last * 1000 / timesteps,
        "prediction": "eps",
        "variance": "fixed",
        "value_range": [-1.0, 1.0],
    }
    return Gaussian.model_validate({**values, **changes})


def process(name: str, timesteps: int = 1000) -> GaussianProcess:
    """The Gaussian process of a schedule."""
    return GaussianProcess(schedule.alpha_bar(gaussian(name, timesteps)))


def table(name: str, timesteps: int = 1000) -> np.ndarray:
    """alpha_bar of a schedule."""
    return schedule.alpha_bar(gaussian(name, timesteps))
