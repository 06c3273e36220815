"""The only way between images of uint8 [0, 255] and the float32 that the network sees."""

from collections.abc import Sequence

import torch


def to_float(images: torch.Tensor, value_range: Sequence[float]) -> torch.Tensor:
    """uint8 (...) to float32 (...): 0 becomes the range's low end, 255 its high end."""
    low, high = value_range
    return images.to(torch.float32) * ((high - low) / 255) + low


def to_uint8(images: torch.Tensor, value_range: Sequence[float]) -> torch.Tensor:
    """float (...) to uint8 (...): clamped to the range, then rounded to the nearest, so it inverts `to_float`."""
    low, high = value_range
    unit = (images.to(torch.float32) - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)
