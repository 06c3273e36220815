"""`ddpm data`: what it reports on images, the settings that it writes to params.yaml, and its errors."""

import difflib
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from ddpm.data import folder
from tests.commands import fails, run
from tests.data.files import encoded, folder_of, grey, zip_of

RED = (200, 30, 30)


def photo(size: tuple[int, int] = (40, 30), form: str = "PNG", colour: tuple[int, int, int] = RED) -> bytes:
    return encoded(Image.new("RGB", size, colour), form)


PETS = {"cat/1.png": photo(), "cat/2.jpg": photo((60, 30), "JPEG"), "dog/3.png": photo((50, 50))}


@pytest.fixture
def pets(repository: Path) -> Path:
    """Three images in two classes, in the folder of datasets."""
    return folder_of(repository / "data/raw/pets", PETS)


def data(repository: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))["data"]
    return values


def printed(*arguments: object) -> list[str]:
    result = run("data", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


def set_data(repository: Path, **changes: object) -> None:
    path = repository / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(values | {"data": values["data"] | changes}), encoding="utf-8")


def test_images_are_described(pets: Path) -> None:
    folder_of(pets, {"notes.txt": b"x", "cat/4.HEIC": b"x", "cat/5.heic": b"x", ".hidden": b"x"})
    assert printed(pets)[:7] == [
        "data/raw/pets: 3 images",
        "  sizes    40x30 (1), 60x30 (1), 50x50 (1)",
        "           widths 40 to 60, heights 30 to 50",
        "  colours  3 in colour, 0 grey; modes: RGB (3)",
        "  classes  cat (2), dog (1)",
        "  splits   none: 15% of each class become test images",
        "  ignored  .heic (2), .txt (1); images are .png, .jpg, .jpeg, .webp, .bmp",
    ]


def test_images_without_a_folder_have_no_class(repository: Path) -> None:
    assert "  classes  none" in printed(folder_of(repository / "x", {"1.png": grey(1), "2.png": grey(2)}))


def test_splits_of_a_folder_are_counted(repository: Path) -> None:
    where = folder_of(repository / "x", {"train/a/1.png": grey(1), "train/a/2.png": grey(2), "test/a/3.png": grey(3)})
    assert "  splits   train (2), test (1)" in printed(where)


def test_many_classes_are_shortened(repository: Path) -> None:
    where = folder_of(repository / "x", {f"{index:02}/1.png": grey(1) for index in range(15)})
    (line,) = (line for line in printed(where) if line.startswith("  classes"))
    assert line.endswith("11 (1) and 3 more")


def test_the_settings_change_one_line_each_and_keep_the_comments(repository: Path, pets: Path) -> None:
    before = (repository / "params.yaml").read_text(encoding="utf-8").splitlines()
    printed(pets)
    after = (repository / "params.yaml").read_text(encoding="utf-8").splitlines()
    changes = [line for line in difflib.ndiff(before, after) if line.startswith(("- ", "+ "))]
    assert len(changes) == 2 * 5
    for old, new in zip(before, after, strict=True):
        assert old.partition("#")[2] == new.partition("#")[2]
    assert data(repository) == {
        "source": "folder",
        "path": "pets",
        "digest": folder.listing(pets).digest(),
        "image_size": 30,
        "channels": 3,
        "fit": "pad",
        "seed": 0,
    }


def test_a_new_image_changes_the_digest_alone(repository: Path, pets: Path) -> None:
    printed(pets)
    before = data(repository)
    folder_of(pets, {"dog/4.png": photo((90, 90))})
    printed(pets)
    after = data(repository)
    assert {key for key in before if before[key] != after[key]} == {"digest"}


def test_the_same_images_write_nothing(repository: Path, pets: Path) -> None:
    assert printed(pets, "--fit", "crop")[-1] == "params.yaml is written; run `dvc repro`"
    before = (repository / "params.yaml").stat()
    assert printed(pets)[-1] == "params.yaml has these settings already"
    assert (repository / "params.yaml").stat().st_ino == before.st_ino


def test_without_a_path_the_folder_of_params_yaml_is_examined(repository: Path, pets: Path) -> None:
    printed(pets)
    folder_of(pets, {"dog/4.png": photo()})
    assert printed()[0] == "data/raw/pets: 4 images"
    assert data(repository)["digest"] == folder.listing(pets).digest()


@pytest.mark.usefixtures("repository")
def test_error_says_that_params_yaml_names_no_folder() -> None:
    assert fails("data") == "ddpm: params.yaml: data.source = 'digits' is no folder; name yours: `ddpm data PATH`"


