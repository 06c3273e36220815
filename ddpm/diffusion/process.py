"""The Gaussian diffusion process: Sections 2 and 3 of the paper.

Times are the paper's: t in 1..T, with t = 0 the image itself. They come as int64 tensors of shape (N,). Images are
float tensors of shape (N, C, H, W). The schedule is kept in float64 and cast where it meets an image.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ddpm.diffusion import schedule
from ddpm.params import Diffusion

Sigma = Literal["large", "small"]


class GaussianProcess:
    """q(x_t | x_0) = N(sqrt(alpha_bar_t) x_0, (1 - alpha_bar_t) I), equation (4), and its posteriors."""

    def __init__(self, alpha_bar: np.ndarray, device: torch.device | str = "cpu") -> None:
        """`alpha_bar`: float64 of shape (T + 1,), decreasing from alpha_bar[0] = 1."""
        if alpha_bar[0] != 1 or not (np.diff(alpha_bar) < 0).all() or alpha_bar[-1] <= 0:
            raise ValueError("alpha_bar must fall strictly from alpha_bar[0] = 1 and stay positive")
        self.timesteps = len(alpha_bar) - 1
        self.alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64, device=device)

    @classmethod
    def from_settings(cls, settings: Diffusion, device: torch.device | str = "cpu") -> "GaussianProcess":
        """The process that params.yaml describes."""
        return cls(schedule.alpha_bar(schedule.betas(settings)), device)

    def signal(self, t: Tensor) -> Tensor:
        """sqrt(alpha_bar_t), float64 of shape (N, 1, 1, 1): what is left of the image at time t."""
        return self.alpha_bar[t].sqrt().view(-1, 1, 1, 1)

    def noise(self, t: Tensor) -> Tensor:
        """sqrt(1 - alpha_bar_t), float64 of shape (N, 1, 1, 1): the standard deviation of the noise at time t."""
        return (1 - self.alpha_bar[t]).sqrt().view(-1, 1, 1, 1)

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps, equation (4) reparameterised."""
        return self.signal(t).to(x_0.dtype) * x_0 + self.noise(t).to(x_0.dtype) * eps

    def predict_x_0(self, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The x_0 that x_t was made from, if its noise was eps; equation (15)."""
        signal, noise = self.signal(t), self.noise(t)
        return (1 / signal).to(x_t.dtype) * x_t - (noise / signal).to(x_t.dtype) * eps

    def predict_eps(self, x_t: Tensor, t: Tensor, x_0: Tensor) -> Tensor:
        """The noise in x_t, if it was made from x_0; equation (4) solved for eps."""
        signal, noise = self.signal(t), self.noise(t)
        return (1 / noise).to(x_t.dtype) * x_t - (signal / noise).to(x_t.dtype) * x_0

    def posterior_mean(self, x_0: Tensor, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The mean of q(x_s | x_t, x_0) for any s < t; equation (7), where s is t - 1."""
        a_t, a_s = self.alpha_bar[t], self.alpha_bar[s]
        beta, alpha = 1 - a_t / a_s, a_t / a_s
        of_x_0 = (a_s.sqrt() * beta / (1 - a_t)).view(-1, 1, 1, 1)
        of_x_t = (alpha.sqrt() * (1 - a_s) / (1 - a_t)).view(-1, 1, 1, 1)
        return of_x_0.to(x_t.dtype) * x_0 + of_x_t.to(x_t.dtype) * x_t

    def posterior_variance(self, t: Tensor, s: Tensor, sigma: Sigma) -> Tensor:
        """The variance of p(x_s | x_t), float64 of shape (N, 1, 1, 1), by one of the two choices of Section 3.2.

        `large` is beta_t, right for x_0 ~ N(0, I); `small` is the posterior's beta_tilde_t, right for a single x_0.
        """
        a_t, a_s = self.alpha_bar[t], self.alpha_bar[s]
        beta = 1 - a_t / a_s
        variance = beta if sigma == "large" else beta * (1 - a_s) / (1 - a_t)
        return variance.view(-1, 1, 1, 1)
