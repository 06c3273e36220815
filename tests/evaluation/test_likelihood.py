"""Bits per dimension of Gaussian images, whose entropy and optimal denoiser are known."""

import math

import pytest
import torch
from torch import Tensor

from ddpm import images
from ddpm.diffusion.denoiser import Denoiser
from ddpm.evaluation.likelihood import Likelihood, measure
from tests.diffusion.schedules import gaussian, process

STD = 0.25
SHAPE = (7, 2, 8, 16)


class Oracle(Denoiser):
    """The optimal estimate of x_0 for x_0 ~ N(0, STD^2), and the log variance of x_(t-1) given x_t."""

    def output(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        a_t, a_s = (self.gaussian.alpha_bar[times].view(-1, 1, 1, 1) for times in (t, t - 1))
        total = a_t * STD**2 + 1 - a_t
        # x_(t-1) ~ N(0, a_s STD^2 + 1 - a_s) and x_t = sqrt(alpha) x_(t-1) + noise of variance 1 - alpha
        log_variance = ((a_s * STD**2 + 1 - a_s) * (1 - a_t / a_s) / total).log()
        x_0 = (a_t.sqrt() * STD**2 / total).float() * x_t
        return x_0, log_variance.float().expand_as(x_t)


def oracle(timesteps: int) -> Denoiser:
    settings = gaussian("cosine", timesteps, prediction="x_0", variance="learned")
    return Oracle(lambda x, _index: x, process("cosine", timesteps), settings)


def noise() -> Tensor:
    """Images from N(0, STD^2), rounded to the 256 grey levels."""
    x_0 = STD * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return images.to_float(images.to_uint8(x_0, (-1.0, 1.0)), (-1.0, 1.0))


def test_bound_of_the_optimal_denoiser_is_the_entropy_of_the_images() -> None:
    x_0 = noise().double()
    edges = torch.special.ndtr((x_0 + 1 / 255) / STD) - torch.special.ndtr((x_0 - 1 / 255) / STD)
    entropy = -edges.log2().mean().item()  # of these images; the expected value is 7.04 bits
    found = measure(oracle(1000), x_0.float(), 0, "large")
    assert entropy == pytest.approx(math.log2(STD * math.sqrt(2 * math.pi * math.e) * 255 / 2), abs=0.05)
    assert found.bits_per_dim == pytest.approx(entropy, abs=0.02)


def test_parts_add_up_to_the_bound() -> None:
    found = Likelihood(torch.tensor([2.0, 0.5, 0.25], dtype=torch.float64), 0.125, torch.zeros(3).double())
    assert (found.distortion, found.rate, found.bits_per_dim) == (2.0, 0.875, 2.875)


def test_x_0_error_of_the_optimal_denoiser_is_the_posterior_variance() -> None:
    found = measure(oracle(50), noise(), 0, "large")
    a = process("cosine", 50).alpha_bar[1:]
    expected = STD**2 * (1 - a) / (a * STD**2 + 1 - a)
    torch.testing.assert_close(found.x_0_error, expected, rtol=0.15, atol=1e-5)


def test_likelihood_does_not_depend_on_the_batch() -> None:
    whole, parts = (measure(oracle(50), noise(), 0, "large", batch_size=size) for size in (7, 3))
    torch.testing.assert_close(parts.terms, whole.terms, rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(parts.x_0_error, whole.x_0_error, rtol=1e-5, atol=1e-8)
    assert parts.prior == pytest.approx(whole.prior, rel=1e-5)


def test_each_image_has_its_own_noise() -> None:
    image = noise()[:1]
    alone, twice = (measure(oracle(20), x_0, 0, "large").terms for x_0 in (image, torch.cat([image, image])))
    assert not torch.allclose(alone, twice, rtol=1e-3)


def test_x_0_is_clipped() -> None:
    settings = gaussian("cosine", 20, prediction="x_0")
    denoiser = Denoiser(lambda x, _index: torch.full_like(x, 3.0), process("cosine", 20), settings)
    found = measure(denoiser, noise(), 0, "large").x_0_error
    torch.testing.assert_close(found, (1 - noise()).square().mean().double().expand(20))


def test_the_same_seed_gives_the_same_result_and_another_seed_a_different_one() -> None:
    first, same, other = (measure(oracle(20), noise(), seed, "large").terms for seed in (0, 0, 1))
    assert first.equal(same)
    assert not first.equal(other)


def test_terms_depend_on_the_choice_of_the_fixed_variance() -> None:
    settings = gaussian("cosine", 20, prediction="x_0")
    denoiser = Denoiser(lambda x, _index: 0.5 * x, process("cosine", 20), settings)
    large, small = (measure(denoiser, noise(), 0, sigma) for sigma in ("large", "small"))
    assert large.distortion == pytest.approx(small.distortion)  # at t = 1 both use the posterior variance of t = 2
    assert (large.terms[1:] != small.terms[1:]).all()


def test_progress_is_called_after_every_network_evaluation() -> None:
    calls: list[int] = []
    measure(oracle(20), noise(), 0, "large", batch_size=4, progress=calls.append)
    assert calls == [4] * 20 + [3] * 20
