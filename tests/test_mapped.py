"""Reading memory-mapped tensors leaves their values and little memory."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from ddpm import files, mapped


def random_file(path: Path, shape: tuple[int, ...] = (37, 5, 1021)) -> np.ndarray:
    """A file of random bytes under the name images, after labels that shift it from the start of a page."""
    values = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    with files.create_tensors(path, {"images": (np.uint8, shape), "labels": (np.int64, (3,))}, {}) as arrays:
        arrays["images"][:] = values
    return values


@pytest.mark.parametrize("large", [False, True])
def test_blocks_and_rows_of_a_file_are_those_of_the_tensor(
    large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.from_numpy(random_file(tmp_path / "a.safetensors"))
    images = files.read_tensors(tmp_path / "a.safetensors").tensors["images"]
    for name, value in (("LARGE", 0 if large else 2**28), ("BLOCK", 9000), ("_ROWS", 4)):
        monkeypatch.setattr(mapped, name, value)
    for size in (1, 5, 37, 100):
        found = list(mapped.blocks(images, size))
        assert [len(block) for block in found] == [len(block) for block in values.split(size)]
        assert torch.cat(found).equal(values)
    chosen = np.random.default_rng(1).integers(0, 37, 50)
    assert mapped.gather(images, chosen).equal(values[chosen])
    assert mapped.gather(images[3:], np.array([33, 0])).equal(values[[36, 3]])
    mapped.release(images)
    assert images.equal(values)


def largest_share(path: Path, read: Callable[[Tensor], Iterator[object]]) -> float:
    """The largest share of a file that is in the memory of this process while it is read."""
    images = files.read_tensors(path).tensors["images"]
    process = psutil.Process()
    before = process.memory_info().rss
    return max((process.memory_info().rss - before) / images.nbytes for _ in read(images))


def in_blocks(images: Tensor) -> Iterator[object]:
    for block in mapped.blocks(images, 64):
        yield block.numpy().max()  # numpy copies nothing


def in_rows(images: Tensor) -> Iterator[object]:
    for chosen in np.random.default_rng(0).permutation(len(images)).reshape(-1, 256):
        yield mapped.gather(images, chosen)


@pytest.mark.parametrize("read", [in_blocks, in_rows])
def test_reading_a_large_file_leaves_little_of_it_in_memory(
    read: Callable[[Tensor], Iterator[object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.safetensors"
    random_file(path, (4096, 16384))  # 64 MiB
    monkeypatch.setattr(mapped, "BLOCK", 2**22)
    assert largest_share(path, read) > 0.8
    monkeypatch.setattr(mapped, "LARGE", 2**26)
    assert largest_share(path, read) < 0.2


def test_the_digest_of_a_large_file_leaves_little_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGE", 2**26)
    monkeypatch.setattr(mapped, "BLOCK", 2**22)
    values = np.random.default_rng(0).integers(0, 256, (64, 2**20), np.uint8)
    process, most = psutil.Process(), 0
    usual = hashlib.sha256

    class Watched:
        def __init__(self, data: bytes = b"") -> None:
            self.sha = usual(data)

        def update(self, data: Any) -> None:
            nonlocal most
            self.sha.update(data)
            most = max(most, process.memory_info().rss)

        def hexdigest(self) -> str:
            return self.sha.hexdigest()

    monkeypatch.setattr(hashlib, "sha256", Watched)
    with files.create_tensors(tmp_path / "a.safetensors", {"images": (np.uint8, values.shape)}, {}) as arrays:
        for row, value in zip(arrays["images"], values, strict=True):
            row[:] = value
        mapped.release(torch.from_numpy(arrays["images"]))
        before = process.memory_info().rss
    assert most - before < values.nbytes // 2
    assert files.read_tensors(tmp_path / "a.safetensors").tensors["images"].equal(torch.from_numpy(values))


def test_memory_that_is_no_file_is_never_released(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapped, "LARGE", 0)
    monkeypatch.setattr(mapped, "BLOCK", 4096)
    for count in (3, 40_000_000):  # memory of malloc, and of an anonymous mapping
        tensor = torch.arange(count, dtype=torch.int32)
        mapped.release(tensor)
        for _ in mapped.blocks(tensor, 4_000_000):
            pass
        mapped.gather(tensor, np.array([1, 2, 2]))
        assert tensor[-1] == count - 1
        assert int((tensor[1:] == 0).sum()) == 0
