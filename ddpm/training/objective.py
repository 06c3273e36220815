"""What training minimises."""

from torch import Tensor

from ddpm.diffusion.denoiser import Denoiser


def simple_loss(denoiser: Denoiser, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """L_simple, equation (14): the mean square error of the predicted noise, a scalar.

    x_0 and eps are (N, C, H, W), t in 1..T is (N,).
    """
    x_t = denoiser.process.q_sample(x_0, t, eps)
    return (denoiser.output(x_t, t) - eps).square().mean()
