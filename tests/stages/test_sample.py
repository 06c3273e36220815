"""Stage sample on a tiny conditional model with snapshots."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ddpm import figures
from ddpm.network import modelfile
from ddpm.sampling import blocks
from ddpm.sampling import samples as sample_files
from stages.sample import spread
from tests.stages.conftest import changed, draw


def test_under_guidance_samples_carry_all_classes_in_turn(place: Path) -> None:
    samples, _ = sample_files.read(place / "samples.safetensors")
    assert samples.labels is not None
    assert samples.labels.tolist() == [0, 1] * 12
    model = modelfile.load(place / "model.safetensors")
    assert samples.images.equal(blocks.draw(model, changed().sample, samples.labels))


def test_without_guidance_samples_are_of_no_class(place: Path, tmp_path: Path) -> None:
    settings = changed(sample={"guidance": None, "count": 5})
    draw(place, settings, tmp_path)
    samples, _ = sample_files.read(tmp_path / "samples.safetensors")
    assert samples.labels is None
    assert samples.images.equal(blocks.draw(modelfile.load(place / "model.safetensors"), settings.sample))


def test_every_snapshot_has_the_samples_that_it_draws_itself(place: Path) -> None:
    drawn = sample_files.read_snapshots(place / "snapshot-samples.safetensors")
    assert list(drawn) == [5, 30, 200]
    labels = torch.arange(24) % 2
    for step, images in drawn.items():
        snapshot = modelfile.load(place / f"snapshots/{step:08d}.safetensors")
        assert images.equal(blocks.draw(snapshot, changed().sample, labels))


def test_real_images_are_spread_over_their_order() -> None:
    images = torch.arange(1000).view(1000, 1, 1, 1)
    assert spread(images, 4).flatten().tolist() == [0, 333, 666, 999]
    assert spread(images[:3], 4).flatten().tolist() == [0, 1, 2]


def test_as_many_real_images_as_samples_are_shown_in_pictures_of_the_same_form(place: Path) -> None:
    with Image.open(place / "samples.png") as drawn, Image.open(place / "real.png") as real:
        assert drawn.width == real.width
        rows = [(picture.height - 2) // 50 for picture in (drawn, real)]
    assert rows == [3, 2]  # 24 samples, and all 20 test images


def test_the_animation_ends_with_the_first_samples(place: Path) -> None:
    samples = sample_files.read(place / "samples.safetensors")[0].images
    with Image.open(place / "trajectory.gif") as animation:
        assert animation.n_frames == 4  # three steps
        animation.seek(3)
        shown = np.asarray(animation.convert("L"))
    expected = np.asarray(figures.grid(samples[:9], 3))
    assert np.abs(shown.astype(int) - expected).max() <= 1  # rounding of the network in batches of another size
