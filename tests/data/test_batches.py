"""Which images a step sees: every image once an epoch, the same whatever came before."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm.data.batches import Batches
from ddpm.data.dataset import Dataset
from ddpm.params import Train

CPU = torch.device("cpu")
COUNT = 10


def batches(settings: Train, images: Tensor | None = None, value_range: tuple[float, float] = (0.0, 255.0)) -> Batches:
    """By default ten images (2, 3, 4), where image i has the grey level i everywhere."""
    if images is None:
        images = torch.arange(COUNT, dtype=torch.uint8).view(-1, 1, 1, 1).expand(COUNT, 2, 3, 4).contiguous()
    return Batches(Dataset(images, torch.zeros(len(images)), ["one"], "", {}), settings, value_range, CPU)


def stream(settings: Train, steps: int) -> list[int]:
    """The positions of steps 1..steps one after the other."""
    source = batches(settings)
    return [
        int(place)
        for step in range(1, steps + 1)
        for micro in range(settings.accumulate)
        for place in source.indices(step, micro)
    ]


def test_every_epoch_visits_each_image_once(train_settings: Train) -> None:
    seen = stream(train_settings, 10)  # ten steps of four make four epochs
    epochs = [seen[first : first + COUNT] for first in range(0, 40, COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_batch_larger_than_the_data_spans_epochs(train_settings: Train) -> None:
    seen = stream(train_settings.model_copy(update={"batch_size": 25}), 2)
    assert len(seen) == 50
    for first in range(0, 50, COUNT):
        assert sorted(seen[first : first + COUNT]) == list(range(COUNT))


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_micro_batches_partition_the_batch_of_their_step(train_settings: Train, accumulate: int) -> None:
    whole = train_settings.model_copy(update={"batch_size": 6})
    parts = whole.model_copy(update={"accumulate": accumulate})
    assert stream(parts, 9) == stream(whole, 9)
    assert batches(parts).indices(2, 0).shape == (6 // accumulate,)


def test_batch_does_not_depend_on_those_asked_for_before(train_settings: Train) -> None:
    source = batches(train_settings)
    forth = [source.indices(step, 0) for step in range(1, 12)]
    back = [source.indices(step, 0) for step in range(11, 0, -1)]
    np.testing.assert_array_equal(forth, back[::-1])
    np.testing.assert_array_equal(batches(train_settings).indices(9, 0), forth[8])


def test_order_depends_on_the_seed(train_settings: Train) -> None:
    other = train_settings.model_copy(update={"seed": 1})
    assert stream(train_settings, 5) == stream(train_settings, 5)
    assert stream(train_settings, 5) != stream(other, 5)


def test_images_are_those_at_the_indices_in_the_value_range(train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"accumulate": 2})
    source = batches(settings, value_range=(-1.0, 1.0))
    for micro in range(2):
        x_0, _ = source.get(3, micro, torch.Generator())
        assert x_0.shape == (2, 2, 3, 4)
        assert x_0.dtype == torch.float32
        expected = torch.from_numpy(source.indices(3, micro)).float() / 127.5 - 1
        torch.testing.assert_close(x_0, expected.view(2, 1, 1, 1).expand_as(x_0))


def ramps() -> Tensor:
    """A hundred images (2, 3, 4), no two pixels of one image alike."""
    return torch.arange(24, dtype=torch.uint8).view(1, 2, 3, 4).repeat(100, 1, 1, 1)


def test_flips_mirror_left_and_right_of_about_half_the_images(train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"batch_size": 400, "horizontal_flip": True})
    x_0, _ = batches(settings, ramps()).get(1, 0, torch.Generator().manual_seed(0))
    image = ramps()[0].float()
    plain = (x_0 == image).flatten(1).all(1)
    mirrored = (x_0 == image[:, :, [3, 2, 1, 0]]).flatten(1).all(1)
    assert (plain ^ mirrored).all()
    assert 150 < mirrored.sum().item() < 250


def test_flips_come_from_the_generator_alone(train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"batch_size": 50, "horizontal_flip": True})
    source = batches(settings, ramps())
    first, same, other = (source.get(1, 0, torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1))
    assert first.equal(same)
    assert not first.equal(other)


def test_without_flips_images_stay_and_no_number_is_drawn(train_settings: Train) -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    x_0, _ = batches(train_settings, ramps()).get(1, 0, generator)
    assert x_0.equal(ramps()[:4].float())
    assert generator.get_state().equal(before)
