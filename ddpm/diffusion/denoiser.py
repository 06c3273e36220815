"""The room between network and mathematics: what a network's output says about x_0 and eps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ddpm.diffusion.process import GaussianProcess


@dataclass(frozen=True)
class Denoised:
    """What is known of a noisy image: both tensors are (N, C, H, W), and q_sample(x_0, t, eps) is x_t."""

    x_0: Tensor
    eps: Tensor


class Denoiser:
    """A network eps_theta(x_t, t) read as an estimate of x_0 and of the noise.

    `network(x_t, index)` takes float images (N, C, H, W) and int64 indices (N,) in 0..T-1, as the paper's code
    numbers its embeddings: the shift from t in 1..T happens here and nowhere else.
    """

    def __init__(
        self,
        network: Callable[[Tensor, Tensor], Tensor],
        process: GaussianProcess,
        value_range: Sequence[float] = (-1.0, 1.0),
    ) -> None:
        self.network = network
        self.process = process
        self.value_range = value_range

    def output(self, x_t: Tensor, t: Tensor) -> Tensor:
        """The network's float32 output at times t in 1..T: eps_theta(x_t, t)."""
        return self.network(x_t, t - 1).float()

    def __call__(self, x_t: Tensor, t: Tensor, clip: bool) -> Denoised:
        """Estimate x_0 and eps. With `clip`, x_0 is held to the value range and eps is what then remains."""
        eps = self.output(x_t, t)
        x_0 = self.process.predict_x_0(x_t, t, eps)
        if not clip:
            return Denoised(x_0, eps)
        x_0 = x_0.clamp(*self.value_range)
        return Denoised(x_0, self.process.predict_eps(x_t, t, x_0))
