"""The nearest training images."""

from pathlib import Path

import psutil
import pytest
import torch

from ddpm import files, mapped
from ddpm.evaluation import neighbours

CPU = torch.device("cpu")


def pictures(count: int, seed: int, shape: tuple[int, ...] = (3, 4, 8)) -> torch.Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def test_copies_are_found_at_distance_zero() -> None:
    train = pictures(40, 0, (3, 32, 32))  # large enough that expanding the square would not give zero
    order = torch.tensor([31, 0, 17, 39, 5])
    indices, distances = neighbours.nearest(train[order], train, CPU)
    assert torch.equal(indices, order)
    assert torch.equal(distances, torch.zeros(5))


def test_nearest_agrees_with_plain_comparison() -> None:
    samples, train = pictures(7, 1), pictures(30, 2)
    indices, distances = neighbours.nearest(samples, train, CPU)
    gaps = (samples.double()[:, None] - train.double()[None]).square().mean((2, 3, 4)).sqrt()
    assert torch.equal(indices, gaps.argmin(1))
    torch.testing.assert_close(distances.double(), gaps.min(1).values, rtol=1e-5, atol=0)
    assert (indices.dtype, distances.dtype) == (torch.int64, torch.float32)


def test_distance_is_in_grey_levels_for_every_image_size() -> None:
    for shape in ((1, 2, 3), (3, 16, 8)):
        black = torch.zeros((1, *shape), dtype=torch.uint8)
        _, distances = neighbours.nearest(black, black + 51, CPU)
        assert distances.item() == pytest.approx(51)


@pytest.mark.parametrize(("name", "value"), [("_MOST", 4), ("_BLOCK", 4 * 3 * 4 * 8 * 4), ("_BLOCK", 1)])
def test_nearest_does_not_depend_on_the_blocks(name: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    samples, train = pictures(9, 3), pictures(25, 4)
    whole = neighbours.nearest(samples, train, CPU)
    monkeypatch.setattr(neighbours, name, value)
    in_parts = neighbours.nearest(samples, train, CPU)
    assert torch.equal(whole[0], in_parts[0])
    assert torch.equal(whole[1], in_parts[1])


def test_blocks_are_bounded_in_bytes_and_reported_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    for shape, rows in (((3, 4, 8), 40), ((3, 8, 16), 10)):
        monkeypatch.setattr(neighbours, "_BLOCK", 40 * 3 * 4 * 8 * 4)  # as float32
        done: list[int] = []
        neighbours.nearest(pictures(3, 5, shape), pictures(95, 6, shape), CPU, done.append)
        assert sum(done) == 95
        assert set(done[:-1]) == {rows}


def test_large_training_data_in_a_file_is_searched_with_little_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pictures(4096, 7, (3, 64, 64))  # 48 MiB
    files.write_tensors(tmp_path / "train.safetensors", {"images": train}, {})
    monkeypatch.setattr(mapped, "LARGE", 2**22)
    monkeypatch.setattr(mapped, "BLOCK", 2**20)
    monkeypatch.setattr(neighbours, "_BLOCK", 2**20)
    samples, most, process = train[[7, 4000]].clone(), 0, psutil.Process()
    neighbours.nearest(samples, samples, CPU)  # load the libraries
    before = process.memory_info().rss

    def watch(_: int) -> None:
        nonlocal most
        most = max(most, process.memory_info().rss - before)

    stored = files.read_tensors(tmp_path / "train.safetensors").tensors["images"]
    indices, distances = neighbours.nearest(samples, stored, CPU, watch)
    assert (indices.tolist(), distances.tolist()) == ([7, 4000], [0, 0])
    assert most < stored.nbytes // 4
