"""Features of images under an extractor, and the file that holds those of the real images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ddpm import files, rng

FORMAT = "ddpm-reference-1"
_METADATA = ("extractor", "extractor_digest", "train_digest", "test_digest", "source")


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
        return Features(self.features[chosen], self.logits[chosen])


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


def write(path: Path, reference: Reference) -> None:
    """Write reference features to a file."""
    tensors = {
        f"{split}/{name}": tensor
        for split, part in (("train", reference.train), ("test", reference.test))
        for name, tensor in vars(part).items()
    }
    files.write_tensors(path, tensors, {"format": FORMAT} | {key: getattr(reference, key) for key in _METADATA})


def read(path: Path) -> Reference:
    """Read reference features. Raises `TensorFileError` if the file holds none."""
    file = files.read_tensors(path, FORMAT)
    train, test = (
        Features(file.tensors[f"{split}/features"], file.tensors[f"{split}/logits"]) for split in ("train", "test")
    )
    return Reference(train, test, *(file.metadata[key] for key in _METADATA))
