"""The packed dataset keeps images, labels, classes and source."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm import files
from ddpm.data import dataset

SOURCE = {"name": "folder", "split": "train", "files_sha256": "0" * 64}


def write(path: Path, labels: list[int] = [2, 0, 1, 1, 2]) -> np.ndarray:  # noqa: B006 (never mutated)
    """Write random images of shape (3, 4, 6) from an iterator, and return them."""
    images = np.random.default_rng(len(labels)).integers(0, 256, (len(labels), 3, 4, 6), dtype=np.uint8)
    dataset.write(path, iter(images), np.array(labels), ["cat", "dog", "Äffin"], (3, 4, 6), SOURCE)
    return images


def test_read_returns_the_written_dataset(tmp_path: Path) -> None:
    images = write(tmp_path / "train.safetensors")
    data = dataset.read(tmp_path / "train.safetensors")
    np.testing.assert_array_equal(data.images.numpy(), images)
    assert (data.images.dtype, data.labels.dtype) == (torch.uint8, torch.int64)
    assert data.labels.tolist() == [2, 0, 1, 1, 2]
    assert data.classes == ["cat", "dog", "Äffin"]
    assert data.source == SOURCE
    assert data.image_shape == (3, 4, 6)


def test_equal_splits_give_equal_bytes_and_digests(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write(one)
    write(other)
    assert one.read_bytes() == other.read_bytes()


def test_the_digest_changes_with_the_labels(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    write(one, [0, 0])
    write(other, [0, 1])
    assert dataset.read(one).digest != dataset.read(other).digest


def test_the_digest_is_the_one_in_the_header(tmp_path: Path) -> None:
    path = tmp_path / "train.safetensors"
    write(path)
    assert dataset.read(path).digest == files.read_metadata(path)["digest"]


def test_a_failure_between_images_leaves_no_file(tmp_path: Path) -> None:
    def images() -> Iterator[np.ndarray]:
        yield np.zeros((3, 4, 6), np.uint8)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        dataset.write(tmp_path / "a" / "train.safetensors", images(), np.array([0, 1]), ["cat"], (3, 4, 6), SOURCE)
    assert list((tmp_path / "a").iterdir()) == []


def test_images_of_another_shape_are_refused(tmp_path: Path) -> None:
    images = [np.zeros((3, 6, 4), np.uint8)]
    with pytest.raises(ValueError, match="broadcast"):
        dataset.write(tmp_path / "train.safetensors", images, np.array([0]), ["cat"], (3, 4, 6), SOURCE)
    assert list(tmp_path.iterdir()) == []


def test_error_names_a_file_that_is_not_a_dataset(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    files.write_tensors(path, {"images": torch.zeros(1)}, {"format": "ddpm-model-1"})
    with pytest.raises(
        files.TensorFileError, match=rf"{path} has the format ddpm-model-1 \(a model\): expected ddpm-dataset-1"
    ):
        dataset.read(path)
