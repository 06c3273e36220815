"""Algorithm 2 of the paper, on the full chain or on any part of it."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.process import Sigma
from ddpm.sampling.state import State


def sample(
    denoiser: Denoiser, x: Tensor, times: Sequence[int], noise: Callable[[], Tensor], sigma: Sigma | None, clip: bool
) -> Iterator[State]:
    """Draw x_s from p(x_s | x_t), equation (1), along falling `times` and then at s = 0.

    x is x_T, (N, C, H, W); `noise()` draws standard normal numbers of its shape. `sigma` chooses the variance where
    the network has not learned it. The last step returns the mean.
    """
    process = denoiser.gaussian
    for time, earlier in zip(times, [*times[1:], 0], strict=True):
        t, s = (torch.full((len(x),), value, device=x.device) for value in (time, earlier))
        estimate = denoiser(x, t, clip)
        yield State(time, x, estimate.x_0)
        x = process.posterior_mean(estimate.x_0, x, t, s)
        if earlier > 0:
            deviation = (0.5 * denoiser.log_variance(estimate, t, s, sigma or "large")).exp()
            x = x + deviation.to(x.dtype) * noise()
    yield State(0, x, x)
