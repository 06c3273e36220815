"""The training images nearest to samples in pixel space, to detect copies."""

import torch
from torch import Tensor

_BATCH = 4096


def nearest(samples: Tensor, train: Tensor) -> tuple[Tensor, Tensor]:
    """For each sample the index of the nearest training image, int64 (N,), and its distance, float32 (N,).

    Both are uint8 (., C, H, W); the distance is the root mean square over pixels, in [0, 255].
    """
    best = torch.full((len(samples),), torch.inf)
    index = torch.zeros(len(samples), dtype=torch.int64)
    flat = samples.flatten(1).float()
    for first in range(0, len(train), _BATCH):
        distances = torch.cdist(flat, train[first : first + _BATCH].flatten(1).float())
        distance, at = distances.min(dim=1)
        closer = distance < best
        best[closer], index[closer] = distance[closer], first + at[closer]
    # cdist expands the square, which gives a copy a distance slightly above zero: compute the distances again.
    return index, (flat - train[index].flatten(1).float()).square().mean(1).sqrt()


def typical_distance(test: Tensor, train: Tensor) -> float:
    """The median distance of test images to their nearest training image, in [0, 255]: the value without copies."""
    return float(nearest(test, train)[1].median())
