"""The nearest training images."""

import pytest
import torch

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


def test_nearest_does_not_depend_on_the_batch_of_training_images(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, train = pictures(9, 3), pictures(25, 4)
    whole = neighbours.nearest(samples, train, CPU)
    monkeypatch.setattr(neighbours, "_MOST", 4)
    in_parts = neighbours.nearest(samples, train, CPU)
    assert torch.equal(whole[0], in_parts[0])
    assert torch.equal(whole[1], in_parts[1])
