"""The batch of each training step."""

import copy
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ddpm import images, mapped, rng
from ddpm.data.dataset import Dataset
from ddpm.device import hold
from ddpm.params import Train


class Batches:
    """The training images in an endless sequence of shuffled epochs, cut into steps and micro-batches.

    The order of epoch e comes from (seed, "order", e), so the batch of a step does not depend on earlier steps.

    One thread reads ahead the images of a large data set that the device does not hold: during micro-batch m, those of
    the micro-batch that follows m in `micros` (in rising order; default: all), or of the first one of the next step.
    The images of any other micro-batch are read when they are requested.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: Train,
        value_range: Sequence[float],
        device: torch.device,
        micros: Sequence[int] | None = None,
    ) -> None:
        self.device = device
        self._images = hold(dataset.images, device)
        self._labels = hold(dataset.labels, device)
        self._unlabelled = len(dataset.classes)  # the null label
        self._settings = settings
        self._value_range = value_range
        self._order = lru_cache(maxsize=2)(self._shuffle)  # a batch may span two epochs
        self._micros = range(settings.accumulate) if micros is None else micros
        on_host = self._images.device.type == "cpu"
        self._reader = ThreadPoolExecutor(1, "batches") if on_host and mapped.is_large(self._images) else None
        self._ahead: dict[tuple[int, int], Future[tuple[Tensor, Tensor]]] = {}  # at most one micro-batch

    def redrawn(self, settings: Train) -> "Batches":
        """Batches of the same images with other settings, such as another seed."""
        other = copy.copy(self)
        other._settings, other._ahead = settings, {}
        other._order = lru_cache(maxsize=2)(other._shuffle)
        return other

    def get(self, step: int, micro: int, generator: torch.Generator) -> tuple[Tensor, Tensor | None]:
        """The images x_0 of a micro-batch, float32 (N, C, H, W), and with label dropout their labels, int64 (N,).

        With horizontal_flip, each image is flipped with probability 1/2. With label dropout, each label is replaced by
        the null label with that probability.
        """
        chosen, batch = self._read(step, micro) if self._reader is None else self._read_ahead(self._reader, step, micro)
        batch = batch.to(self.device, non_blocking=True)
        x_0 = images.to_float(batch, self._value_range)
        if self._settings.horizontal_flip:
            flip = torch.rand(len(x_0), generator=generator, device=self.device) < 0.5
            x_0 = torch.where(flip[:, None, None, None], x_0.flip(3), x_0)
        dropout = self._settings.label_dropout
        if dropout is None:
            return x_0, None
        labels = self._labels[chosen.to(self._labels.device, non_blocking=True)].to(self.device)
        dropped = torch.rand(len(labels), generator=generator, device=self.device) < dropout
        return x_0, labels.masked_fill(dropped, self._unlabelled)

    def _read_ahead(self, reader: ThreadPoolExecutor, step: int, micro: int) -> tuple[Tensor, Tensor]:
        """As `_read`, whose errors it raises; start to read the next micro-batch."""
        started = self._ahead.pop((step, micro), None)
        found = self._read(step, micro) if started is None else started.result()
        later = [other for other in self._micros if other > micro]
        following = (step, later[0]) if later else (step + 1, self._micros[0])
        wanted = following[0] <= self._settings.steps
        self._ahead = {following: reader.submit(self._read, *following)} if wanted else {}
        return found

    def _read(self, step: int, micro: int) -> tuple[Tensor, Tensor]:
        """The indices of a micro-batch and its images, uint8, on the device if it holds them, else on the host."""
        indices = self.indices(step, micro)
        chosen = torch.from_numpy(indices)
        if self._images.device.type != "cpu":
            return chosen, self._images[chosen.to(self.device, non_blocking=True)]
        batch = mapped.gather(self._images, indices)
        if self.device.type != "cuda":
            return chosen, batch
        with torch.cuda.device(self.device):  # a thread starts with the first GPU, where another process may run
            return chosen, batch.pin_memory()

    def indices(self, step: int, micro: int) -> np.ndarray:
        """Indices into the dataset, int64 (batch_size / accumulate,), for step 1, 2, ... and micro-batch 0, 1, ..."""
        size = self._settings.batch_size // self._settings.accumulate
        first = (step - 1) * self._settings.batch_size + micro * size
        epochs, indices = np.divmod(np.arange(first, first + size), len(self._images))
        return np.concatenate([self._order(int(epoch))[indices[epochs == epoch]] for epoch in np.unique(epochs)])

    def _shuffle(self, epoch: int) -> np.ndarray:
        return rng.numpy_generator(self._settings.seed, "order", epoch).permutation(len(self._images))
