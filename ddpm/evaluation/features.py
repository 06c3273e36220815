"""Features of images under an extractor, and the file that holds those of the real images."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm import files, mapped, rng

FORMAT = "ddpm-reference-1"
_METADATA = ("extractor", "extractor_digest", "train_digest", "test_digest", "source")
_BLOCK = 2**26  # bytes of features that are converted to float64 at a time


@dataclass(frozen=True)
class Features:
    """The output of an extractor for a set of images: features (N, F) and logits (N, K), float32."""

    features: Tensor
    logits: Tensor

    def __len__(self) -> int:
        return len(self.features)

    def subset(self, count: int, seed: int) -> "Features":
        """`count` random images, chosen by the seed; all images in their order if there are not more."""
        if count >= len(self):
            return self
        chosen = np.sort(rng.numpy_generator(seed, "subset").choice(len(self), count, replace=False))
        return Features(mapped.gather(self.features, chosen), mapped.gather(self.logits, chosen))

    @cached_property
    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (F,) and covariance (F, F) of the features, float64.

        One pass over blocks adds up the mean, another one the products of the centred features. There is never a
        float64 copy of all features.
        """
        count, width = self.features.shape
        rows = max(1, _BLOCK // (8 * width))
        mean, products = torch.zeros(width, dtype=torch.float64), torch.zeros(width, width, dtype=torch.float64)
        for block in mapped.blocks(self.features, rows):
            mean += block.double().sum(0) / count
        for block in mapped.blocks(self.features, rows):
            centred = block.double() - mean
            products.addmm_(centred.T, centred)
        return mean.numpy(), (products / (count - 1)).numpy()


@dataclass(frozen=True)
class Reference:
    """The features of both splits of the real images, and the origin of images and extractor."""

    train: Features
    test: Features
    extractor: str  # classifier | inception
    extractor_digest: str  # sha256 of the extractor's weights
    train_digest: str  # sha256 of the images and labels
    test_digest: str
    source: dict[str, Any]  # of the training images, as in the packed dataset

    @property
    def image_digests(self) -> tuple[str, str]:
        """The digests of both splits."""
        return self.train_digest, self.test_digest


def write(path: Path, reference: Reference) -> None:
    """Write reference features, which may be larger than memory, to a file."""
    tensors = {
        f"{split}/{name}": tensor
        for split, part in (("train", reference.train), ("test", reference.test))
        for name, tensor in (("features", part.features), ("logits", part.logits))
    }
    shapes = {name: (np.float32, tuple(tensor.shape)) for name, tensor in tensors.items()}
    metadata = {"format": FORMAT} | {key: getattr(reference, key) for key in _METADATA}
    with files.create_tensors(path, shapes, metadata) as arrays:
        for name, tensor in tensors.items():
            mapped.copy(tensor, torch.from_numpy(arrays[name]))


def read(path: Path) -> Reference:
    """Read reference features. Raises `TensorFileError` if the file holds none."""
    file = files.read_tensors(path, FORMAT)
    train, test = (
        Features(file.tensors[f"{split}/features"], file.tensors[f"{split}/logits"]) for split in ("train", "test")
    )
    return Reference(train, test, *(file.metadata[key] for key in _METADATA))
