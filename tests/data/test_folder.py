"""Folders and archives of image files: listing, labels, splits, decoding and errors."""

import os
import struct
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from ddpm.data import folder
from ddpm.errors import UsageError
from tests.data.files import encoded, folder_of, grey, zip_of

IMAGE = grey(9)


def found(where: Path) -> list[tuple[str, str | None, str]]:
    return [(str(image.path), image.split, image.label) for image in folder.listing(where).images]


def both(tmp_path: Path, files: dict[str, bytes]) -> list[Path]:
    """The same files in a folder and in an archive; the archive has the reverse order."""
    return [folder_of(tmp_path / "f", files), zip_of(tmp_path / "f.zip", dict(reversed(files.items())))]


def test_images_are_listed_by_path_with_their_first_folder_as_label(tmp_path: Path) -> None:
    for where in both(tmp_path, {"b/2.png": IMAGE, "b/10.png": IMAGE, "a/deep/er/x.png": IMAGE, "read.txt": b"x"}):
        assert found(where) == [("a/deep/er/x.png", None, "a"), ("b/10.png", None, "b"), ("b/2.png", None, "b")]


def test_images_outside_of_folders_share_a_label(tmp_path: Path) -> None:
    for where in both(tmp_path, {"b.png": IMAGE, "a.png": IMAGE}):
        assert found(where) == [("a.png", None, "images"), ("b.png", None, "images")]


def test_suffixes_match_in_any_case(tmp_path: Path) -> None:
    names = ["a.PNG", "b.Jpg", "c.JPEG", "d.WebP", "e.BMP", "f.gif", "g.png.txt", "png"]
    for where in both(tmp_path, dict.fromkeys(names, IMAGE)):
        assert [path for path, _, _ in found(where)] == ["a.PNG", "b.Jpg", "c.JPEG", "d.WebP", "e.BMP"]


def test_files_that_are_not_images_are_listed_apart(tmp_path: Path) -> None:
    for where in both(
        tmp_path, dict.fromkeys(["cat/a.png", "cat/b.HEIC", "notes.txt", ".hidden", "cat/._c.png"], IMAGE)
    ):
        assert list(map(str, folder.listing(where).others)) == ["cat/b.HEIC", "notes.txt"]


def test_hidden_files_and_resource_forks_are_skipped(tmp_path: Path) -> None:
    hidden = [".a.png", "cat/._x.png", ".git/x.png", "__MACOSX/cat/._x.png", "__MACOSX/x.png"]
    for where in both(tmp_path, dict.fromkeys([*hidden, "cat/x.png", "dog/y.png"], IMAGE)):
        assert found(where) == [("cat/x.png", None, "cat"), ("dog/y.png", None, "dog")]


def test_an_enclosing_folder_is_detected_beside_hidden_files(tmp_path: Path) -> None:
    files = ["__MACOSX/z/._x.png", ".DS_Store", "z/train/a/x.png", "z/test/b/y.png"]
    for where in both(tmp_path, dict.fromkeys(files, IMAGE)):
        assert found(where) == [("z/test/b/y.png", "test", "b"), ("z/train/a/x.png", "train", "a")]


@pytest.mark.parametrize("enclosing", ["", "birds/"])
def test_train_and_test_folders_are_splits(tmp_path: Path, enclosing: str) -> None:
    names = ["train/cat/1.png", "train/2.png", "test/dog/3.png"]
    for where in both(tmp_path, {enclosing + name: IMAGE for name in names}):
        assert found(where) == [
            (f"{enclosing}test/dog/3.png", "test", "dog"),
            (f"{enclosing}train/2.png", "train", "images"),
            (f"{enclosing}train/cat/1.png", "train", "cat"),
        ]


def test_an_archive_with_an_enclosing_folder_equals_the_folder(tmp_path: Path) -> None:
    files = {"cat/1.png": grey(1), "cat/x/2.png": grey(2), "dog/3.png": grey(3)}
    of_folder = folder.listing(folder_of(tmp_path / "pets", files))
    of_archive = folder.listing(zip_of(tmp_path / "pets.zip", {f"pets/{name}": files[name] for name in files}))
    assert [image.label for image in of_archive.images] == ["cat", "cat", "dog"]
    assert of_archive.digest() == of_folder.digest()


def test_a_single_class_is_not_an_enclosing_folder(tmp_path: Path) -> None:
    for where in both(tmp_path, {"cat/1.png": IMAGE, "cat/x/2.png": IMAGE}):
        assert [label for _, _, label in found(where)] == ["cat", "cat"]