def test_a_dry_run_writes_nothing(repository: Path, pets: Path) -> None:
    before = (repository / "params.yaml").read_bytes()
    assert printed(pets, "--dry-run")[-1] == "params.yaml is not written, because of --dry-run"
    assert (repository / "params.yaml").read_bytes() == before


def test_a_path_is_relative_to_the_current_folder(
    repository: Path, pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pets.parent)
    printed("pets")
    assert data(repository)["path"] == "pets"


def test_a_path_outside_the_folder_of_datasets_is_absolute(repository: Path, tmp_path: Path) -> None:
    where = zip_of(tmp_path / "pets.zip", PETS)
    assert printed(where)[0] == f"{where}: 3 images"
    assert data(repository)["path"] == str(where)


@pytest.mark.usefixtures("pets")
def test_a_path_with_dots_is_stored_without_them(repository: Path) -> None:
    printed("data/../data/raw/pets")
    assert data(repository)["path"] == "pets"


@pytest.mark.parametrize(
    ("side", "multipliers", "size"),
    [(8, [1, 2], 8), (30, [1, 2, 4], 28), (31, [1, 2], 30), (32, [1, 2, 4, 8], 32), (500, [1, 2], 32), (3, [1] * 4, 8)],
)
def test_the_suggested_size_suits_the_images_and_the_network(
    repository: Path, side: int, multipliers: list[int], size: int
) -> None:
    path = repository / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump(values | {"network": values["network"] | {"multipliers": multipliers}}))
    where = folder_of(repository / "x", {f"{index}.png": grey(index, (side + 9, side)) for index in range(3)})
    assert f"  data.image_size  {size} (suggested)" in printed(where)
    assert data(repository)["image_size"] == size


@pytest.mark.parametrize(
    ("content", "channels"),
    [
        (grey(5), 1),
        (photo(colour=(90, 90, 90)), 1),  # grey, in the mode RGB
        (photo((16, 16), "JPEG", (91, 90, 92)), 1),
        (encoded(Image.new("I;16", (3, 3))), 1),
        (encoded(Image.new("LA", (3, 3))), 1),
        (photo(), 3),
        (encoded(Image.new("RGBA", (3, 3), (9, 200, 9, 255))), 3),
        (encoded(Image.new("RGB", (3, 3), RED).convert("P")), 3),
    ],
    ids=["L", "grey RGB", "grey JPEG", "I;16", "LA", "RGB", "RGBA", "P"],
)
def test_channels_follow_from_the_colours_of_the_pixels(repository: Path, content: bytes, channels: int) -> None:
    printed(folder_of(repository / "x", {"a.png": grey(1), "b.png": content}))
    assert data(repository)["channels"] == channels


def test_size_and_channels_of_params_yaml_are_kept(repository: Path, pets: Path) -> None:
    """A recipe sets the size for which its network is made."""
    set_data(repository, image_size=64, channels=1)
    lines = printed(pets)
    assert "  data.image_size  64 (as before; the images suggest 30)" in lines
    assert "  data.channels    1 (as before; the images suggest 3)" in lines
    assert (data(repository)["image_size"], data(repository)["channels"]) == (64, 1)


def settings(*arguments: object) -> list[str]:
    return [line for line in printed(*arguments) if line.startswith("  data.")]


def test_origins_of_the_settings_are_named(pets: Path) -> None:
    """The first run suggests values; the second finds them in params.yaml."""
    assert settings(pets, "--channels", 1)[-3:] == [
        "  data.image_size  30 (suggested)",
        "  data.channels    1",
        "  data.fit         pad (as before)",
    ]
    assert settings(pets, "--fit", "crop")[-3:] == [
        "  data.image_size  30 (as before)",
        "  data.channels    1 (as before; the images suggest 3)",
        "  data.fit         crop",
    ]


def test_options_choose_size_channels_and_fit(repository: Path, pets: Path) -> None:
    set_data(repository, image_size=64)
    printed(pets, "--image-size", 16, "--channels", 1, "--fit", "crop")
    assert {key: data(repository)[key] for key in ("image_size", "channels", "fit")} == {
        "image_size": 16,
        "channels": 1,
        "fit": "crop",
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--image-size", 31), "data.image_size = 31: must be a multiple of 2, because the levels of"),
        (("--channels", 2), "data.channels = 2: must be 1 or 3"),
        (("--fit", "squeeze"), "data.fit = 'squeeze': must be 'pad', 'resize' or 'crop'"),
    ],
)
def test_a_choice_that_is_refused_changes_nothing(
    repository: Path, pets: Path, arguments: tuple[object, ...], message: str
) -> None:
    before = (repository / "params.yaml").read_bytes()
    result = run("data", pets, *arguments)
    assert result.exit_code == 1
    assert f"params.yaml is not usable:\n  {message}" in result.stderr
    assert (repository / "params.yaml").read_bytes() == before


