"""Batches: every epoch visits each image once, and a batch depends only on its step."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ddpm import mapped
from ddpm.data import dataset
from ddpm.data.batches import Batches
from ddpm.data.dataset import Dataset
from ddpm.params import Train

CPU = torch.device("cpu")
COUNT = 10


def batches(settings: Train, images: Tensor | None = None, value_range: tuple[float, float] = (0.0, 255.0)) -> Batches:
    """Batches of the images, by default ten (2, 3, 4), where every pixel of image i has the grey level i."""
    if images is None:
        images = torch.arange(COUNT, dtype=torch.uint8).view(-1, 1, 1, 1).expand(COUNT, 2, 3, 4).contiguous()
    return Batches(
        Dataset(images, torch.arange(len(images)) % 3, ["one", "two", "three"], "", {}), settings, value_range, CPU
    )


def stream(settings: Train, steps: int) -> list[int]:
    """The image indices of steps 1..steps, concatenated."""
    source = batches(settings)
    return [
        int(index)
        for step in range(1, steps + 1)
        for micro in range(settings.accumulate)
        for index in source.indices(step, micro)
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


def test_batch_does_not_depend_on_earlier_requests(train_settings: Train) -> None:
    source = batches(train_settings)
    forward = [source.indices(step, 0) for step in range(1, 12)]
    backward = [source.indices(step, 0) for step in range(11, 0, -1)]
    np.testing.assert_array_equal(forward, backward[::-1])
    np.testing.assert_array_equal(batches(train_settings).indices(9, 0), forward[8])


def test_order_depends_on_the_seed(train_settings: Train) -> None:
    other = train_settings.model_copy(update={"seed": 1})
    assert stream(train_settings, 5) == stream(train_settings, 5)
    assert stream(train_settings, 5) != stream(other, 5)


def test_images_are_selected_by_index_and_scaled_to_the_value_range(train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"accumulate": 2})
    source = batches(settings, value_range=(-1.0, 1.0))
    for micro in range(2):
        x_0, _ = source.get(3, micro, torch.Generator())
        assert x_0.shape == (2, 2, 3, 4)
        assert x_0.dtype == torch.float32
        expected = torch.from_numpy(source.indices(3, micro)).float() / 127.5 - 1
        torch.testing.assert_close(x_0, expected.view(2, 1, 1, 1).expand_as(x_0))


def ramps() -> Tensor:
    """A hundred copies of one image (2, 3, 4) whose pixels all differ."""
    return torch.arange(24, dtype=torch.uint8).view(1, 2, 3, 4).repeat(100, 1, 1, 1)


def test_flips_mirror_about_half_of_the_images_horizontally(train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"batch_size": 400, "horizontal_flip": True})
    x_0, _ = batches(settings, ramps()).get(1, 0, torch.Generator().manual_seed(0))
    image = ramps()[0].float()
    unchanged = (x_0 == image).flatten(1).all(1)
    mirrored = (x_0 == image[:, :, [3, 2, 1, 0]]).flatten(1).all(1)
    assert (unchanged ^ mirrored).all()
    assert 150 < mirrored.sum().item() < 250


def test_flips_come_from_the_generator_alone(train_settings: Train) -> None:
    settings = train_settings.model_copy(update={"batch_size": 50, "horizontal_flip": True})
    source = batches(settings, ramps())
    first, same, other = (source.get(1, 0, torch.Generator().manual_seed(seed))[0] for seed in (0, 0, 1))
    assert first.equal(same)
    assert not first.equal(other)


def test_without_flips_images_are_unchanged_and_the_generator_is_unused(train_settings: Train) -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    x_0, _ = batches(train_settings, ramps()).get(1, 0, generator)
    assert x_0.equal(ramps()[:4].float())
    assert generator.get_state().equal(before)


def labelled(settings: Train, dropout: float, count: int = 4, seed: int = 0) -> tuple[Tensor, Tensor, Batches]:
    changes = {"label_dropout": dropout, "batch_size": count}
    source = batches(settings.model_copy(update=changes), None if count == 4 else ramps())
    x_0, labels = source.get(3, 0, torch.Generator().manual_seed(seed))
    assert labels is not None
    return x_0, labels, source


def test_labels_belong_to_the_images(train_settings: Train) -> None:
    x_0, labels, source = labelled(train_settings, 0.0)
    assert labels.dtype == torch.int64
    assert labels.tolist() == (source.indices(3, 0) % 3).tolist() == (x_0[:, 0, 0, 0] % 3).tolist()


def test_label_dropout_drops_the_given_share_of_labels(train_settings: Train) -> None:
    _, labels, source = labelled(train_settings, 0.25, count=2000)
    dropped = labels == 3  # with three classes, 3 is the null label
    assert 400 < dropped.sum().item() < 600
    true = torch.from_numpy(source.indices(3, 0)) % 3
    assert labels[~dropped].equal(true[~dropped])
    assert len(true[dropped].unique()) == 3


def test_dropped_labels_come_from_the_generator_alone(train_settings: Train) -> None:
    first, same, other = (labelled(train_settings, 0.5, 50, seed)[1] for seed in (0, 0, 1))
    assert first.equal(same)
    assert not first.equal(other)


def test_without_label_dropout_there_are_no_labels(train_settings: Train) -> None:
    _, labels = batches(train_settings).get(1, 0, torch.Generator())
    assert labels is None


def in_file(folder: Path) -> Dataset:
    """Fifty random images (2, 3, 40) in a memory-mapped file."""
    images = np.random.default_rng(0).integers(0, 256, (50, 2, 3, 40), np.uint8)
    dataset.write(folder / "train.safetensors", images, np.arange(50) % 3, ["a", "b", "c"], (2, 3, 40), {})
    return dataset.read(folder / "train.safetensors")


def shared(settings: Train) -> Train:
    """Seven steps of four micro-batches of two images."""
    return settings.model_copy(update={"batch_size": 8, "accumulate": 4, "label_dropout": 0.5, "horizontal_flip": True})


def requests(settings: Train, micros: list[int]) -> list[tuple[int, int]]:
    return [(step, micro) for step in range(1, settings.steps + 1) for micro in micros]


@pytest.mark.parametrize("micros", [None, [0, 1], [2, 3]])
def test_data_that_is_read_ahead_gives_the_same_batches(
    train_settings: Train, micros: list[int] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = in_file(tmp_path), shared(train_settings)
    direct = Batches(data, settings, (-1.0, 1.0), CPU)
    monkeypatch.setattr(mapped, "LARGE", 0)
    ahead = Batches(data, settings, (-1.0, 1.0), CPU, micros)
    for step, micro in requests(settings, micros or [0, 1, 2, 3]):
        (x_0, labels), (same, same_labels) = (
            source.get(step, micro, torch.Generator().manual_seed(step)) for source in (direct, ahead)
        )
        assert x_0.equal(same)
        assert labels is not None
        assert same_labels is not None
        assert labels.equal(same_labels)


def test_an_unexpected_request_gives_the_batch_of_its_step(
    train_settings: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = in_file(tmp_path), shared(train_settings)
    direct = Batches(data, settings, (-1.0, 1.0), CPU)
    monkeypatch.setattr(mapped, "LARGE", 0)
    ahead = Batches(data, settings, (-1.0, 1.0), CPU, [0, 2])
    for step, micro in [(5, 0), (2, 2), (2, 1), (2, 0), (7, 2), (1, 0), (1, 0)]:
        assert ahead.get(step, micro, torch.Generator())[0].equal(direct.get(step, micro, torch.Generator())[0])


class Gatherer:
    """Stands in for `mapped.gather` and counts its calls by thread; raises the error given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.threads: list[int] = []
        self.error: Exception | None = None
        self._usual: Callable[[Tensor, np.ndarray], Tensor] = mapped.gather
        self.done = threading.Semaphore(0)
        monkeypatch.setattr(mapped, "LARGE", 0)
        monkeypatch.setattr(mapped, "gather", self)

    def __call__(self, tensor: Tensor, chosen: np.ndarray) -> Tensor:
        self.threads.append(threading.get_ident())
        self.done.release()
        if self.error:
            raise self.error
        return self._usual(tensor, chosen)

    def wait(self, calls: int) -> None:
        for _ in range(calls):
            assert self.done.acquire(timeout=20)


