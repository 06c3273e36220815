"""Image sources: scikit-learn's digits, drawn shapes, torchvision's datasets, and folders or .zip files of images."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddpm import rng
from ddpm.data import folder, shapes
from ddpm.errors import UsageError
from ddpm.params import Data

if TYPE_CHECKING:
    from PIL import Image

TEST_FRACTION = 0.15  # share of the images in the test split, for a source without one
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class Split:
    """The images of one split, of any size and mode."""

    decode: Callable[[int], "Image.Image"]  # the image at an index
    indices: np.ndarray  # int64 (N,), of the images in this split
    labels: np.ndarray  # int64 (N,), indices into classes
    classes: Sequence[str]
    source: dict[str, Any]

    def __len__(self) -> int:
        return len(self.indices)

    def picture(self, index: int) -> "Image.Image":
        """Image number `index` of the split. Raises `UsageError` that names the image if it cannot be decoded."""
        return self.decode(int(self.indices[index]))


def load(settings: Data, root: Path) -> tuple[Split, Split]:
    """Load the training and the test split of the source. `root` is the folder of datasets and downloads.

    Raises `UsageError` that says what is missing and where to put it.
    """
    match settings.source:
        case "folder":
            return _folder(settings, root)
        case "digits":
            return _digits(settings)
        case "shapes":
            return _shapes(settings)
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

    assert settings.seed is not None
    digits = load_digits()
    decode = _array_decoder(np.round(digits.images * (255 / 16)).astype(np.uint8))
    labels = digits.target.astype(np.int64)
    return _splits(decode, stratified(labels, settings.seed), labels, list("0123456789"), {"name": "digits"})


def _shapes(settings: Data) -> tuple[Split, Split]:
    from PIL import Image

    seed = settings.seed
    assert seed is not None
    labels = np.arange(shapes.COUNT) % len(shapes.CLASSES)
    indices = stratified(labels, seed)
    return _splits(
        lambda index: Image.fromarray(shapes.draw(seed, index)), indices, labels, shapes.CLASSES, {"name": "shapes"}
    )


def _folder(settings: Data, root: Path) -> tuple[Split, Split]:
    assert settings.path is not None
    assert settings.seed is not None
    where = root / settings.path
    if not where.exists():
        raise UsageError(
            f"data.path = {settings.path!r}: there is no {where}; put the images there, or run `ddpm data PATH` with "
            "their folder or .zip"
        )
    files = folder.listing(where)
    digest = files.digest()
    if settings.digest is not None and settings.digest != digest:
        raise UsageError(
            f"data.digest = {settings.digest[:8]}…: the images in {where} have {digest[:8]}…, so they changed; run "
            f"`ddpm data {shlex.quote(str(where))}` to use them, or restore the former images"
        )
    classes, labels = np.unique([image.label for image in files.images], return_inverse=True)
    splits = np.array([image.split for image in files.images])
    indices: Sequence[np.ndarray] = [np.flatnonzero(splits == split) for split in _SPLITS]
    if not len(indices[0]):
        indices = stratified(labels, settings.seed)
    return _splits(files.__getitem__, indices, labels, classes.tolist(), {"name": "folder", "files_sha256": digest})


def _array_decoder(values: np.ndarray) -> Callable[[int], "Image.Image"]:
    """A decoder of the images in an array, uint8 (N, H, W) or (N, H, W, 3)."""
    from PIL import Image

    return lambda index: Image.fromarray(values[index])


def _splits(
    decode: Callable[[int], "Image.Image"],
    indices: Sequence[np.ndarray],
    labels: np.ndarray,
    classes: Sequence[str],
    source: dict[str, Any],
) -> tuple[Split, Split]:
    train, test = (
        Split(decode, chosen, labels[chosen], classes, {**source, "split": name})
        for name, chosen in zip(_SPLITS, indices, strict=True)
    )
    return train, test


def _torchvision(name: str, root: Path) -> tuple[Split, Split]:
    from torchvision import datasets

    kind = {
        "mnist": datasets.MNIST,
        "fashion-mnist": datasets.FashionMNIST,
        "kmnist": datasets.KMNIST,
        "cifar10": datasets.CIFAR10,
    }[name]
    splits = []
    for split in _SPLITS:
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
        splits.append(
            Split(_array_decoder(values), np.arange(len(values)), labels, classes, {"name": name, "split": split})
        )
    return splits[0], splits[1]
