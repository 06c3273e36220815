"""The layers of the paper's U-Net: Appendix B, and the authors' code for details that the text omits."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.params import UNetNetwork


def initialised(layer: nn.Module, zero: bool = False) -> nn.Module:
    """Set Xavier-uniform weights and zero biases, as in the paper's code; with `zero`, all weights are zero, too."""
    for name, parameter in layer.named_parameters():
        if zero or name.endswith("bias"):
            nn.init.zeros_(parameter)
        else:
            nn.init.xavier_uniform_(parameter)
    return layer


def conv(inputs: int, outputs: int, size: int = 3, zero: bool = False) -> nn.Module:
    """A convolution that keeps the size of the image."""
    return initialised(nn.Conv2d(inputs, outputs, size, padding=size // 2), zero)


def norm(channels: int, settings: UNetNetwork) -> nn.GroupNorm:
    """Group normalisation (Wu & He 2018)."""
    return nn.GroupNorm(settings.groups, channels, settings.norm_eps)


class TimeEmbedding(nn.Module):
    """A sinusoidal embedding of the time index and two dense layers: (N,) to (N, 4 * channels)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.dense_1 = initialised(nn.Linear(channels, 4 * channels))
        self.dense_2 = initialised(nn.Linear(4 * channels, 4 * channels))

    def forward(self, index: Tensor) -> Tensor:
        return self.dense_2(F.silu(self.dense_1(sinusoids(index, self.channels))))


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
    """Two convolutions with the time embedding added between them: (N, inputs, H, W) to (N, outputs, H, W)."""

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
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = h + self.time(F.silu(embedding))[:, :, None, None]
        h = self.conv_2(self.dropout(F.silu(self.norm_2(h))))
        return self.shortcut(x) + h


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
        normalised = self.norm(x)
        query, key, value = (
            project(normalised).view(n, self.heads, c // self.heads, h * w).transpose(2, 3)  # (N, heads, HW, C/heads)
            for project in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value)  # (N, heads, HW, C/heads)
        return x + self.output(attended.transpose(2, 3).reshape(n, c, h, w))


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
