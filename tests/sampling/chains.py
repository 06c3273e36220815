"""The reverse process with each sampler, for tests that need no other settings."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import Sigma
from ddpm.params import Sample
from ddpm.sampling.samplers import State, reverse

Noise = Callable[[], Tensor]


def no_noise() -> Tensor:
    """Noise for samplers that must not draw any."""
    raise AssertionError("noise was drawn")


def sample(**settings: Any) -> Sample:
    """Settings of a sampler."""
    usual = {"seed": 0, "count": 1, "batch_size": 16, "steps": 1, "spacing": "trailing", "clip": False}
    unused = {"eta": None, "sigma": None, "guidance": None}
    return Sample.model_validate({**usual, **unused, "precision": "fp32", **settings})


def ancestral(
    denoiser: Denoiser, x: Tensor, times: Sequence[int], noise: Noise, sigma: Sigma | None, clip: bool = False
) -> Iterator[State]:
    """Ancestral sampling."""
    return reverse(denoiser, sample(sampler="ancestral", sigma=sigma, clip=clip), x, times, noise)


def ddim(
    denoiser: Denoiser, x: Tensor, times: Sequence[int], noise: Noise, eta: float | None, clip: bool = False
) -> Iterator[State]:
    """DDIM."""
    return reverse(denoiser, sample(sampler="ddim", eta=eta, clip=clip), x, times, noise)


def dpm_solver(denoiser: Denoiser, x: Tensor, times: Sequence[int], clip: bool = False) -> Iterator[State]:
    """DPM-Solver++(2M), which draws no noise."""
    return reverse(denoiser, sample(sampler="dpm_solver", clip=clip), x, times, no_noise)
