"""The minimal U-Net of the Hugging Face course: six convolutions with additive skip connections."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.params import BasicNetwork


class BasicUNet(nn.Module):
    """f_theta(x_t): images (N, C, H, H) to (N, C, H, H), conditioned on neither time nor class.

    With channels 32 and multipliers 1, 2, 2 it is the course's network, with 309,057 parameters for grey images. SiLU
    also follows its last convolution, and is never below -0.279. With `signed` the last convolution has no SiLU, as
    eps, v, mu and images with negative values require.
    """

    def __init__(self, settings: BasicNetwork, image_channels: int, signed: bool) -> None:
        super().__init__()
        self._signed = signed
        widths = [settings.channels * multiplier for multiplier in settings.multipliers]
        self.down = _convolutions([image_channels, *widths])
        self.up = _convolutions([*reversed(widths), image_channels])

    def forward(self, x: Tensor, index: Tensor) -> Tensor:
        del index
        x = x.to(self.down[0].get_parameter("weight").dtype)
        skips = []
        for level, conv in enumerate(self.down):
            if level > 0:
                skips.append(x)
                x = F.max_pool2d(x, 2)
            x = F.silu(conv(x))
        for level, conv in enumerate(self.up):
            if level > 0:
                x = F.interpolate(x, scale_factor=2, mode="nearest") + skips.pop()
            x = conv(x)
            x = x if self._signed and level == len(self.up) - 1 else F.silu(x)
        return x


def _convolutions(widths: list[int]) -> nn.ModuleList:
    return nn.ModuleList(nn.Conv2d(i, o, 5, padding=2) for i, o in pairwise(widths))
