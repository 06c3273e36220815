"""The layers of the paper's U-Net: Appendix B, and the authors' code for details that the text omits."""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.params import UNetNetwork

_Layer = TypeVar("_Layer", bound=nn.Module)


def initialised(layer: _Layer, zero: bool = False) -> _Layer:
    """Set Xavier-uniform weights and zero biases, as in the paper's code; with `zero`, all weights are zero, too."""
    for name, parameter in layer.named_parameters():
        if zero or name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter)
    return layer


def conv(inputs: int, outputs: int, size: int = 3, zero: bool = False) -> nn.Conv2d:
    """A convolution that keeps the size of the image."""
    return initialised(nn.Conv2d(inputs, outputs, size, padding=size // 2), zero)


def norm(channels: int, settings: UNetNetwork) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018)."""
    return nn.GroupNorm(settings.groups, channels, settings.norm_eps)


def silu(x: Tensor) -> Tensor:
    """SiLU of a tensor that is used nowhere else: in place unless a gradient needs it."""
    return F.silu(x, inplace=not torch.is_grad_enabled())


class TimeEmbedding(nn.Module):
    """A sinusoidal embedding of the time index and two dense layers: (N,) to (N, 4 * channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dense_1 = initialised(nn.Linear(channels, 4 * channels))
        self.dense_2 = initialised(nn.Linear(4 * channels, 4 * channels))

    def forward(self, index: Tensor) -> Tensor:
        angles = sinusoids(index, self.channels).to(self.dense_1.weight.dtype)  # (N, channels)
        return self.dense_2(silu(self.dense_1(angles)))


def sinusoids(index: Tensor, channels: int) -> Tensor:
    """(N,) to float32 (N, channels): sines, then cosines, with frequencies that fall from 1 to 1/10000.

    This is the position encoding of the Transformer (Vaswani et al. 2017), in the layout of tensor2tensor as in the
    paper's code.
    """
    half = channels // 2
    frequencies = torch.exp(torch.arange(half, device=index.device) * (-math.log(10_000) / (half - 1)))
    angles = index[:, None].float() * frequencies[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class ResidualBlock(nn.Module):
    """Two convolutions with the time embedding added between them: (N, inputs, H, W) to (N, outputs, H, W).

    The embedding is (N, 4 * channels), or (1, 4 * channels) for all images.
    """

    def __init__(self, inputs: int, outputs: int, settings: UNetNetwork) -> None:
        super().__init__()
        self.norm_1 = norm(inputs, settings)
        self.conv_1 = conv(inputs, outputs)
        self.time = initialised(nn.Linear(4 * settings.channels, outputs))
        self.norm_2 = norm(outputs, settings)
        self.dropout = nn.Dropout(settings.dropout)
        self.conv_2 = conv(outputs, outputs, zero=True)
        self.shortcut = nn.Identity() if inputs == outputs else conv(inputs, outputs, size=1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_1(silu(self.norm_1(x)))
        h += self.time(F.silu(embedding))[:, :, None, None]
        h = self.conv_2(self.dropout(silu(self.norm_2(h))))
        h += self.shortcut(x)
        return h


class SelfAttention(nn.Module):
    """Residual self-attention over all positions: (N, C, H, W) to (N, C, H, W)."""

    def __init__(self, channels: int, settings: UNetNetwork) -> None:
        super().__init__()
        self.heads = settings.heads
        self.norm = norm(channels, settings)
        self.query = conv(channels, channels, size=1)
        self.key = conv(channels, channels, size=1)
        self.value = conv(channels, channels, size=1)
        self.output = conv(channels, channels, size=1, zero=True)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        pixels = self.norm(x).permute(0, 2, 3, 1).reshape(n, h * w, c)  # no copy in channels-last format
        layers = self.query, self.key, self.value
        weight, bias = (torch.cat([layer.get_parameter(name) for layer in layers]) for name in ("weight", "bias"))
        projected = F.linear(pixels, weight.view(3 * c, c), bias)  # one product is faster than three convolutions
        split = projected.view(n, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(*split)  # (N, heads, HW, C/heads)
        joined = attended.transpose(1, 2).reshape(n, h * w, c)
        output = F.linear(joined, self.output.weight.view(c, c), self.output.bias)
        return x + output.view(n, h, w, c).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """A strided convolution that halves an even size: (N, C, H, W) to (N, C, H/2, W/2)."""

    def __init__(self, channels: int, settings: UNetNetwork) -> None:
        super().__init__()
        # TensorFlow's SAME pads an even size on the right and the bottom only; symmetric padding shifts the image.
        self.pad = (0, 1, 0, 1) if settings.downsample == "asymmetric" else (1, 1, 1, 1)
        self.conv = initialised(nn.Conv2d(channels, channels, 3, stride=2))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, self.pad))


class Upsample(nn.Module):
    """Nearest-neighbour upsampling and a convolution: (N, C, H, W) to (N, C, 2H, 2W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
