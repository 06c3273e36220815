"""A split is packed completely or not at all."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ddpm.data import dataset, sources
from ddpm.data.pack import pack
from ddpm.data.sources import Split
from ddpm.errors import UsageError
from ddpm.params import Data
from tests.data.conftest import Settings
from tests.data.files import encoded, folder_of, grey

SHORT = encoded(Image.effect_noise((64, 48), 90), "JPEG")[:-700]


def of_folder(where: Path, files: dict[str, bytes], settings: Settings) -> tuple[Split, Data]:
    """The train split of a folder with train/ and test/, and its settings."""
    folder_of(where / "images", files | {"test/a/t.png": grey(5)})
    chosen = settings(source="folder", path="images")
    return sources.load(chosen, where)[0], chosen


def test_images_are_packed_in_order_with_their_labels(tmp_path: Path, settings: Settings) -> None:
    files = {"train/b/2.png": grey(20), "train/a/1.png": grey(10), "train/b/3.png": grey(30, (8, 8))}
    split, chosen = of_folder(tmp_path, files, settings)
    pack(split, chosen, tmp_path / "train.safetensors")
    packed = dataset.read(tmp_path / "train.safetensors")
    assert packed.images.amax((1, 2, 3)).tolist() == [10, 20, 30]
    assert packed.labels.tolist() == [0, 1, 1]
    assert (packed.classes, packed.image_shape) == (["a", "b"], (1, 8, 8))
    assert packed.source == split.source


def test_images_are_fitted_according_to_the_settings(tmp_path: Path, settings: Settings) -> None:
    split, _ = of_folder(tmp_path, {"train/a/1.png": grey(10)}, settings)
    pack(split, settings(image_size=6, channels=3, fit="resize"), tmp_path / "train.safetensors")
    images = dataset.read(tmp_path / "train.safetensors").images
    assert images.shape == (1, 3, 6, 6)
    assert (images == 10).all()


def test_error_names_all_bad_images_and_their_reasons(tmp_path: Path, settings: Settings) -> None:
    files = {"train/a/short.jpg": SHORT, "train/b/good.png": grey(1), "train/c/text.png": b"text"}
    split, chosen = of_folder(tmp_path, files, settings)
    with pytest.raises(UsageError) as caught:
        pack(split, chosen, tmp_path / "train.safetensors")
    first, second, third = str(caught.value).splitlines()
    assert first == "2 images cannot be used:"
    assert second.startswith(f"  {tmp_path}/images/train/a/short.jpg: image file is truncated")
    assert third.startswith(f"  {tmp_path}/images/train/c/text.png: ")


@pytest.mark.parametrize("bad", [20, 23])
def test_error_names_at_most_twenty_bad_images(tmp_path: Path, settings: Settings, bad: int) -> None:
    split, chosen = of_folder(tmp_path, {f"train/{index:02}.png": b"text" for index in range(bad)}, settings)
    with pytest.raises(UsageError) as caught:
        pack(split, chosen, tmp_path / "train.safetensors")
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{bad} images cannot be used:"
    assert lines[20].startswith(f"  {tmp_path}/images/train/19.png: ")
    assert lines[21:] == ([f"  and {bad - 20} more"] if bad > 20 else [])


def test_a_failed_pack_leaves_no_file(tmp_path: Path, settings: Settings) -> None:
    split, chosen = of_folder(tmp_path, {"train/1.png": grey(1), "train/2.png": b"text"}, settings)
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError):
        pack(split, chosen, tmp_path / "data" / "train.safetensors")
    assert list((tmp_path / "data").iterdir()) == []


def test_progress_is_called_for_every_image(tmp_path: Path, settings: Settings) -> None:
    split, chosen = of_folder(tmp_path, {"train/1.png": grey(1), "train/2.png": grey(2)}, settings)
    calls: list[int] = []
    pack(split, chosen, tmp_path / "train.safetensors", calls.append)
    assert calls == [1, 1]


def test_only_the_images_of_the_split_are_packed(tmp_path: Path, settings: Settings) -> None:
    split = Split(
        lambda index: Image.new("L", (8, 8), index), np.array([4, 2]), np.array([1, 0]), ["x", "y"], {"name": "test"}
    )
    pack(split, settings(), tmp_path / "test.safetensors")
    packed = dataset.read(tmp_path / "test.safetensors")
    assert packed.images[:, 0, 0, 0].tolist() == [4, 2]
    assert packed.labels.tolist() == [1, 0]
