"""DPM-Solver++ (Lu et al. 2022): the probability flow in terms of x_0, solved to second order."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser
from ddpm.sampling.state import State


def sample(denoiser: Denoiser, x: Tensor, times: Sequence[int], clip: bool) -> Iterator[State]:
    """DPM-Solver++(2M), Algorithm 2, along falling `times` and then to s = 0; nothing is random but x = x_T.

    Each step extrapolates x_0 linearly in half the log signal-to-noise ratio from the last two predictions. The first
    step has only one, and in the last the step is infinite, so both are of first order: DDIM's.
    """
    process = denoiser.gaussian
    before: tuple[Tensor, Tensor] | None = None  # the previous step's x_0, and its size
    for time, earlier in zip(times, [*times[1:], 0], strict=True):
        t, s = (torch.full((len(x),), value, device=x.device) for value in (time, earlier))
        x_0 = denoiser(x, t, clip).x_0
        yield State(time, x, x_0)
        extrapolated = x_0
        size = 0.5 * (process.snr(s).log() - process.snr(t).log())
        if before is not None and earlier > 0:
            previous, previous_size = before
            extrapolated = x_0 + (0.5 * size / previous_size).to(x.dtype) * (x_0 - previous)
        ratio = process.noise(s) / process.noise(t)
        # signal (1 - exp(-size)), without the difference of infinities where either end has no noise or no signal
        along_x_0 = process.signal(s) - ratio * process.signal(t)
        x = ratio.to(x.dtype) * x + along_x_0.to(x.dtype) * extrapolated
        before = x_0, size
    yield State(0, x, x)
