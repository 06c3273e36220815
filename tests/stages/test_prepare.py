"""Stage prepare packs raw images into two files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ddpm import params
from ddpm.data import dataset, folder
from ddpm.errors import UsageError
from ddpm.params import Params
from lab.experiment import dvcfile
from stages.prepare import prepare
from tests.data.files import folder_of, grey, zip_of
from tests.imports import ROOT

Chosen = Callable[..., Params]


@pytest.fixture
def chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Chosen:
    """Return a function that makes the committed parameters with changes to section data; the data root is raw/."""
    monkeypatch.setattr(dvcfile, "ROOT", tmp_path)
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    values["runtime"]["data_root"] = "raw"
    shape = {"image_size": 8, "channels": 1}
    return lambda **changes: params.check(values | {"data": values["data"] | shape | changes})


def packed(where: Path) -> tuple[Path, Path]:
    return where / "train.safetensors", where / "test.safetensors"


def test_digits_become_two_files(tmp_path: Path, chosen: Chosen) -> None:
    train, test = packed(tmp_path)
    prepare(chosen(), train, test)
    assert dataset.read(train).images.shape == (1527, 1, 8, 8)
    assert dataset.read(test).images.shape == (270, 1, 8, 8)
    assert dataset.read(test).source == {"name": "digits", "split": "test"}


def test_the_same_parameters_give_the_same_bytes(tmp_path: Path, chosen: Chosen) -> None:
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        prepare(chosen(seed=seed), *packed(tmp_path / name))
    for one, again, other in zip(*(packed(tmp_path / name) for name in ("one", "again", "other")), strict=True):
        assert one.read_bytes() == again.read_bytes()
        assert one.read_bytes() != other.read_bytes()


def test_a_folder_and_its_archive_give_the_same_bytes(tmp_path: Path, chosen: Chosen) -> None:
    files = {"train/a/1.png": grey(1), "train/b/2.png": grey(2), "test/b/3.png": grey(3)}
    folder_of(tmp_path / "raw" / "pets", files)
    zip_of(tmp_path / "raw" / "pets.zip", files)
    for path in ("pets", "pets.zip"):
        prepare(chosen(source="folder", path=path), *packed(tmp_path / f"of {path}"))
    for one, other in zip(packed(tmp_path / "of pets"), packed(tmp_path / "of pets.zip"), strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_packed_files_hold_no_path_of_the_machine(tmp_path: Path, chosen: Chosen) -> None:
    folder_of(tmp_path / "raw" / "pets", {"train/1.png": grey(1), "test/2.png": grey(2)})
    prepare(chosen(source="folder", path="pets"), *packed(tmp_path))
    for path in packed(tmp_path):
        assert str(tmp_path).encode() not in path.read_bytes()


def test_a_bad_image_leaves_no_half_written_file(tmp_path: Path, chosen: Chosen) -> None:
    folder_of(tmp_path / "raw" / "pets", {"train/1.png": grey(1), "train/2.png": b"text", "test/3.png": grey(3)})
    with pytest.raises(UsageError, match=r"1 image cannot be used:\n  .*/raw/pets/train/2\.png: "):
        prepare(chosen(source="folder", path="pets"), *packed(tmp_path / "data"))
    assert list((tmp_path / "data").iterdir()) == []


def test_the_folder_is_searched_below_the_data_root(tmp_path: Path, chosen: Chosen) -> None:
    with pytest.raises(UsageError, match=rf"there is no {tmp_path}/raw/pets; "):
        prepare(chosen(source="folder", path="pets"), *packed(tmp_path))


def test_a_folder_without_a_digest_is_a_warning(
    tmp_path: Path, chosen: Chosen, capsys: pytest.CaptureFixture[str]
) -> None:
    where = folder_of(tmp_path / "raw" / "pets", {"train/1.png": grey(1), "test/2.png": grey(2)})
    warning = "prepare: data.digest is null, so `dvc repro` ignores changed images; `ddpm data` sets it\n"
    for digest, warned in ((None, True), (folder.listing(where).digest(), False)):
        prepare(chosen(source="folder", path="pets", digest=digest), *packed(tmp_path))
        assert (warning in capsys.readouterr().err) == warned
