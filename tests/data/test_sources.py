"""Sources give the same images, labels and splits on every load."""

import shutil
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import numpy as np
import pytest
from torchvision.datasets import cifar, mnist

from ddpm.data import folder, shapes, sources
from ddpm.errors import UsageError
from tests.data.conftest import Settings
from tests.data.files import IDX, folder_of, grey, write_cifar, write_idx, zip_of

Named = Literal["mnist", "fashion-mnist", "kmnist", "cifar10"]


def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network in tests")

    monkeypatch.setattr(mnist, "download_and_extract_archive", refuse)
    monkeypatch.setattr(cifar, "download_and_extract_archive", refuse)


def pixels(split: sources.Split) -> np.ndarray:
    return np.stack([np.asarray(split.picture(index)) for index in range(len(split))])


def test_every_digit_is_in_exactly_one_split(settings: Settings, tmp_path: Path) -> None:
    train, test = sources.load(settings(), tmp_path)
    assert (len(train), len(test)) == (1527, 270)  # 15 % of 1797
    assert sorted([*train.indices, *test.indices]) == list(range(1797))
    assert train.classes == test.classes == [str(n) for n in range(10)]
    assert (train.source, test.source) == ({"name": "digits", "split": "train"}, {"name": "digits", "split": "test"})


def test_digits_equal_those_of_scikit_learn(settings: Settings, tmp_path: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for split in sources.load(settings(), tmp_path):
        np.testing.assert_allclose(pixels(split), digits.images[split.indices] / 16 * 255, atol=0.5)
        np.testing.assert_array_equal(split.labels, digits.target[split.indices])


def test_shapes_are_drawn_in_colour_with_their_labels(settings: Settings, tmp_path: Path) -> None:
    train, test = sources.load(settings(source="shapes", image_size=32, channels=3), tmp_path)
    assert (len(train), len(test)) == (3400, 600)
    assert sorted([*train.indices, *test.indices]) == list(range(4000))
    assert train.classes == test.classes == ["circle", "square", "triangle"]
    np.testing.assert_array_equal(test.labels, test.indices % 3)
    np.testing.assert_array_equal(np.asarray(test.picture(1)), shapes.draw(0, int(test.indices[1])))
    assert np.bincount(test.labels).tolist() == [200, 200, 200]
    other, _ = sources.load(settings(source="shapes", seed=1), tmp_path)
    np.testing.assert_array_equal(np.asarray(other.picture(0)), shapes.draw(1, int(other.indices[0])))


def test_every_class_is_split_in_the_same_proportion(settings: Settings, tmp_path: Path) -> None:
    train, test = sources.load(settings(), tmp_path)
    tests, all_of_class = np.bincount(test.labels), np.bincount(test.labels) + np.bincount(train.labels)
    assert (abs(tests - 0.15 * all_of_class) <= 1).all()


def test_the_split_depends_on_the_seed(settings: Settings, tmp_path: Path) -> None:
    (one, _), (again, _), (other, _) = (sources.load(settings(seed=seed), tmp_path) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.indices, again.indices)
    assert not np.array_equal(one.indices, other.indices)


def test_the_split_is_random_within_each_class() -> None:
    labels = np.repeat([0, 1], [20, 20])
    chosen = {tuple(sources.stratified(labels, seed)[1]) for seed in range(20)}
    assert len(chosen) > 15
    assert {(indices < 20).sum() for indices in map(np.array, chosen)} == {3}


@pytest.mark.parametrize(("count", "tests"), [(2, 1), (3, 1), (10, 2), (100, 15)])
def test_the_test_split_has_at_least_one_image(count: int, tests: int) -> None:
    train, test = sources.stratified(np.zeros(count, np.int64), 0)
    assert (len(train), len(test)) == (count - tests, tests)


def test_one_image_cannot_be_split() -> None:
    with pytest.raises(UsageError, match="1 images cannot be split"):
        sources.stratified(np.zeros(1, np.int64), 0)


@pytest.mark.parametrize("name", IDX)
def test_idx_files_are_read_from_the_folder_of_torchvision(
    name: Named, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    images = write_idx(tmp_path, name, {"train": 12, "t10k": 5})
    for split in sources.load(settings(source=name, seed=None), tmp_path):
        np.testing.assert_array_equal(pixels(split), images[split.source["split"]])
        assert split.labels.tolist() == [index % 10 for index in range(len(split))]
        assert split.labels.dtype == np.int64
        assert len(split.classes) == 10
        assert split.source["name"] == name


def test_cifar_batches_are_read_in_colour(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    no_network(monkeypatch)
    images = write_cifar(tmp_path, monkeypatch)
    train, test = sources.load(settings(source="cifar10", seed=None, channels=3), tmp_path)
    np.testing.assert_array_equal(pixels(train), images[:10])
    np.testing.assert_array_equal(pixels(test), images[10:])
    assert train.labels.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5]
    assert test.labels.tolist() == [5, 6]
    assert train.classes[0] == "airplane"


@pytest.mark.parametrize(
    ("name", "expected"),
    [*((name, f"{folder}/raw/") for name, folder in IDX.items()), ("cifar10", "cifar-10-batches-py/")],
)
def test_error_of_a_failed_download_names_the_folder_of_the_data_set(
    name: Named, expected: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    with pytest.raises(UsageError) as caught:
        sources.load(settings(source=name, seed=None), tmp_path / "root")
    assert str(caught.value).startswith(f"data.source = '{name}': ")
    assert f"is not complete under {tmp_path}/root and could not be downloaded" in str(caught.value)
    assert f"Set runtime.data_root to the folder that holds {expected}, " in str(caught.value)


def test_a_data_set_with_missing_files_is_an_error(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    write_idx(tmp_path, "mnist", {"train": 3})
    with pytest.raises(UsageError, match="MNIST is not complete under"):
        sources.load(settings(source="mnist", seed=None), tmp_path)


@pytest.mark.parametrize("kept", [0, 10, 30])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_truncated_files_of_an_interrupted_download_are_an_error(
    kind: str, kept: int, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_network(monkeypatch)
    write_idx(tmp_path, "kmnist", {"train": 40, "t10k": 40})
    path = tmp_path / "KMNIST" / "raw" / f"t10k-{kind}-ubyte"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UsageError, match=rf"KMNIST is not complete under .* remove {tmp_path}/KMNIST/raw and run"):
        sources.load(settings(source="kmnist", seed=None), tmp_path)


FILES = {f"{'abc'[n % 3]}/{n:02}.png": grey(n) for n in range(30)}


def test_a_folder_without_splits_is_split_by_class(settings: Settings, tmp_path: Path) -> None:
    folder_of(tmp_path / "pets", FILES)
    train, test = sources.load(settings(source="folder", path="pets"), tmp_path)
    assert (len(train), len(test)) == (26, 4)
    assert train.classes == ["a", "b", "c"]
    assert np.bincount(test.labels).tolist() in ([1, 1, 2], [1, 2, 1], [2, 1, 1])
    for split in (train, test):
        levels = pixels(split)[:, 0, 0]
        np.testing.assert_array_equal(levels % 3, split.labels)


def test_a_folder_and_its_archive_are_the_same_source(settings: Settings, tmp_path: Path) -> None:
    folder_of(tmp_path / "pets", FILES)
    zip_of(tmp_path / "pets.zip", FILES)
    of_folder = sources.load(settings(source="folder", path="pets"), tmp_path)
    of_archive = sources.load(settings(source="folder", path="pets.zip"), tmp_path)
    for one, other in zip(of_folder, of_archive, strict=True):
        assert one.source == other.source
        np.testing.assert_array_equal(one.indices, other.indices)
        np.testing.assert_array_equal(pixels(one), pixels(other))


def test_another_seed_gives_another_split_of_a_folder(settings: Settings, tmp_path: Path) -> None:
    folder_of(tmp_path / "pets", FILES)
    one, other = (sources.load(settings(source="folder", path="pets", seed=seed), tmp_path)[1] for seed in (0, 1))
    assert not np.array_equal(one.indices, other.indices)


@pytest.mark.parametrize("seed", [0, 1])
def test_train_and_test_folders_are_used_as_the_splits(settings: Settings, tmp_path: Path, seed: int) -> None:
    files = {"train/b/1.png": grey(1), "train/c/2.png": grey(2), "test/a/3.png": grey(3), "test/b/4.png": grey(4)}
    zip_of(tmp_path / "pets.zip", files)
    train, test = sources.load(settings(source="folder", path="pets.zip", seed=seed), tmp_path)
    assert pixels(train)[:, 0, 0].tolist() == [1, 2]
    assert pixels(test)[:, 0, 0].tolist() == [3, 4]
    assert train.classes == test.classes == ["a", "b", "c"]
    assert (train.labels.tolist(), test.labels.tolist()) == ([1, 2], [0, 1])


def test_a_digest_pins_the_images_of_a_folder(settings: Settings, tmp_path: Path) -> None:
    where = folder_of(tmp_path / "pets", FILES)
    free, _ = sources.load(settings(source="folder", path="pets"), tmp_path)
    digest = free.source["files_sha256"]
    pinned, _ = sources.load(settings(source="folder", path="pets", digest=digest), tmp_path)
    assert free.source == pinned.source  # the digest does not change the prepared data
    (where / "a/00.png").write_bytes(grey(200))
    with pytest.raises(UsageError) as caught:
        sources.load(settings(source="folder", path="pets", digest=digest), tmp_path)
    changed = f"the images in {where} have {folder.listing(where).digest()[:8]}…, so they changed"
    remedy = f"run `ddpm data {where}` to use them, or restore the former images"
    assert str(caught.value) == f"data.digest = {digest[:8]}…: {changed}; {remedy}"


def test_error_names_the_place_of_missing_images(settings: Settings, tmp_path: Path) -> None:
    message = rf"^data\.path = 'pets': there is no {tmp_path}/pets; put the images there, or run `ddpm data PATH`"
    with pytest.raises(UsageError, match=message):
        sources.load(settings(source="folder", path="pets"), tmp_path)


def test_the_location_of_a_folder_does_not_matter(settings: Settings, tmp_path: Path) -> None:
    where = folder_of(tmp_path / "pets", FILES)
    shutil.copytree(where, tmp_path / "else" / "other")
    one, _ = sources.load(settings(source="folder", path="pets"), tmp_path)
    other, _ = sources.load(settings(source="folder", path="other"), tmp_path / "else")
    assert one.source == other.source
