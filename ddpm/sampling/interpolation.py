"""Interpolation between two images in the latent space x_t, Section 4.3 of the paper."""

import torch
from torch import Tensor

from ddpm import rng
from ddpm.diffusion.denoiser import Denoiser
from ddpm.params import Sample
from ddpm.sampling.samplers import reverse, timesteps


@torch.no_grad()
def interpolate(denoiser: Denoiser, pair: Tensor, time: int, mixes: int, settings: Sample) -> Tensor:
    """Decode (1 - lambda) x_t + lambda x'_t for `mixes` values of lambda from 0 to 1: float32 (mixes, C, H, W).

    `pair` holds x_0 and x'_0, float32 (2, C, H, W) in the value range. x_t and x'_t are samples of q at t = `time`,
    each with its own noise, which is the same for every `time`. The reverse process takes `settings.steps` steps, but
    at most `time`. All mixes share its noise, so that they differ in lambda only.
    """
    process, device = denoiser.process, denoiser.process.device
    generator = rng.torch_generator(device, settings.seed, "interpolation")
    eps = process.prior(tuple(pair.shape), generator)
    x_t, other = process.q_sample(pair, torch.full((2,), time, device=device), eps)
    x = torch.lerp(x_t, other, torch.linspace(0, 1, mixes, device=device).view(-1, 1, 1, 1))

    def noise() -> Tensor:
        return torch.randn(x_t.shape, generator=generator, device=device).expand_as(x)

    rest = settings.model_copy(update={"steps": min(settings.steps, time)})
    *_, last = reverse(denoiser, rest, x, timesteps(rest, time), noise)
    return last.x_0
