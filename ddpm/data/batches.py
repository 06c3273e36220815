"""The batch of each training step."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ddpm import images, rng
from ddpm.data.dataset import Dataset
from ddpm.device import hold
from ddpm.params import Train


class Batches:
    """The training images in an endless sequence of shuffled epochs, cut into steps and micro-batches.

    The order of epoch e comes from (seed, "order", e), so the batch of a step does not depend on earlier steps.
    """

    def __init__(self, dataset: Dataset, settings: Train, value_range: Sequence[float], device: torch.device) -> None:
        self.device = device
        self._images = hold(dataset.images, device)
        self._labels = dataset.labels
        self._unlabelled = len(dataset.classes)  # the null label
        self._settings = settings
        self._value_range = value_range
        self._order = lru_cache(maxsize=2)(self._shuffle)  # a batch may span two epochs

    def get(self, step: int, micro: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The images x_0 of a micro-batch, float32 (N, C, H, W), and with label dropout their labels, int64 (N,).

        With horizontal_flip, each image is flipped with probability 1/2. With label dropout, each label is replaced by
        the null label with that probability.
        """
        chosen = torch.from_numpy(self.indices(step, micro))
        if self._images.device.type != self.device.type:
            batch = self._images[chosen]
            batch = (batch.pin_memory() if self.device.type == "cuda" else batch).to(self.device, non_blocking=True)
        else:
            batch = self._images[chosen.to(self.device, non_blocking=True)]
        x_0 = images.to_float(batch, self._value_range)
        if self._settings.horizontal_flip:
            flip = torch.rand(len(x_0), generator=generator, device=self.device) < 0.5
            x_0 = torch.where(flip[:, None, None, None], x_0.flip(3), x_0)
        dropout = self._settings.label_dropout
        if dropout is None:
            return x_0, None
        labels = self._labels[chosen].to(self.device)
        dropped = torch.rand(len(labels), generator=generator, device=self.device) < dropout
        return x_0, labels.masked_fill(dropped, self._unlabelled)

    def indices(self, step: int, micro: int) -> np.ndarray:
        """Indices into the dataset, int64 (batch_size / accumulate,), for step 1, 2, ... and micro-batch 0, 1, ..."""
        size = self._settings.batch_size // self._settings.accumulate
        first = (step - 1) * self._settings.batch_size + micro * size
        epochs, indices = np.divmod(np.arange(first, first + size), len(self._images))
        return np.concatenate([self._order(int(epoch))[indices[epochs == epoch]] for epoch in np.unique(epochs)])

    def _shuffle(self, epoch: int) -> np.ndarray:
        return rng.numpy_generator(self._settings.seed, "order", epoch).permutation(len(self._images))
