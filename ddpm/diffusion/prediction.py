"""The quantities that a network can predict, and the x_0 that each prediction implies.

Each is a linear function of x_0 and x_t, so that any one gives the others. In training they weigh times differently.
"""

from typing import Literal

from torch import Tensor

from ddpm.diffusion.process import GaussianProcess, Process

Prediction = Literal["eps", "x_0", "v", "mu"]


def target(prediction: Prediction, process: Process, x_0: Tensor, x_t: Tensor, t: Tensor, eps: Tensor) -> Tensor:
    """The true value of the predicted quantity; all images are (N, C, H, W).

    `eps`: the noise, equation (12). `x_0`: the image. `v`: sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0 (Salimans &
    Ho 2022, Appendix D). `mu`: the mean of q(x_(t-1) | x_t, x_0), equation (8).
    """
    match prediction:
        case "eps":
            return eps
        case "x_0":
            return x_0
        case "v":
            return process.signal(t, like=eps) * eps - process.noise(t, like=eps) * x_0
        case "mu":
            return _gaussian(process).posterior_mean(x_0, x_t, t, t - 1)


def implied_x_0(prediction: Prediction, process: Process, x_t: Tensor, t: Tensor, output: Tensor) -> Tensor:
    """The x_0 that the output of a network implies; the inverse of `target`."""
    match prediction:
        case "eps":
            return process.predict_x_0(x_t, t, output)
        case "x_0":
            return output
        case "v":  # signal^2 + noise^2 = 1
            return process.signal(t, like=x_t) * x_t - process.noise(t, like=x_t) * output
        case "mu":
            of_x_0, of_x_t = (weight.to(x_t) for weight in _gaussian(process).posterior_weights(t, t - 1))
            return (output - of_x_t * x_t) / of_x_0


def x_0_error(prediction: Prediction, process: GaussianProcess, t: Tensor) -> Tensor:
    """The squared error of x_0 per unit squared error of the output, float64 of shape (N, 1, 1, 1)."""
    match prediction:
        case "eps":
            return 1 / process.snr(t)
        case "x_0":
            return process.signal(t) ** 0
        case "v":
            return process.noise(t) ** 2
        case "mu":
            return process.posterior_weights(t, t - 1)[0] ** -2


def _gaussian(process: Process) -> GaussianProcess:
    assert isinstance(process, GaussianProcess), "params.py must allow only x_0 for other processes"
    return process