def test_the_next_micro_batch_is_read_by_another_thread_before_it_is_requested(
    train_settings: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = in_file(tmp_path), shared(train_settings)
    gatherer = Gatherer(monkeypatch)
    ahead = Batches(data, settings, (-1.0, 1.0), CPU, [2, 3])
    for number, (step, micro) in enumerate(requests(settings, [2, 3])):
        ahead.get(step, micro, torch.Generator())
        gatherer.wait(2 if number == 0 else number < 13)
    assert not gatherer.done.acquire(timeout=0.3)  # nothing is read beyond the last step
    first, *others = gatherer.threads
    assert first == threading.get_ident()
    assert len(others) == 13
    assert set(others) == {others[0]} != {first}


def test_an_error_of_the_thread_is_raised_by_the_request_it_belongs_to(
    train_settings: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = in_file(tmp_path)
    gatherer = Gatherer(monkeypatch)
    ahead = Batches(data, shared(train_settings), (-1.0, 1.0), CPU)
    expected = ahead.get(1, 1, torch.Generator())[0]
    gatherer.wait(2)
    ahead.get(1, 0, torch.Generator())
    gatherer.wait(2)
    gatherer.error = OSError("the disk is gone")
    ahead.get(1, 1, torch.Generator())
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.get(1, 2, torch.Generator())
    gatherer.error = None
    assert ahead.get(1, 1, torch.Generator())[0].equal(expected)


def test_small_data_starts_no_thread(train_settings: Train, tmp_path: Path) -> None:
    before = threading.active_count()
    Batches(in_file(tmp_path), train_settings, (-1.0, 1.0), CPU).get(1, 0, torch.Generator())
    assert threading.active_count() == before


ENDING = """
import torch
from pathlib import Path
from ddpm import mapped
from ddpm.data import dataset
from ddpm.data.batches import Batches
from ddpm.params import Train

mapped.LARGE = 0
data = dataset.read(Path({path!r}))
Batches(data, Train.model_construct(**{settings!r}), (-1.0, 1.0), torch.device("cpu")).get(1, 0, torch.Generator())
raise SystemExit(3)
"""


def test_the_thread_ends_with_the_process(train_settings: Train, tmp_path: Path) -> None:
    in_file(tmp_path)
    script = ENDING.format(path=str(tmp_path / "train.safetensors"), settings=train_settings.model_dump())
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (3, "")


@pytest.mark.gpu
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("held", [False, True])
def test_batches_on_a_gpu_are_those_of_the_cpu(
    train_settings: Train, large: bool, held: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, settings = in_file(tmp_path), train_settings.model_copy(update={"batch_size": 6})
    direct = Batches(data, settings, (-1.0, 1.0), CPU)
    monkeypatch.setattr(mapped, "LARGE", 0 if large else 2**28)
    monkeypatch.setattr("ddpm.device._SHARE", 0.5 if held else 0.0)
    monkeypatch.setattr("ddpm.device._COPIED", 1000)
    gpu = Batches(data, settings, (-1.0, 1.0), torch.device("cuda"))
    for step in range(1, 8):
        x_0, _ = gpu.get(step, 0, torch.Generator("cuda"))
        assert x_0.cpu().equal(direct.get(step, 0, torch.Generator())[0])
