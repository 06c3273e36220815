"""Tiny labelled images, a classifier trained on them, and Inception with random weights."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ddpm.data.dataset import Dataset
from ddpm.evaluation import extractor
from ddpm.params import Classifier
from tests.evaluation.inception import write_random_weights

CPU = torch.device("cpu")
SETTINGS = Classifier(channels=4, steps=60, batch_size=32, learning_rate=0.02)


def stripes(count: int, channels: int, seed: int, classes: int = 2) -> Dataset:
    """Noisy images (count, channels, 8, 8): class 0 has bright rows, class 1 bright columns."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    bright = torch.zeros(2, 8, 8)
    bright[0, ::2], bright[1, :, ::2] = 150, 150
    noise = torch.randint(0, 100, (count, channels, 8, 8), generator=generator)
    images = (bright[labels][:, None] + noise).to(torch.uint8)
    return Dataset(images, labels, [str(name) for name in range(classes)], f"digest{seed}", {"name": "stripes"})


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Use one thread: a second thread slows down work this small, above all on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", params=[1, 3], ids=["grey", "rgb"])
def classifier_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a classifier trained on grey images, then on RGB images."""
    path = tmp_path_factory.mktemp("classifier") / "extractor.safetensors"
    train, test = (stripes(count, request.param, seed) for count, seed in ((128, 1), (50, 2)))
    extractor.train_classifier(train, test, SETTINGS, 0, path, CPU)
    return path


@pytest.fixture(scope="session")
def inception_pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of InceptionV3 in torch-fidelity's format, with random weights."""
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    write_random_weights(path)
    return path
