"""The forward processes: how an image becomes noise, and the posterior of an earlier time given a later one.

Times are the paper's: t in 1..T, and t = 0 is the image itself. They are int64 tensors of shape (N,), or (1,)
if all images have the same time. Images are float tensors of shape (N, C, H, W). Statistics are float64; `like` casts
them once, to the dtype of the images. They are on the device of the process, or on the CPU if that device has no
float64.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddpm.device import for_float64
from ddpm.diffusion import schedule
from ddpm.params import Diffusion, Gaussian

Sigma = Literal["large", "small"]


class Process(ABC):
    """x_t = signal(t) x_0 + noise(t) eps, with eps from the prior of the subclass."""

    def __init__(self, signal: Tensor, noise: Tensor, device: torch.device | str) -> None:
        """Take float64 tensors of shape (T + 1,), signal that falls from 1 and noise that rises from 0."""
        self.timesteps = len(signal) - 1
        self._signal = signal
        self._noise = noise
        self.device = torch.device(device)

    @abstractmethod
    def prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw eps, float32, on the device of the process."""

    def signal(self, t: Tensor, like: Tensor | None = None) -> Tensor:
        """The factor of x_0 at time t, of shape (N, 1, 1, 1): float64, or the dtype of `like`."""
        return _gathered(self._signal, t, like)

    def noise(self, t: Tensor, like: Tensor | None = None) -> Tensor:
        """The factor of eps at time t, of shape (N, 1, 1, 1): float64, or the dtype of `like`."""
        return _gathered(self._noise, t, like)

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t = signal x_0 + noise eps; for the Gaussian process, equation (4) reparameterised."""
        return self.signal(t, like=x_0) * x_0 + self.noise(t, like=x_0) * eps

    def predict_x_0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x_0 that gives x_t with the noise eps; equation (15)."""
        return (x_t - self.noise(t, like=x_t) * eps) / self.signal(t, like=x_t)

    def predict_eps(self, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        """The noise that gives x_t from x_0; equation (4) solved for eps."""
        return (x_t - self.signal(t, like=x_t) * x_0) / self.noise(t, like=x_t)


def _gathered(values: Tensor, t: Tensor, like: Tensor | None) -> Tensor:
    found = values[t.to(values.device)].view(-1, 1, 1, 1)
    return found if like is None else found.to(like)


class GaussianProcess(Process):
    """q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I), equation (4), and its posteriors."""

    def __init__(self, alpha_bar: np.ndarray, device: torch.device | str = "cpu") -> None:
        """Take alpha_bar, float64 of shape (T + 1,): it falls from alpha_bar[0] = 1, perhaps to 0."""
        if alpha_bar[0] != 1 or not (np.diff(alpha_bar) < 0).all() or alpha_bar[-1] < 0:
            raise ValueError("alpha_bar must fall strictly from alpha_bar[0] = 1 and not become negative")
        self.alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64, device=for_float64(device))
        super().__init__(self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt(), device)

    def prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw standard normal noise."""
        return torch.randn(shape, generator=generator, device=self.device)

    def snr(self, t: Tensor) -> Tensor:
        """The signal-to-noise ratio alpha_bar_t / (1 - alpha_bar_t), float64 of shape (N, 1, 1, 1)."""
        return (self.signal(t) / self.noise(t)) ** 2

    def posterior_weights(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        """The factors of x_0 and of x_t in the mean of q(x_s | x_t, x_0), float64 of shape (N, 1, 1, 1)."""
        a_t, a_s = self._alpha_bars(t, s)
        alpha = a_t / a_s
        of_x_0 = a_s.sqrt() * (1 - alpha) / (1 - a_t)
        of_x_t = alpha.sqrt() * (1 - a_s) / (1 - a_t)
        return of_x_0.view(-1, 1, 1, 1), of_x_t.view(-1, 1, 1, 1)

    def _alpha_bars(self, t: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        where = self.alpha_bar.device
        return self.alpha_bar[t.to(where)], self.alpha_bar[s.to(where)]

    def posterior_mean(self, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The mean of q(x_s | x_t, x_0) for any s < t; equation (7) is the case s = t - 1."""
        of_x_0, of_x_t = (weight.to(x_t) for weight in self.posterior_weights(t, s))
        return of_x_0 * x_0 + of_x_t * x_t

    def posterior_variance(self, t: Tensor, s: Tensor, sigma: Sigma) -> Tensor:
        """The variance of p(x_s | x_t), float64 of shape (N, 1, 1, 1), by one of the two choices of Section 3.2.

        `large` is beta_t, optimal for x_0 ~ N(0, I). `small` is the posterior's beta_tilde_t, optimal for a single x_0.
        """
        a_t, a_s = self._alpha_bars(t, s)
        beta = 1 - a_t / a_s
        variance = beta if sigma == "large" else beta * (1 - a_s) / (1 - a_t)
        return variance.view(-1, 1, 1, 1)

    def posterior_log_variance(self, t: Tensor, s: Tensor, sigma: Sigma) -> Tensor:
        """The log of `posterior_variance`; at s = 0, where `small` is 0, the value of the step from 2 to 1.

        The paper's code clips both choices of sigma in this way. Only likelihoods depend on it.
        """
        last = s == 0
        small = self.posterior_variance(t.masked_fill(last, 2), s.masked_fill(last, 1), "small")
        if sigma == "small":
            return small.log()
        return torch.where(last.view(-1, 1, 1, 1).to(small.device), small, self.posterior_variance(t, s, "large")).log()


class InterpolationProcess(Process):
    """x_t = (1 - a) x_0 + a u with a = t / T and u uniform in the value range: the process of the Hugging Face course.

    The course's value range is 0 to 1.
    """

    def __init__(
        self, timesteps: int, device: torch.device | str = "cpu", value_range: Sequence[float] = (0.0, 1.0)
    ) -> None:
        amount = torch.arange(timesteps + 1, dtype=torch.float64, device=for_float64(device)) / timesteps
        super().__init__(1 - amount, amount, device)
        self._low, self._high = value_range

    def prior(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Draw uniform noise in the value range."""
        return self._low + (self._high - self._low) * torch.rand(shape, generator=generator, device=self.device)


def from_settings(settings: Diffusion, device: torch.device | str = "cpu") -> Process:
    """The process of the section `diffusion` of params.yaml."""
    if isinstance(settings, Gaussian):
        return GaussianProcess(schedule.alpha_bar(settings), device)
    return InterpolationProcess(settings.timesteps, device, settings.value_range)