def test_a_source_without_size_and_channels_is_completed(repository: Path, pets: Path) -> None:
    set_data(repository, source="folder", path="pets")
    printed(pets)
    assert (data(repository)["image_size"], data(repository)["channels"]) == (30, 3)


def test_errors_of_params_yaml_come_before_the_images_are_read(repository: Path, tmp_path: Path) -> None:
    path = repository / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("  steps: 2500", "  steps: -1"), encoding="utf-8")
    assert "train.steps = -1" in fails("data", tmp_path / "absent")
    path.write_text("train: [", encoding="utf-8")
    assert "is not valid YAML" in fails("data", tmp_path / "absent")
    path.write_text("- train", encoding="utf-8")
    assert "params.yaml must be a mapping" in fails("data", tmp_path / "absent")


def test_all_unreadable_images_are_named(repository: Path, pets: Path) -> None:
    before = (repository / "params.yaml").read_bytes()
    folder_of(pets, {"cat/bad.png": b"text", "dog/short.jpg": photo((64, 48), "JPEG")[:-300]})
    result = run("data", pets)
    assert result.exit_code == 1
    assert f"ddpm: 2 images cannot be used:\n  {pets}/cat/bad.png: its contents are not an image\n" in result.stderr
    assert f"  {pets}/dog/short.jpg: " in result.stderr
    assert (repository / "params.yaml").read_bytes() == before


@pytest.mark.usefixtures("repository")
def test_error_names_a_path_without_images(tmp_path: Path) -> None:
    assert fails("data", tmp_path / "absent") == f"ddpm: {tmp_path}/absent is neither a folder nor a .zip"


def notes(*arguments: object) -> list[str]:
    return [line.removeprefix("  note: ") for line in printed(*arguments) if line.startswith("  note: ")]


@pytest.mark.parametrize(
    ("fit", "size", "expected"),
    [
        ("pad", 20, ["fit pad adds black borders to 2 images that are not square; --fit crop cuts them instead"]),
        ("resize", 64, ["fit resize distorts 2 images that are not square; --fit crop cuts them instead"]),
        ("crop", 64, []),
    ],
)
def test_notes_tell_how_the_fit_changes_the_images(pets: Path, fit: str, size: int, expected: list[str]) -> None:
    assert notes(pets, "--fit", fit, "--image-size", size) == expected


def test_a_note_counts_the_small_images_that_get_borders(repository: Path) -> None:
    where = folder_of(repository / "x", {"a/1.png": grey(1, (8, 8)), "b/2.png": grey(2, (16, 16))})
    (note,) = notes(where, "--image-size", 16)
    assert note == "fit pad adds black borders to 1 image below 16 pixels; --fit crop enlarges them instead"


@pytest.mark.parametrize(("name", "number"), [("", "are none"), ("cat/", "is only one")])
def test_a_note_says_that_the_classifier_needs_two_classes(repository: Path, name: str, number: str) -> None:
    where = folder_of(repository / "x", {f"{name}{index}.png": grey(index, (8, 8)) for index in (1, 2)})
    (note,) = notes(where)
    assert note == (
        f"evaluate.extractor: classifier needs at least two classes, and there {number}: put each class into its own "
        "folder, or set evaluate.extractor: inception (downloads 91 MB)"
    )
    path = repository / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("extractor: classifier", "extractor: inception"))
    assert notes(where) == []


def test_a_note_says_that_a_conditional_network_needs_two_classes(repository: Path) -> None:
    path = repository / "params.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("conditional: false", "conditional: true"))
    where = folder_of(repository / "x", {"1.png": grey(1, (8, 8)), "2.png": grey(2, (8, 8))})
    assert notes(where)[1:] == [
        "network.conditional: a class adds no information below two classes: set network.conditional: false"
    ]


def test_the_last_line_refers_to_the_notes(pets: Path) -> None:
    assert printed(pets, "--fit", "resize")[-1] == "params.yaml is written; read the notes before `dvc repro`"
