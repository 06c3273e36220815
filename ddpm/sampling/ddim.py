"""Denoising diffusion implicit models (Song, Meng, Ermon 2021)."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.sampling.state import State


def sample(
    denoiser: Denoiser, x: Tensor, times: Sequence[int], noise: Callable[[], Tensor], eta: float, clip: bool
) -> Iterator[State]:
    """Follow DDIM's equation (12) along falling `times` and then to s = 0.

    x is x_T, (N, C, H, W); `noise()` draws standard normal numbers of its shape. With eta = 0 nothing is random
    but x_T, and the process need not be Gaussian: on the interpolation process each step is Euler's, and the chain the
    loop of the Hugging Face course. With eta = 1 each step has the variance of the posterior, as ancestral sampling
    with small sigma.
    """
    process = denoiser.process
    for time, earlier in zip(times, [*times[1:], 0], strict=True):
        t, s = (torch.full((len(x),), value, device=x.device) for value in (time, earlier))
        estimate = denoiser(x, t, clip)
        yield State(time, x, estimate.x_0)
        along_eps = process.noise(s)
        if eta > 0:
            variance = eta**2 * denoiser.gaussian.posterior_variance(t, s, "small")  # equation (16)
            along_eps = (along_eps**2 - variance).clamp_min(0).sqrt()
        x = process.signal(s).to(x.dtype) * estimate.x_0 + along_eps.to(x.dtype) * estimate.eps
        if eta > 0 and earlier > 0:
            x = x + variance.sqrt().to(x.dtype) * noise()
    yield State(0, x, x)
