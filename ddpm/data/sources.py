"""Image sources: the digits of scikit-learn, torchvision's datasets, and folders or .zip files of images."""

from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ddpm import rng
from ddpm.data import folder
from ddpm.errors import UsageError
from ddpm.params import Data

if TYPE_CHECKING:
    from PIL import Image

TEST_FRACTION = 0.15  # share of the images in the test split, for a source without one


class Pictures(Protocol):
    """Images by index, decoded on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> "Image.Image": ...


@dataclass(frozen=True)
class Split:
    """The images of one split, of any size and mode."""

    pictures: Pictures
    indices: np.ndarray  # int64 (N,), of the pictures in this split
    labels: np.ndarray  # int64 (N,), indices into classes
    classes: Sequence[str]
    source: dict[str, Any]

    def __len__(self) -> int:
        return len(self.indices)

    def picture(self, index: int) -> "Image.Image":
        """Image number `index` of the split. Raises `UsageError` that names the image if it cannot be decoded."""
        return self.pictures[int(self.indices[index])]


@dataclass(frozen=True)
class Arrays:
    """Pictures in memory: uint8 (N, H, W) or (N, H, W, 3)."""

    values: np.ndarray

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, index: int) -> "Image.Image":
        from PIL import Image

        return Image.fromarray(self.values[index])


def load(settings: Data, root: Path) -> tuple[Split, Split]:
    """Load the training and the test split of the source. `root` is the folder of datasets and downloads.

    Raises `UsageError` that says what is missing and where to put it.
    """
    match settings.source:
        case "folder":
            return _folder(settings, root)
        case "digits":
            return _digits(settings)
        case name:
            return _torchvision(name, root)


def stratified(labels: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the training and of the test images: a random split by the seed, with equal proportions per class."""
    count = len(labels)
    tests = max(round(count * TEST_FRACTION), 1)
    if count < 2:
        raise UsageError(f"{count} images cannot be split into training and test images")
    shuffled = rng.numpy_generator(seed, "split").permutation(count)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    test = np.zeros(count, dtype=bool)
    test[by_class[(2 * np.arange(tests) + 1) * count // (2 * tests)]] = True  # evenly spaced, hence from every class
    return np.flatnonzero(~test), np.flatnonzero(test)


def _digits(settings: Data) -> tuple[Split, Split]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = Arrays(np.round(digits.images * (255 / 16)).astype(np.uint8))
    return _divided(pictures, digits.target.astype(np.int64), [str(n) for n in range(10)], {"name": "digits"}, settings)


def _divided(
    pictures: Pictures, labels: np.ndarray, classes: Sequence[str], source: dict[str, Any], settings: Data
) -> tuple[Split, Split]:
    assert settings.seed is not None
    train, test = stratified(labels, settings.seed)
    return (
        Split(pictures, train, labels[train], classes, {**source, "split": "train"}),
        Split(pictures, test, labels[test], classes, {**source, "split": "test"}),
    )


def _folder(settings: Data, root: Path) -> tuple[Split, Split]:
    assert settings.path is not None
    files = folder.listing(root / settings.path)
    digest = files.digest()
    if settings.digest not in (None, digest):
        raise UsageError(f"data.digest = {settings.digest}: the images in {files.where} have {digest}; they changed")
    source = {"name": "folder", "files_sha256": digest}
    classes = sorted({image.label for image in files.images})
    index_of = {label: index for index, label in enumerate(classes)}
    labels = np.array([index_of[image.label] for image in files.images], dtype=np.int64)
    if all(image.split is None for image in files.images):
        return _divided(files, labels, classes, source, settings)
    train, test = (
        np.array([index for index, image in enumerate(files.images) if image.split == split], dtype=np.int64)
        for split in ("train", "test")
    )
    return (
        Split(files, train, labels[train], classes, {**source, "split": "train"}),
        Split(files, test, labels[test], classes, {**source, "split": "test"}),
    )


def _torchvision(name: str, root: Path) -> tuple[Split, Split]:
    from torchvision import datasets

    kind = {
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
        "kmnist": datasets.KMNIST,
        "cifar10": datasets.CIFAR10,
    }[name]
    splits = []
    for split in ("train", "test"):
        try:
            dataset = kind(root, train=split == "train", download=True)  # downloads only what is missing
        except (OSError, RuntimeError, ValueError, HTTPException) as error:
            folder_name = "cifar-10-batches-py/" if name == "cifar10" else f"{kind.__name__}/raw/"
            raise UsageError(
                f"data.source = {name!r}: {kind.__name__} is not complete under {root} and could not be downloaded "
                f"({error}). Set runtime.data_root to the folder that holds {folder_name}, or remove "
                f"{root / folder_name} and run this once with a network connection"
            ) from error
        values, labels = np.asarray(dataset.data), np.asarray(dataset.targets, dtype=np.int64)
        classes = [str(label) for label in dataset.classes]
        splits.append(Split(Arrays(values), np.arange(len(values)), labels, classes, {"name": name, "split": split}))
    return splits[0], splits[1]
