"""Tensor files are reproducible, whole, mapped, and described."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ddpm import tensorfile

METADATA = {"format": "x-1", "classes": ["a", "ä"], "nested": {"one": [1, None, 2.5]}}


def tensors() -> dict[str, Tensor]:
    return {
        "images": torch.arange(2 * 3 * 5, dtype=torch.uint8).reshape(2, 3, 5),
        "labels": torch.tensor([7, -1]),
        "weights": torch.linspace(-1, 1, 12).reshape(3, 4),
    }


def create_half(path: Path) -> None:
    with tensorfile.create(path, {"images": (np.uint8, (2, 3))}, {}) as arrays:
        arrays["images"][0] = 1
        raise ZeroDivisionError


def header(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    parsed: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return parsed


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensorfile.write(path, tensors(), METADATA)
    file = tensorfile.read(path)
    torch.testing.assert_close(file.tensors, tensors(), rtol=0, atol=0)
    assert file.metadata == METADATA | {"digest": file.digest}
    assert list(tmp_path.iterdir()) == [path]


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    tensorfile.write(one, tensors(), METADATA)
    tensorfile.write(other, dict(reversed(tensors().items())), dict(reversed(METADATA.items())))
    assert one.read_bytes() == other.read_bytes()


def test_the_memory_layout_does_not_matter(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    images = torch.rand(2, 3, 4, 5)
    tensorfile.write(one, {"images": images}, {})
    tensorfile.write(other, {"images": images.contiguous(memory_format=torch.channels_last)}, {})
    assert one.read_bytes() == other.read_bytes()


def test_the_digest_is_the_sha256_of_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensorfile.write(path, {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3], [4]], dtype=torch.uint8)}, {})
    expected = b"a torch.uint8 [2, 1]\n" + bytes([3, 4])
    expected += b"b torch.float32 [2]\n" + np.array([1, 2], "<f4").tobytes()
    assert tensorfile.read(path).digest == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("change", [{"labels": torch.tensor([7, 0])}, {"more": torch.zeros(1)}])
def test_other_tensors_have_another_digest(tmp_path: Path, change: dict[str, Tensor]) -> None:
    path = tmp_path / "a.safetensors"
    tensorfile.write(path, tensors(), METADATA)
    digest = tensorfile.read(path).digest
    tensorfile.write(path, tensors() | change, METADATA)
    assert tensorfile.read(path).digest != digest


def test_the_digest_is_of_the_tensors_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensorfile.write(path, tensors(), METADATA)
    digest = tensorfile.read(path).digest
    tensorfile.write(path, tensors(), {"other": 1})
    assert tensorfile.read(path).digest == digest


def test_the_description_is_read_without_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensorfile.write(path, tensors(), METADATA)
    assert tensorfile.read_metadata(path) == tensorfile.read(path).metadata


def test_reading_a_large_file_takes_no_memory_until_it_is_touched(tmp_path: Path) -> None:
    path, size = tmp_path / "a.safetensors", 128 * 2**20
    with tensorfile.create(path, {"images": (np.uint8, (128, 1024, 1024))}, {}):
        pass  # zeros, which the file system keeps as a hole
    process = psutil.Process()
    before = process.memory_info().rss
    images = tensorfile.read(path).tensors["images"]
    assert process.memory_info().rss - before < size // 8
    assert images.nbytes == size
    assert int(images[-1].sum()) == 0


def test_created_piece_by_piece_equals_written_at_once(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    whole = {name: tensor.numpy() for name, tensor in tensors().items()}
    with tensorfile.create(one, {k: (v.dtype.type, v.shape) for k, v in whole.items()}, METADATA) as arrays:
        for name, values in whole.items():
            for place, value in enumerate(values):
                arrays[name][place] = value
    tensorfile.write(other, tensors(), METADATA)
    created, written = tensorfile.read(one), tensorfile.read(other)
    torch.testing.assert_close(created.tensors, written.tensors, rtol=0, atol=0)
    assert created.metadata == written.metadata
    assert sorted(tmp_path.iterdir()) == [one, other]


def test_created_twice_gives_equal_bytes(tmp_path: Path) -> None:
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in paths:
        with tensorfile.create(path, {"images": (np.uint8, (3, 5)), "labels": (np.int64, (3,))}, METADATA) as arrays:
            arrays["images"][:] = np.arange(15).reshape(3, 5)
            arrays["labels"][:] = [2, 0, 1]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_wide_numbers_are_aligned_after_an_odd_number_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    shapes = {"a": (np.uint8, (1, 3, 5)), "b": (np.int64, (2,)), "c": (np.float32, (3,))}
    with tensorfile.create(path, shapes, {"text": "odd"}) as arrays:
        arrays["b"][:] = [2**40, -3]
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    offsets = {name: start + header(path)[name]["data_offsets"][0] for name in shapes}
    assert offsets["b"] % 8 == 0
    assert offsets["c"] % 4 == 0
    assert tensorfile.read(path).tensors["b"].tolist() == [2**40, -3]


def test_a_failure_while_creating_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ZeroDivisionError):
        create_half(path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_creating_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensorfile.write(path, tensors(), METADATA)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        create_half(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("read", [tensorfile.read, tensorfile.read_metadata])
@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, read: Any, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    tensorfile.write(path, tensors(), METADATA)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(tensorfile.TensorFileError, match=rf"{path} is not a whole safetensors file: \w+"):
        read(path)


@pytest.mark.parametrize("read", [tensorfile.read, tensorfile.read_metadata])
def test_a_missing_file_or_a_folder_is_named(tmp_path: Path, read: Any) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(tensorfile.TensorFileError, match=rf"^{path} does not exist$"):
            read(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ddpm": "no JSON"}, {"ddpm": "null"}])
def test_a_file_of_others_is_named(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2)}, path, metadata)
    with pytest.raises(tensorfile.TensorFileError, match=rf"{path} was not written by this project"):
        tensorfile.read(path)