@pytest.mark.parametrize("only", ["train", "test"])
def test_a_single_split_is_an_enclosing_folder(tmp_path: Path, only: str) -> None:
    for where in both(tmp_path, {f"{only}/cat/1.png": IMAGE, f"{only}/dog/2.png": IMAGE, f"{only}/3.png": IMAGE}):
        assert [(split, label) for _, split, label in found(where)] == [(None, "images"), (None, "cat"), (None, "dog")]


def test_classes_may_be_called_train_or_test(tmp_path: Path) -> None:
    for where in both(tmp_path, {"train/1.png": IMAGE, "bus/2.png": IMAGE}):
        assert [(split, label) for _, split, label in found(where)] == [(None, "bus"), (None, "train")]


@pytest.mark.parametrize("stray", ["3.png", "val/3.png"])
def test_error_names_an_image_beside_the_splits(tmp_path: Path, stray: str) -> None:
    for where in both(tmp_path, dict.fromkeys(["train/1.png", "test/2.png", stray], IMAGE)):
        with pytest.raises(UsageError, match=f"^{stray} lies beside train/ and test/: move it into one of them"):
            folder.listing(where)


@pytest.mark.parametrize("names", [["a.txt", ".b.png"], []])
def test_error_lists_the_suffixes_if_there_are_no_images(tmp_path: Path, names: list[str]) -> None:
    for where in both(tmp_path, dict.fromkeys(names, IMAGE)):
        message = rf"{where} holds no images \(.png, .jpg, .jpeg, .webp, .bmp\) among its {len(names)} files"
        with pytest.raises(UsageError, match=message):
            folder.listing(where)


@pytest.mark.parametrize("name", ["absent", "absent.zip"])
def test_error_names_a_path_that_is_neither_folder_nor_archive(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"{tmp_path}/{name} is neither a folder nor a \.zip$"):
        folder.listing(tmp_path / name)


@pytest.mark.parametrize("name", ["a.tar", "a.png"])
def test_error_for_a_file_asks_for_its_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(IMAGE)
    with pytest.raises(UsageError, match=r"is neither a folder nor a \.zip; give the folder that contains it$"):
        folder.listing(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_error_names_an_invalid_archive(tmp_path: Path, content: bytes | None) -> None:
    where = zip_of(tmp_path / "a.ZIP", {"a.png": IMAGE})
    where.write_bytes(where.read_bytes()[:-30] if content is None else content)
    with pytest.raises(UsageError, match=rf"^{where}: File is not a zip file"):
        folder.listing(where)


def test_a_folder_and_its_archive_have_the_same_digest(tmp_path: Path) -> None:
    files = {"b/2.png": grey(2), "a/ä 1.png": grey(1), "c.png": grey(3), "a/x.txt": b"ignored"}
    of_folder, of_archive = (folder.listing(where).digest() for where in both(tmp_path, files))
    assert of_folder == of_archive


@pytest.mark.parametrize(
    "changed",
    [
        {"a/1.png": grey(1), "a/2.png": grey(3)},  # contents
        {"a/1.png": grey(1), "b/2.png": grey(2)},  # label
        {"a/1.png": grey(1), "a/3.png": grey(2)},  # name
        {"a/1.png": grey(2), "a/2.png": grey(1)},  # contents swapped
        {"a/1.png": grey(1)},
        {"train/a/1.png": grey(1), "test/a/2.png": grey(2)},
    ],
)
def test_the_digest_changes_with_contents_names_labels_and_splits(tmp_path: Path, changed: dict[str, bytes]) -> None:
    one = folder.listing(folder_of(tmp_path / "one", {"a/1.png": grey(1), "a/2.png": grey(2)}))
    other = folder.listing(folder_of(tmp_path / "other", changed))
    assert one.digest() != other.digest()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".bmp"])
def test_every_format_is_decoded(tmp_path: Path, suffix: str) -> None:
    form = {".png": "PNG", ".jpg": "JPEG", ".webp": "WEBP", ".bmp": "BMP"}[suffix]
    content = encoded(Image.new("RGB", (5, 3), (200, 100, 0)), form)
    for where in both(tmp_path, {f"a{suffix}": content, f"b{suffix}": content}):
        files = folder.listing(where)
        assert len(files.images) == 2
        assert files[1].size == (5, 3)
        np.testing.assert_allclose(np.asarray(files[1].convert("RGB"))[0, 0], (200, 100, 0), atol=4)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_of_png_is_decoded(tmp_path: Path, mode: str) -> None:
    for where in both(tmp_path, {"a.png": encoded(Image.new(mode, (5, 3)))}):
        assert folder.listing(where)[0].mode == mode


