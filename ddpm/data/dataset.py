"""The packed dataset: one file of images and labels per split, memory-mapped when read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm import files, mapped

FORMAT = "ddpm-dataset-1"
_WRITTEN = 2**26  # bytes after which the pages of the file are released


@dataclass(frozen=True)
class Dataset:
    """Images of one split, with their labels."""

    images: Tensor  # uint8 (N, C, H, W)
    labels: Tensor  # int64 (N,), indices into classes
    classes: Sequence[str]
    digest: str  # sha256 of images and labels
    source: dict[str, Any]  # origin of the images: name, split, and the digest of the files of a folder

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        _, channels, height, width = self.images.shape
        return channels, height, width


def write(
    path: Path,
    images: Iterable[np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    image_shape: tuple[int, int, int],
    source: dict[str, Any],
) -> None:
    """Write a split into one file, image by image: one uint8 array (C, H, W) for each label."""
    count = len(labels)
    arrays = {"images": (np.uint8, (count, *image_shape)), "labels": (np.int64, (count,))}
    metadata = {"format": FORMAT, "classes": list(classes), "source": source}
    with files.create_tensors(path, arrays, metadata) as packed:
        packed["labels"][:] = labels
        released = 0
        for index, image in enumerate(images):
            packed["images"][index] = image
            if (index + 1 - released) * image.nbytes >= _WRITTEN:
                mapped.release(torch.from_numpy(packed["images"][released : index + 1]))
                released = index + 1


def read(path: Path) -> Dataset:
    """Read a split; images stay on disk until they are used. Raises as `files.read_tensors` does."""
    file = files.read_tensors(path, FORMAT)
    metadata = file.metadata
    return Dataset(file.tensors["images"], file.tensors["labels"], metadata["classes"], file.digest, metadata["source"])


def read_splits(train: Path, test: Path) -> tuple[Dataset, Dataset]:
    """Read both splits. Raises also `TensorFileError` if their images differ in shape or classes."""
    first, second = read(train), read(test)
    if first.image_shape != second.image_shape or list(first.classes) != list(second.classes):
        raise files.TensorFileError(f"{test} has images of another shape, or of other classes, than {train}", test)
    return first, second
