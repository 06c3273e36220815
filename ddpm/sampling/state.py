"""Where a sampler stands."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class State:
    """x_t at time t, and what the network believes of x_0 there; both (N, C, H, W). At t = 0 both are the sample."""

    t: int
    x_t: Tensor
    x_0: Tensor
