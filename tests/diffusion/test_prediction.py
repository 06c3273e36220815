"""Every prediction determines x_0 at every time of every schedule."""

import pytest
import torch
from torch import Tensor

from ddpm.diffusion.prediction import Prediction, implied_x_0, target, x_0_error
from ddpm.diffusion.process import InterpolationProcess
from tests.diffusion.schedules import SCHEDULES, process

T = torch.arange(1, 1001)
PREDICTIONS: list[Prediction] = ["eps", "x_0", "v", "mu"]
# alpha_bar is 0 at the last time of jsd, so that eps does not determine x_0 there; params.py refuses the pair.
each_pair = pytest.mark.parametrize(
    ("name", "prediction"), [(n, p) for n in SCHEDULES for p in PREDICTIONS if (n, p) != ("jsd", "eps")]
)


def images(dtype: torch.dtype, count: int = 1000) -> tuple[Tensor, Tensor]:
    """x_0 and eps for each time in T."""
    generator = torch.Generator().manual_seed(0)
    x_0, eps = (torch.randn(count, 1, 2, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    return x_0.clamp(-1, 1).to(dtype), eps.to(dtype)


@each_pair
def test_image_is_recovered_from_the_target_at_every_time(name: str, prediction: Prediction) -> None:
    forward = process(name)
    for dtype, rounding in ((torch.float64, 1e-14), (torch.float32, 2e-6)):
        x_0, eps = images(dtype)
        x_t = forward.q_sample(x_0, T, eps)
        recovered = implied_x_0(prediction, forward, x_t, T, target(prediction, forward, x_0, x_t, T, eps))
        assert recovered.dtype == dtype
        # The rounding of the output is amplified in x_0 like every other error of the output.
        amplified = rounding * (1 + x_0_error(prediction, forward, T).sqrt())
        assert ((recovered - x_0).abs() <= amplified).all()


@pytest.mark.parametrize("name", SCHEDULES)
def test_targets_equal_their_definitions(name: str) -> None:
    forward = process(name)
    x_0, eps = images(torch.float64)
    a_t, a_s = (forward.alpha_bar[times].view(-1, 1, 1, 1) for times in (T, T - 1))
    beta = 1 - a_t / a_s
    x_t = a_t.sqrt() * x_0 + (1 - a_t).sqrt() * eps
    expected = {
        "eps": eps,
        "x_0": x_0,
        "v": a_t.sqrt() * eps - (1 - a_t).sqrt() * x_0,
        "mu": (a_s.sqrt() * beta * x_0 + (1 - beta).sqrt() * (1 - a_s) * x_t) / (1 - a_t),  # equation (7)
    }
    for prediction in PREDICTIONS:
        torch.testing.assert_close(target(prediction, forward, x_0, x_t, T, eps), expected[prediction])


@each_pair
def test_x_0_error_is_the_square_of_the_slope_of_x_0(name: str, prediction: Prediction) -> None:
    forward = process(name)
    x_t, output = images(torch.float64)
    slope = (
        implied_x_0(prediction, forward, x_t, T, output + 0.5) - implied_x_0(prediction, forward, x_t, T, output - 0.5)
    )[:, :1, :1, :1]
    found = x_0_error(prediction, forward, T)
    assert found.shape == (1000, 1, 1, 1)
    torch.testing.assert_close(found, slope**2, rtol=1e-8, atol=1e-15)


def test_interpolation_predicts_the_image_itself() -> None:
    forward = InterpolationProcess(1000)
    x_0, u = images(torch.float64)
    x_t = forward.q_sample(x_0, T, u)
    assert target("x_0", forward, x_0, x_t, T, u).equal(x_0)
    assert implied_x_0("x_0", forward, x_t, T, x_0).equal(x_0)
