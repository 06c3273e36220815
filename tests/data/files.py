"""Write image files for the tests: encoded images, folders and archives of them, and the files of known data sets."""

import pickle
import zipfile
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

IDX = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST", "kmnist": "KMNIST"}


def encoded(picture: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    """The bytes of an image file."""
    buffer = BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def grey(level: int, size: tuple[int, int] = (3, 5)) -> bytes:
    """A PNG of one grey level; the size is (width, height)."""
    return encoded(Image.new("L", size, level))


def folder_of(where: Path, files: Mapping[str, bytes]) -> Path:
    """Write each file to its path below `where`."""
    where.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (where / name).parent.mkdir(parents=True, exist_ok=True)
        (where / name).write_bytes(content)
    return where


def zip_of(where: Path, files: Mapping[str, bytes]) -> Path:
    """Write the files into an archive, in the order given."""
    with zipfile.ZipFile(where, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return where


def write_idx(root: Path, name: str, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """Write the four files of an MNIST-like data set, images of 6 rows and 7 columns; return the images by split."""
    raw = root / IDX[name] / "raw"
    raw.mkdir(parents=True)
    images = {}
    for split, count in counts.items():
        pixels = np.random.default_rng(count).integers(0, 256, (count, 6, 7), dtype=np.uint8)
        images["test" if split == "t10k" else split] = pixels
        sizes = np.array([count, 6, 7], ">i4").tobytes()
        (raw / f"{split}-images-idx3-ubyte").write_bytes(b"\0\0\x08\x03" + sizes + pixels.tobytes())
        labels = bytes(index % 10 for index in range(count))
        (raw / f"{split}-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + sizes[:4] + labels)
    return images


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch, size: int = 2) -> np.ndarray:
    """Write CIFAR-10's six batches of `size` images, and disable the md5 check; return the images (N, 32, 32, 3)."""
    pixels = np.random.default_rng(0).integers(0, 256, (6 * size, 3, 32, 32), dtype=np.uint8)
    names = [f"data_batch_{batch}" for batch in range(1, 6)] + ["test_batch"]
    (root / "cifar-10-batches-py").mkdir(parents=True)
    for batch, name in enumerate(names):
        images = pixels[size * batch : size * (batch + 1)].reshape(size, -1)
        content = {"data": images, "labels": [batch, batch + 1][:size]}
        (root / "cifar-10-batches-py" / name).write_bytes(pickle.dumps(content))
    labels = {"label_names": ["airplane", *(f"class {n}" for n in range(1, 10))]}
    (root / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps(labels))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, None] for name in names[:5]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [[names[5], None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": None})
    return pixels.transpose(0, 2, 3, 1)
