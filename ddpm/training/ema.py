"""The exponential moving average of the weights, which is what the paper samples from."""

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """A second network whose weights follow the trained one's: w <- decay w + (1 - decay) w_trained.

    It starts as a copy, so no warm-up of the decay is needed.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay = decay
        self._average: list[Tensor] = list(self.network.parameters())
        self._trained: list[Tensor] = list(network.parameters())

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the trained weights, all tensors in one call."""
        torch._foreach_lerp_(self._average, self._trained, 1 - self.decay)
