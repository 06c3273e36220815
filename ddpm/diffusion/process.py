"""The forward processes: how an image becomes noise, and what is known of one time given another.

Times are the paper's: t in 1..T, with t = 0 the image itself. They come as int64 tensors of shape (N,). Images are
float tensors of shape (N, C, H, W). What depends on time is kept in float64 and cast where it meets an image.
"""

from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion import schedule
from ddpm.params import Diffusion, Gaussian

Sigma = Literal["large", "small"]


class Process(ABC):
    """x_t = signal(t) x_0 + noise(t) eps, with eps from a prior; a subclass says which."""

    def __init__(self, signal: Tensor, noise: Tensor) -> None:
        """Float64 tensors of shape (T + 1,): signal falls from 1, noise rises from 0."""
        self.timesteps = len(signal) - 1
        self._signal = signal
        self._noise = noise
        self.device = signal.device

    @abstractmethod
    def prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw eps, float32, on the process's device."""

    def signal(self, t: Tensor) -> Tensor:
        """The factor of the image at time t, float64 of shape (N, 1, 1, 1)."""
        return self._signal[t].view(-1, 1, 1, 1)

    def noise(self, t: Tensor) -> Tensor:
        """The factor of eps at time t, float64 of shape (N, 1, 1, 1)."""
        return self._noise[t].view(-1, 1, 1, 1)

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t = signal x_0 + noise eps; of the Gaussian process equation (4), reparameterised."""
        return self.signal(t).to(x_0.dtype) * x_0 + self.noise(t).to(x_0.dtype) * eps

    def predict_x_0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x_0 that x_t was made from, if its noise was eps; equation (15)."""
        signal, noise = self.signal(t), self.noise(t)
        return (1 / signal).to(x_t.dtype) * x_t - (noise / signal).to(x_t.dtype) * eps

    def predict_eps(self, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        """The noise in x_t, if it was made from x_0; equation (4) solved for eps."""
        signal, noise = self.signal(t), self.noise(t)
        return (1 / noise).to(x_t.dtype) * x_t - (signal / noise).to(x_t.dtype) * x_0


class GaussianProcess(Process):
    """q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I), equation (4), and its posteriors."""

    def __init__(self, alpha_bar: np.ndarray, device: torch.device | str = "cpu") -> None:
        """`alpha_bar`: float64 of shape (T + 1,), decreasing from alpha_bar[0] = 1, perhaps to 0."""
        if alpha_bar[0] != 1 or not (np.diff(alpha_bar) < 0).all() or alpha_bar[-1] < 0:
            raise ValueError("alpha_bar must fall strictly from alpha_bar[0] = 1 and not become negative")
        self.alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64, device=device)
        super().__init__(self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt())

    def prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Standard normal noise."""
        return torch.randn(shape, generator=generator, device=self.device)

    def snr(self, t: Tensor) -> Tensor:
        """The signal-to-noise ratio alpha_bar_t / (1 - alpha_bar_t), float64 of shape (N, 1, 1, 1)."""
        return (self.signal(t) / self.noise(t)) ** 2

    def posterior_weights(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of x_0 and of x_t in the mean of q(x_s | x_t, x_0), float64 of shape (N, 1, 1, 1)."""
        a_t, a_s = self.alpha_bar[t], self.alpha_bar[s]
        alpha = a_t / a_s
        of_x_0 = a_s.sqrt() * (1 - alpha) / (1 - a_t)
        of_x_t = alpha.sqrt() * (1 - a_s) / (1 - a_t)
        return of_x_0.view(-1, 1, 1, 1), of_x_t.view(-1, 1, 1, 1)

    def posterior_mean(self, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The mean of q(x_s | x_t, x_0) for any s < t; equation (7), where s is t - 1."""
        of_x_0, of_x_t = self.posterior_weights(t, s)
        return of_x_0.to(x_t.dtype) * x_0 + of_x_t.to(x_t.dtype) * x_t

    def posterior_variance(self, t: Tensor, s: Tensor, sigma: Sigma) -> Tensor:
        """The variance of p(x_s | x_t), float64 of shape (N, 1, 1, 1), by one of the two choices of Section 3.2.

        `large` is beta_t, right for x_0 ~ N(0, I); `small` is the posterior's beta_tilde_t, right for a single x_0.
        """
        a_t, a_s = self.alpha_bar[t], self.alpha_bar[s]
        beta = 1 - a_t / a_s
        variance = beta if sigma == "large" else beta * (1 - a_s) / (1 - a_t)
        return variance.view(-1, 1, 1, 1)

    def posterior_log_variance(self, t: Tensor, s: Tensor, sigma: Sigma) -> Tensor:
        """log of `posterior_variance`, but at s = 0, where the posterior has none, that of the step from 2 to 1.

        So in the paper's code, for both choices of sigma; it matters to likelihoods alone.
        """
        last = s == 0
        small = self.posterior_variance(torch.where(last, 2, t), torch.where(last, 1, s), "small")
        if sigma == "small":
            return small.log()
        return torch.where(last.view(-1, 1, 1, 1), small, self.posterior_variance(t, s, "large")).log()


class InterpolationProcess(Process):
    """x_t = (1 - a) x_0 + a u with a = t / T and u uniform: the process of the Hugging Face course."""

    def __init__(self, timesteps: int, device: torch.device | str = "cpu") -> None:
        amount = torch.arange(timesteps + 1, dtype=torch.float64, device=device) / timesteps
        super().__init__(1 - amount, amount)

    def prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Noise that is uniform in [0, 1)."""
        return torch.rand(shape, generator=generator, device=self.device)


def from_settings(settings: Diffusion, device: torch.device | str = "cpu") -> Process:
    """The process that params.yaml describes."""
    if isinstance(settings, Gaussian):
        return GaussianProcess(schedule.alpha_bar(settings), device)
    return InterpolationProcess(settings.timesteps, device)
