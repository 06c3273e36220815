"""The training loss of a finished model on images of either split."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ddpm import images, rng
from ddpm.data.dataset import Dataset
from ddpm.network.modelfile import Model
from ddpm.params import Train
from ddpm.training.objective import loss as loss_of

_DRAWS = 2000  # pairs of a time and noise: enough for two significant digits, and fast
_DRAWS_PER_IMAGE = 8
_IMAGES = 1000  # of each split


def images_of(train: Dataset, test: Dataset) -> int:
    """The number of images of each split on which the loss is measured."""
    return min(_IMAGES, len(train.images), len(test.images))


def draws_for(count: int) -> int:
    """The number of draws that `count` images share."""
    return min(_DRAWS, _DRAWS_PER_IMAGE * count)


def compare(
    model: Model,
    train: Dataset,
    test: Dataset,
    settings: Train,
    seed: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> tuple[dict[str, float], dict[str, int]]:
    """The loss on training images and on as many test images, as metrics, and the protocol of its measurement.

    `progress(n)` is called after each network evaluation of n images.
    """
    count = images_of(train, test)
    splits = {"train": train, "test": test}
    metrics = {
        name: measure(model, split, count, settings, seed, batch_size, progress) for name, split in splits.items()
    }
    return metrics, {"loss_images": count, "loss_draws": draws_for(count)}


@torch.no_grad()
def measure(
    model: Model,
    split: Dataset,
    count: int,
    settings: Train,
    seed: int,
    batch_size: int,
    progress: Callable[[int], object] | None = None,
) -> float:
    """The mean loss over the draws that `count` random images of a split share.

    Draw i has the same time and the same noise in every split, so the difference of two splits is that of their images.
    The times are evenly spaced in 1..T. A conditional network is given the labels.
    """
    process, device = model.denoiser.process, model.denoiser.process.device
    chosen = np.sort(rng.numpy_generator(seed, "loss images").choice(len(split.images), count, replace=False))
    x_0 = images.to_float(split.images[chosen].to(device), model.denoiser.value_range)
    labels = split.labels[chosen].to(device) if model.description.network.conditional else None
    total, times = 0.0, _times(process.timesteps, draws_for(count), seed).to(device)
    for draws in torch.arange(len(times), device=device).split(batch_size):
        shown = draws % count
        eps = _noise(model, draws, seed)
        denoiser = model.denoiser.given(None if labels is None else labels[shown])
        total += float(loss_of(denoiser, x_0[shown], times[draws], eps, settings)) * len(draws)
        if progress is not None:
            progress(len(draws))
    return total / len(times)


def _times(timesteps: int, draws: int, seed: int) -> Tensor:
    """The time of each draw, int64 (draws,): evenly spaced in 1..T, in random order."""
    spaced = (torch.arange(draws) * 2 + 1) * timesteps // (2 * draws) + 1
    return spaced[rng.numpy_generator(seed, "loss times").permutation(draws)]


def _noise(model: Model, draws: Tensor, seed: int) -> Tensor:
    """The noise of each draw, (len(draws), C, H, W)."""
    process, shape = model.denoiser.process, (1, *model.description.image_shape)
    own = (rng.torch_generator(process.device, seed, "loss", draw) for draw in draws.tolist())
    return torch.cat([process.prior(shape, generator) for generator in own])