def test_an_animation_is_read_as_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 3), colour) for colour in ("red", "blue")]
    animation = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    image = folder.listing(folder_of(tmp_path / "f", {"a.webp": animation}))[0]
    assert image.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, [[1, 2, 3], [4, 5, 6]]),
        (2, [[3, 2, 1], [6, 5, 4]]),
        (3, [[6, 5, 4], [3, 2, 1]]),
        (4, [[4, 5, 6], [1, 2, 3]]),
        (6, [[4, 1], [5, 2], [6, 3]]),
        (8, [[3, 6], [2, 5], [1, 4]]),
    ],
)
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_exif_orientation_is_applied(tmp_path: Path, form: str, orientation: int, upright: list[list[int]]) -> None:
    image = Image.fromarray(np.array([[1, 2, 3], [4, 5, 6]], np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    where = folder_of(tmp_path / "f", {"a.png": encoded(image, form, exif=exif, lossless=True)})
    np.testing.assert_array_equal(np.asarray(folder.listing(where)[0].convert("L")), upright)


def test_error_names_an_image_with_an_unreadable_orientation(tmp_path: Path) -> None:
    where = folder_of(tmp_path / "f", {"a.webp": encoded(Image.new("L", (5, 3)), "WEBP", exif=b"Exif\0\0no TIFF!")})
    with pytest.raises(UsageError, match=rf"^{where}/a.webp: not a TIFF file"):
        folder.listing(where)[0]


BAD = {
    "a/empty.png": b"",
    "b/text.png": b"not an image\n",
    "c/short.jpg": encoded(Image.effect_noise((64, 48), 90), "JPEG")[:-700],
    "d/short.png": encoded(Image.effect_noise((64, 48), 90))[:-700],
    "e/short.webp": encoded(Image.effect_noise((64, 48), 90), "WEBP")[:-700],
    "f/short.bmp": encoded(Image.effect_noise((64, 48), 90), "BMP")[:-700],
    "g/header.png": encoded(Image.new("L", (3, 5)))[:20],
}


@pytest.mark.parametrize("name", BAD)
def test_error_names_an_undecodable_image_and_the_reason(tmp_path: Path, name: str) -> None:
    for where in both(tmp_path, {name: BAD[name]}):
        files = folder.listing(where)
        with pytest.raises(UsageError, match=rf"^{where}/{name}: \w+"):
            files[0]


def test_error_names_an_image_of_too_many_pixels(tmp_path: Path) -> None:
    header = bytearray(encoded(Image.new("L", (3, 5)), "BMP"))
    header[18:26] = (30_000).to_bytes(4, "little") * 2
    where = folder_of(tmp_path / "f", {"bomb.bmp": bytes(header)})
    with pytest.raises(UsageError, match=rf"^{where}/bomb.bmp: Image size \(900000000 pixels\) exceeds limit"):
        folder.listing(where)[0]


def test_error_names_a_damaged_archive_member(tmp_path: Path) -> None:
    where = zip_of(tmp_path / "a.zip", {"a/x.png": IMAGE})
    content = bytearray(where.read_bytes())
    directory = content.index(b"PK\x01\x02")
    content[directory + 16] ^= 1  # the checksum
    where.write_bytes(content)
    files = folder.listing(where)
    with pytest.raises(UsageError, match=rf"^{where}/a/x.png: Bad CRC-32"):
        files[0]
    with pytest.raises(UsageError, match=rf"^{where}/a/x.png: Bad CRC-32"):
        files.digest()


def patched(where: Path, marker: bytes, offset: int, value: int) -> Path:
    """Set the byte `offset` bytes after the first occurrence of `marker` to `value`; return the archive."""
    content = bytearray(where.read_bytes())
    content[content.index(marker) + offset] = value
    where.write_bytes(content)
    return where


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, 1, "File 'a/x.png' is encrypted"),
        (10, 99, "That compression method is not supported"),
        (6, 99, "zip file version 9.9"),
        (24, 1, "Bad CRC-32"),
    ],
)
def test_an_unreadable_archive_is_an_error(tmp_path: Path, offset: int, value: int, reason: str) -> None:
    where = patched(zip_of(tmp_path / "a.zip", {"a/x.png": IMAGE}), b"PK\x01\x02", offset, value)
    with pytest.raises(UsageError, match=rf"^{where}.*: {reason}"):
        folder.listing(where).digest()


