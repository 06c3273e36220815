"""Compare schedules with their closed forms and with published values."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from pydantic import ValidationError

from ddpm.diffusion import schedule
from ddpm.params import Gaussian
from tests.diffusion.schedules import SCHEDULES, gaussian

B, E = 1e-4, 0.02  # beta_1 and beta_T of the paper


def ramp(t: int, count: int) -> float:
    """From beta_1 at t = 1 to beta_T at t = count."""
    return B + (E - B) * (t - 1) / (count - 1)


CLOSED: dict[str, Callable[[int], float]] = {  # beta_t of T = 1000
    "linear": lambda t: ramp(t, 1000),
    "quad": lambda t: (math.sqrt(B) + (math.sqrt(E) - math.sqrt(B)) * (t - 1) / 999) ** 2,
    "const": lambda _t: E,
    "warmup10": lambda t: ramp(t, 100) if t <= 100 else E,
    "warmup50": lambda t: ramp(t, 500) if t <= 500 else E,
    "jsd": lambda t: 1 / (1000 - t + 1),
}


@pytest.mark.parametrize("name", CLOSED)
def test_betas_have_their_closed_form(name: str) -> None:
    betas = schedule.betas(gaussian(name))
    assert betas.shape == (1000,)
    assert betas.dtype == np.float64
    np.testing.assert_allclose(betas, [CLOSED[name](t) for t in range(1, 1001)], rtol=1e-12)


def squared_cosine(time: float) -> float:
    """f(t) of Nichol & Dhariwal's equation (17), for time = t / T."""
    return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2


def falling_sigmoid(time: float) -> float:
    """sigmoid(3) - sigmoid(6 time - 3) for time = t / T, written with tanh."""
    return 0.5 * (math.tanh(1.5) - math.tanh((6 * time - 3) / 2))


@pytest.mark.parametrize(("name", "curve"), [("cosine", squared_cosine), ("sigmoid", falling_sigmoid)])
def test_alpha_bar_follows_its_curve_until_beta_is_clipped(name: str, curve: Callable[[float], float]) -> None:
    betas, alpha_bar = schedule.betas(gaussian(name)), schedule.alpha_bar(gaussian(name))
    assert betas[-1] == betas.max() == 0.999
    for t in range(1000):
        assert alpha_bar[t] == pytest.approx(curve(t / 1000) / curve(0), rel=1e-9)
    assert alpha_bar[1000] == pytest.approx(alpha_bar[999] * 0.001, rel=1e-12)


def test_alpha_bar_of_sigmoid_is_one_half_at_half_time() -> None:
    assert schedule.alpha_bar(gaussian("sigmoid"))[500] == pytest.approx(0.5, rel=1e-12)


def test_jsd_removes_an_equal_share_of_the_signal_per_step() -> None:
    alpha_bar = schedule.alpha_bar(gaussian("jsd"))
    np.testing.assert_allclose(alpha_bar, [1 - t / 1000 for t in range(1001)], rtol=0, atol=1e-13)
    assert alpha_bar[1000] == 0


@pytest.mark.parametrize("timesteps", [21, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_alpha_bar_is_the_cumulative_product_of_one_minus_beta(name: str, timesteps: int) -> None:
    betas, alpha_bar = (make(gaussian(name, timesteps)) for make in (schedule.betas, schedule.alpha_bar))
    assert alpha_bar.shape == (timesteps + 1,)
    for t in (0, 1, 2, timesteps // 2, timesteps):
        assert alpha_bar[t] == pytest.approx(math.prod(1 - beta for beta in betas[:t]), rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_signal_falls_at_every_step(name: str) -> None:
    betas = schedule.betas(gaussian(name))
    assert (betas > 0).all()
    assert (betas <= 1).all()
    assert (np.diff(schedule.alpha_bar(gaussian(name))) < 0).all()


def test_alpha_bar_of_the_papers_schedule_ends_at_the_value_of_its_code() -> None:
    alpha_bar = schedule.alpha_bar(gaussian("linear"))
    assert alpha_bar.dtype == np.float64
    assert alpha_bar[1] == 1 - 1e-4
    assert alpha_bar[-1] == pytest.approx(4.04e-5, rel=2e-3)  # value of the authors' code


def test_first_step_has_more_precision_than_float32() -> None:
    assert 1 - schedule.alpha_bar(gaussian("linear"))[1] == pytest.approx(1e-4, rel=1e-9)


def test_schedule_that_leaves_no_signal_is_refused(diffusion_settings: Gaussian) -> None:
    """Without signal, eps does not determine x_0, and the division by the signal gives nan."""
    with pytest.raises(ValidationError, match="less than 1"):
        Gaussian.model_validate({**diffusion_settings.model_dump(), "beta_end": 1.0})
