"""Schedules against the numbers of the paper."""

import math

import numpy as np
import pytest
from pydantic import ValidationError

from ddpm.diffusion import schedule
from ddpm.params import Gaussian


@pytest.fixture
def paper_settings(diffusion_settings: Gaussian) -> Gaussian:
    return diffusion_settings.model_copy(update={"timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02})


def test_linear_betas_rise_in_equal_steps_between_their_ends(paper_settings: Gaussian) -> None:
    betas = schedule.betas(paper_settings)
    assert betas.shape == (1000,)
    assert betas.dtype == np.float64
    assert (betas[0], betas[-1]) == (1e-4, 0.02)
    np.testing.assert_allclose(np.diff(betas), (0.02 - 1e-4) / 999, rtol=1e-9)


def test_alpha_bar_is_the_running_product_from_one(diffusion_settings: Gaussian) -> None:
    betas = schedule.betas(diffusion_settings)
    alpha_bar = schedule.alpha_bar(diffusion_settings)
    assert alpha_bar.shape == (len(betas) + 1,)
    for t in range(len(betas) + 1):
        assert alpha_bar[t] == pytest.approx(math.prod(1 - beta for beta in betas[:t]), rel=1e-12)


def test_paper_schedule_leaves_the_published_signal_at_its_end(paper_settings: Gaussian) -> None:
    alpha_bar = schedule.alpha_bar(paper_settings)
    assert alpha_bar.dtype == np.float64
    assert alpha_bar[1] == 1 - 1e-4
    assert alpha_bar[-1] == pytest.approx(4.04e-5, rel=2e-3)  # the authors' code gives this


def test_one_step_keeps_precision_that_float32_would_lose(paper_settings: Gaussian) -> None:
    alpha_bar = schedule.alpha_bar(paper_settings)
    assert 1 - alpha_bar[1] == pytest.approx(1e-4, rel=1e-9)


def test_schedule_that_leaves_no_signal_is_refused(diffusion_settings: Gaussian) -> None:
    """From pure noise, eps tells nothing of x_0: dividing by the signal gave images of nan."""
    with pytest.raises(ValidationError, match="less than 1"):
        Gaussian.model_validate({**diffusion_settings.model_dump(), "beta_end": 1.0})