def test_error_names_an_archive_member_with_a_damaged_stream(tmp_path: Path) -> None:
    where = patched(zip_of(tmp_path / "a.zip", {"a/x.png": bytes(range(256)) * 9}), b"a/x.png", 7, 0xFF)
    with pytest.raises(UsageError, match=rf"^{where}/a/x.png: Error -3 while decompressing"):
        folder.listing(where).digest()


@pytest.mark.parametrize("form", ["./{}", "/{}", "{}", "././/{}"])
def test_leading_dots_and_slashes_of_archive_paths_are_ignored(tmp_path: Path, form: str) -> None:
    names = {"train/a/1.png": grey(1), "test/b/2.png": grey(2)}
    plain = folder.listing(zip_of(tmp_path / "plain.zip", names))
    other = folder.listing(zip_of(tmp_path / "other.zip", {form.format(name): names[name] for name in names}))
    assert other.images == plain.images
    assert other.digest() == plain.digest()


def test_backslashes_separate_folders_in_archives(tmp_path: Path) -> None:
    where = zip_of(tmp_path / "a.zip", {"a\\1.png": grey(1), "b\\1.png": grey(2)})
    assert found(where) == [("a/1.png", None, "a"), ("b/1.png", None, "b")]
    assert folder.listing(where).read(PurePosixPath("b/1.png")) == grey(2)


def test_the_last_of_two_archive_entries_with_the_same_path_is_read(tmp_path: Path) -> None:
    where = zip_of(tmp_path / "a.zip", {"a/x.png": grey(1), "./a/x.png": grey(2)})
    files = folder.listing(where)
    assert len(files.images) == 1
    assert files[0].getpixel((0, 0)) == 2


def test_paths_that_lead_out_of_an_archive_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(IMAGE)
    assert found(zip_of(tmp_path / "a.zip", {"../secret.png": b"", "a/x.png": IMAGE})) == [("a/x.png", None, "a")]


def test_every_decoder_error_names_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise struct.error("unpack requires a buffer of 4 bytes")

    where = folder_of(tmp_path / "f", {"a/x.png": IMAGE})
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load_end", fail)
    with pytest.raises(UsageError, match=rf"^{where}/a/x.png: unpack requires a buffer of 4 bytes"):
        folder.listing(where)[0]


@pytest.mark.parametrize("name", ["a/empty.png", "b/text.png"])
def test_error_states_that_the_contents_are_not_an_image(tmp_path: Path, name: str) -> None:
    for where in both(tmp_path, {name: BAD[name]}):
        with pytest.raises(UsageError, match=rf"^{where}/{name}: its contents are not an image$"):
            folder.listing(where)[0]


def test_names_need_not_be_utf8(tmp_path: Path) -> None:
    one, other = (folder_of(tmp_path / name, {os.fsdecode(b"\xff/\xe4.png"): IMAGE}) for name in ("one", "other"))
    assert folder.listing(one).digest() == folder.listing(other).digest()
    assert folder.listing(one)[0].size == (3, 5)


def test_links_are_followed(tmp_path: Path) -> None:
    folder_of(tmp_path / "disk", {"1.png": grey(1), "x/2.png": grey(2)})
    where = folder_of(tmp_path / "f", {"dog/3.png": grey(3)})
    (where / "cat").symlink_to(tmp_path / "disk")
    (where / "dog" / "4.png").symlink_to(tmp_path / "disk" / "1.png")
    labels = [(path, label) for path, _, label in found(where)]
    assert labels == [("cat/1.png", "cat"), ("cat/x/2.png", "cat"), ("dog/3.png", "dog"), ("dog/4.png", "dog")]
    assert folder.listing(where)[3].getpixel((0, 0)) == 1


def test_error_names_a_broken_link(tmp_path: Path) -> None:
    where = folder_of(tmp_path / "f", {"a/x.png": IMAGE})
    (where / "a" / "y.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UsageError, match=rf"^{where}/a/y.png: .*No such file"):
        folder.listing(where).digest()


def test_error_names_a_file_deleted_after_listing(tmp_path: Path) -> None:
    where = folder_of(tmp_path / "f", {"a/x.png": IMAGE})
    files = folder.listing(where)
    (where / "a/x.png").unlink()
    with pytest.raises(UsageError, match=rf"^{where}/a/x.png: .*No such file"):
        files.digest()


def test_bytes_are_read_by_path(tmp_path: Path) -> None:
    for where in both(tmp_path, {"a/x.png": grey(1), "b/x.png": grey(2)}):
        assert folder.listing(where).read(PurePosixPath("b/x.png")) == grey(2)
