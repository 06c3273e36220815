"""Bits per dimension: the variational bound on test images, Section 4.3 of the paper."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ddpm import rng
from ddpm.device import for_float64
from ddpm.diffusion import bound
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import Sigma


@dataclass(frozen=True)
class Likelihood:
    """The terms of the bound, each a mean over images, in bits per dimension, float64 on the host."""

    terms: Tensor  # (T,): L_(t-1) of equation (5) at index t - 1
    prior: float  # L_T
    x_0_error: Tensor  # (T,): the mean squared error of the predicted x_0, in units of the value range

    @property
    def distortion(self) -> float:
        """L_0: the bits to encode x_0 given x_1."""
        return float(self.terms[0])

    @property
    def rate(self) -> float:
        """L_1 + .. + L_T: the bits to encode x_1."""
        return float(self.terms[1:].sum()) + self.prior

    @property
    def bits_per_dim(self) -> float:
        """The whole bound, equation (5)."""
        return self.rate + self.distortion


@torch.no_grad()
def measure(
    denoiser: Denoiser,
    x_0: Tensor,
    seed: int,
    sigma: Sigma,
    batch_size: int = 256,
    progress: Callable[[int], object] | None = None,
) -> Likelihood:
    """The bound for images x_0, float32 (N, C, H, W) in the value range, with fresh noise at each of the T times.

    The predicted x_0 is clipped, as in the paper's code. `sigma` chooses a fixed variance. Noise comes from (seed,
    "likelihood", image), so it depends neither on the batch nor on the number of images. `progress(n)` is called after
    each network evaluation of n images.
    """
    process, device = denoiser.gaussian, denoiser.process.device
    timesteps = process.timesteps
    terms, errors = (torch.zeros(timesteps, dtype=torch.float64, device=for_float64(device)) for _ in range(2))
    prior = torch.zeros((), dtype=torch.float64, device=for_float64(device))
    for first in range(0, len(x_0), batch_size):
        batch = x_0[first : first + batch_size].to(device)
        generators = [
            rng.torch_generator(device, seed, "likelihood", image) for image in range(first, first + len(batch))
        ]
        prior += bound.prior_term(process, batch).to(prior).sum()
        for time in range(timesteps, 0, -1):
            t = torch.full((len(batch),), time, device=device)
            eps = torch.stack([torch.randn(batch.shape[1:], generator=g, device=device) for g in generators])
            x_t = process.q_sample(batch, t, eps)
            estimate = denoiser(x_t, t, clip=True)
            terms[time - 1] += bound.term(denoiser, estimate, batch, x_t, t, sigma).to(terms).sum()
            errors[time - 1] += (estimate.x_0 - batch).square().flatten(1).mean(1).to(errors).sum()
            if progress is not None:
                progress(len(batch))
    count = len(x_0)
    return Likelihood(terms.cpu() / count, float(prior) / count, errors.cpu() / count)
