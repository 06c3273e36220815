"""The only conversion between uint8 images [0, 255] and the float32 input of the network."""

from collections.abc import Sequence

import torch


def to_float(images: torch.Tensor, value_range: Sequence[float]) -> torch.Tensor:
    """uint8 (...) to float32 (...): 0 becomes the low end of the range, 255 the high end."""
    low, high = value_range
    return images.to(torch.float32) * ((high - low) / 255) + low


def to_uint8(images: torch.Tensor, value_range: Sequence[float]) -> torch.Tensor:
    """float (...) to uint8 (...): clamped to the range and rounded to the nearest; the inverse of `to_float`."""
    low, high = value_range
    unit = (images.to(torch.float32) - low) / (high - low)
    return (unit.clamp(0, 1) * 255).round().to(torch.uint8)
