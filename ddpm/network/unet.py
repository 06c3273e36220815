"""The U-Net of the paper (Appendix B): down levels, a middle, up levels, and skip connections between them."""

import torch
from torch import Tensor, nn

from ddpm.network.layers import Downsample, ResidualBlock, SelfAttention, TimeEmbedding, Upsample, conv, norm, silu
from ddpm.params import UNetNetwork


class UNet(nn.Module):
    """eps_theta(x_t, t): images (N, C, H, H) and time indices (N,) in 0..T-1 to (N, outputs, H, H).

    Images may share one time index, of shape (1,). They are cast to the dtype of the weights. A conditional network
    also takes labels (N,) in 0..classes-1; the label `classes`, the default, is the null label.
    With the paper's settings the network has 35,746,307 parameters for CIFAR-10 and 113,673,219 for 256x256 images.
    """

    def __init__(self, settings: UNetNetwork, image_channels: int, image_size: int, outputs: int, classes: int) -> None:
        """Build the levels; `classes` is ignored unless `settings.conditional`."""
        super().__init__()
        self.uses_time = settings.time
        self.classes = classes
        plan = [settings.channels * multiplier for multiplier in settings.multipliers]
        sizes = [image_size // 2**level for level in range(len(plan))]
        last = len(plan) - 1

        self.time = TimeEmbedding(settings.channels)
        self.label = nn.Embedding(classes + 1, 4 * settings.channels) if settings.conditional else None
        self.first = conv(image_channels, settings.channels)
        self.down = nn.ModuleList()
        self.up = nn.ModuleList()
        width, skips = settings.channels, [settings.channels]
        for level, (channels, size) in enumerate(zip(plan, sizes, strict=True)):
            down = DownLevel(width, channels, size in settings.attention, level < last, settings)
            self.down.append(down)
            width, skips = channels, skips + down.skips
        self.middle = Middle(width, settings)
        for level, (channels, size) in reversed(list(enumerate(zip(plan, sizes, strict=True)))):
            taken = [skips.pop() for _ in range(settings.blocks + 1)]
            self.up.append(UpLevel(width, taken, channels, size in settings.attention, level > 0, settings))
            width = channels
        self.norm = norm(width, settings)
        self.last = conv(width, outputs, zero=True)

    def forward(self, x: Tensor, index: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.time(index if self.uses_time else torch.zeros_like(index))  # (N, 4 * channels)
        if self.label is not None:
            embedding = embedding + self.label(torch.full_like(index, self.classes) if labels is None else labels)
        h = self.first(x.to(self.first.weight.dtype))  # (N, channels, H, H)
        skips = [h]
        for level in self.down:
            h = level(h, embedding, skips)  # (N, C, H, H): every level but the last halves H
        h = self.middle(h, embedding)
        for level in self.up:
            h = level(h, embedding, skips)  # (N, C, H, H): every level but the last doubles H
        return self.last(silu(self.norm(h)))  # (N, outputs, H, H)


class DownLevel(nn.Module):
    """Residual blocks at one size, with attention if chosen, then downsampling."""

    def __init__(self, inputs: int, channels: int, attention: bool, downsample: bool, settings: UNetNetwork) -> None:
        super().__init__()
        widths = [inputs] + [channels] * (settings.blocks - 1)
        self.blocks = nn.ModuleList(ResidualBlock(width, channels, settings) for width in widths)
        self.attentions = nn.ModuleList(_attention(attention, channels, settings) for _ in widths)
        self.downsample = Downsample(channels, settings) if downsample else None
        self.skips = [channels] * (settings.blocks + downsample)  # the widths that forward appends

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for block, attend in zip(self.blocks, self.attentions, strict=True):
            h = attend(block(h, embedding))
            skips.append(h)
        if self.downsample is not None:
            h = self.downsample(h)
            skips.append(h)
        return h


class Middle(nn.Module):
    """A residual block, attention and a residual block at the smallest size."""

    def __init__(self, channels: int, settings: UNetNetwork) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(channels, channels, settings)
        self.attention = SelfAttention(channels, settings)
        self.block_2 = ResidualBlock(channels, channels, settings)

    def forward(self, h: Tensor, embedding: Tensor) -> Tensor:
        return self.block_2(self.attention(self.block_1(h, embedding)), embedding)


class UpLevel(nn.Module):
    """One more residual block than in the down level, each with a skip connection, then upsampling."""

    def __init__(
        self, inputs: int, skips: list[int], channels: int, attention: bool, upsample: bool, settings: UNetNetwork
    ) -> None:
        super().__init__()
        widths = [inputs] + [channels] * settings.blocks
        self.blocks = nn.ModuleList(
            ResidualBlock(width + skip, channels, settings) for width, skip in zip(widths, skips, strict=True)
        )
        self.attentions = nn.ModuleList(_attention(attention, channels, settings) for _ in widths)
        self.upsample = Upsample(channels) if upsample else nn.Identity()

    def forward(self, h: Tensor, embedding: Tensor, skips: list[Tensor]) -> Tensor:
        for block, attend in zip(self.blocks, self.attentions, strict=True):
            h = attend(block(torch.cat([h, skips.pop()], dim=1), embedding))  # widths of h and skip add up
        return self.upsample(h)


def _attention(wanted: bool, channels: int, settings: UNetNetwork) -> nn.Module:
    return SelfAttention(channels, settings) if wanted else nn.Identity()
