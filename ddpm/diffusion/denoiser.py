"""The only interface between network and mathematics: the network's output as x_0, eps and a variance."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from ddpm.diffusion import prediction
from ddpm.diffusion.process import GaussianProcess, Process, Sigma
from ddpm.params import Diffusion


@dataclass(frozen=True)
class Denoised:
    """The estimates for a noisy image x_t, both (N, C, H, W): q_sample(x_0, t, eps) is x_t."""

    x_0: Tensor
    eps: Tensor
    variance: Tensor | None  # the network's raw output for a learned variance; `Denoiser.log_variance` interprets it


@dataclass(frozen=True)
class Denoiser:
    """A network interpreted as an estimate of x_0, of the noise, and of the variance of p(x_s | x_t) if it is learned.

    `network(x_t, index)` takes float images (N, C, H, W) and int64 indices (N,) or (1,) in 0..T-1, as the paper's
    code numbers its embeddings. The shift from t in 1..T happens here and nowhere else. The network returns
    (N, C, H, W), or twice the channels if the variance is learned.
    """

    network: Callable[..., Tensor]
    process: Process
    settings: Diffusion

    @property
    def value_range(self) -> Sequence[float]:
        """The values of uint8 0 and 255."""
        return self.settings.value_range

    @property
    def gaussian(self) -> GaussianProcess:
        """The process, for equations that only a Gaussian process has."""
        assert isinstance(self.process, GaussianProcess), "params.py must refuse settings that need a Gaussian process"
        return self.process

    def given(self, labels: Tensor | None) -> "Denoiser":
        """The same denoiser conditioned on labels, int64 (N,)."""
        return self if labels is None else replace(self, network=partial(self.network, labels=labels))

    def output(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network's float32 output at times t in 1..T: its prediction, and its raw variance if that is learned."""
        output = self.network(x_t, t - 1).float()
        if self.settings.variance == "fixed":
            return output, None
        predicted, variance = output.chunk(2, dim=1)
        return predicted, variance

    def __call__(self, x_t: Tensor, t: Tensor, clip: bool) -> Denoised:
        """Estimate x_0 and eps. With `clip`, x_0 is clamped to the value range and eps follows from it."""
        return self.interpret(*self.output(x_t, t), x_t, t, clip)

    def interpret(self, predicted: Tensor, variance: Tensor | None, x_t: Tensor, t: Tensor, clip: bool) -> Denoised:
        """Convert the result of `output` to the estimates of `__call__`."""
        kind = self.settings.prediction
        x_0 = prediction.implied_x_0(kind, self.process, x_t, t, predicted)
        if kind == "eps" and not clip:
            return Denoised(x_0, predicted, variance)
        if clip:
            x_0 = x_0.clamp(*self.value_range)
        return Denoised(x_0, self.process.predict_eps(x_t, t, x_0), variance)

    def log_variance(self, estimate: Denoised, t: Tensor, s: Tensor, sigma: Sigma) -> Tensor:
        """The log-variance of p(x_s | x_t), (N, 1, 1, 1) or (N, C, H, W); `sigma` chooses a fixed one.

        `learned`: the network's output itself, for s = t - 1 (Section 3.2). `learned_range`: an interpolation between
        the logarithms of the two fixed choices, where the output -1 means small and 1 large (Nichol & Dhariwal 2021,
        equation (15)).
        """
        if estimate.variance is None:
            return self.gaussian.posterior_log_variance(t, s, sigma)
        if self.settings.variance == "learned":
            return estimate.variance
        small = self.gaussian.posterior_log_variance(t, s, "small").to(estimate.variance)
        large = self.gaussian.posterior_variance(t, s, "large").log().to(estimate.variance)
        return torch.lerp(small, large, (estimate.variance + 1) / 2)
