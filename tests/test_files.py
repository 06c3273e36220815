"""Files are complete or absent; tensor files are reproducible, memory-mapped and have metadata."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ddpm import files
from ddpm.errors import UsageError

METADATA = {"format": "x-1", "classes": ["a", "ä"], "nested": {"one": [1, None, 2.5]}}


def tensors() -> dict[str, Tensor]:
    return {
        "images": torch.arange(2 * 3 * 5, dtype=torch.uint8).reshape(2, 3, 5),
        "labels": torch.tensor([7, -1]),
        "weights": torch.linspace(-1, 1, 12).reshape(3, 4),
    }


def create_half(path: Path) -> None:
    with files.create_tensors(path, {"images": (np.uint8, (2, 3))}, {}) as arrays:
        arrays["images"][0] = 1
        raise ZeroDivisionError


def header(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    parsed: dict[str, Any] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return parsed


def test_read_tensors_returns_the_written_tensors_and_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, tensors(), METADATA)
    file = files.read_tensors(path)
    torch.testing.assert_close(file.tensors, tensors(), rtol=0, atol=0)
    assert file.metadata == METADATA | {"digest": file.digest}
    assert list(tmp_path.iterdir()) == [path]


def test_equal_contents_give_equal_bytes(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    files.write_tensors(one, tensors(), METADATA)
    files.write_tensors(other, dict(reversed(tensors().items())), dict(reversed(METADATA.items())))
    assert one.read_bytes() == other.read_bytes()


def test_the_memory_layout_does_not_matter(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    images = torch.rand(2, 3, 4, 5)
    files.write_tensors(one, {"images": images}, {})
    files.write_tensors(other, {"images": images.contiguous(memory_format=torch.channels_last)}, {})
    assert one.read_bytes() == other.read_bytes()


def test_the_digest_is_the_sha256_of_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, {"b": torch.tensor([1.0, 2.0]), "a": torch.tensor([[3], [4]], dtype=torch.uint8)}, {})
    expected = b"a torch.uint8 [2, 1]\n" + bytes([3, 4])
    expected += b"b torch.float32 [2]\n" + np.array([1, 2], "<f4").tobytes()
    assert files.read_tensors(path).digest == hashlib.sha256(expected).hexdigest()


@pytest.mark.parametrize("change", [{"labels": torch.tensor([7, 0])}, {"more": torch.zeros(1)}])
def test_other_tensors_have_another_digest(tmp_path: Path, change: dict[str, Tensor]) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, tensors(), METADATA)
    digest = files.read_tensors(path).digest
    files.write_tensors(path, tensors() | change, METADATA)
    assert files.read_tensors(path).digest != digest


def test_the_digest_does_not_depend_on_the_metadata(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, tensors(), METADATA)
    digest = files.read_tensors(path).digest
    files.write_tensors(path, tensors(), {"other": 1})
    assert files.read_tensors(path).digest == digest


def test_read_metadata_returns_the_metadata_of_read_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, tensors(), METADATA)
    assert files.read_metadata(path) == files.read_tensors(path).metadata


def test_reading_a_large_file_does_not_load_it_into_memory(tmp_path: Path) -> None:
    path, size = tmp_path / "a.safetensors", 128 * 2**20
    with files.create_tensors(path, {"images": (np.uint8, (128, 1024, 1024))}, {}):
        pass  # zeros, stored as a sparse file
    process = psutil.Process()
    before = process.memory_info().rss
    images = files.read_tensors(path).tensors["images"]
    assert process.memory_info().rss - before < size // 8
    assert images.nbytes == size
    assert int(images[-1].sum()) == 0


def test_create_tensors_in_pieces_equals_write_tensors(tmp_path: Path) -> None:
    one, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    whole = {name: tensor.numpy() for name, tensor in tensors().items()}
    with files.create_tensors(one, {k: (v.dtype.type, v.shape) for k, v in whole.items()}, METADATA) as arrays:
        for name, values in whole.items():
            for index, value in enumerate(values):
                arrays[name][index] = value
    files.write_tensors(other, tensors(), METADATA)
    created, written = files.read_tensors(one), files.read_tensors(other)
    torch.testing.assert_close(created.tensors, written.tensors, rtol=0, atol=0)
    assert created.metadata == written.metadata
    assert sorted(tmp_path.iterdir()) == [one, other]


def test_create_tensors_twice_gives_equal_bytes(tmp_path: Path) -> None:
    paths = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    for path in paths:
        with files.create_tensors(path, {"images": (np.uint8, (3, 5)), "labels": (np.int64, (3,))}, METADATA) as arrays:
            arrays["images"][:] = np.arange(15).reshape(3, 5)
            arrays["labels"][:] = [2, 0, 1]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_wide_dtypes_are_aligned_after_an_odd_number_of_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    shapes = {"a": (np.uint8, (1, 3, 5)), "b": (np.int64, (2,)), "c": (np.float32, (3,))}
    with files.create_tensors(path, shapes, {"text": "odd"}) as arrays:
        arrays["b"][:] = [2**40, -3]
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    offsets = {name: start + header(path)[name]["data_offsets"][0] for name in shapes}
    assert offsets["b"] % 8 == 0
    assert offsets["c"] % 4 == 0
    assert files.read_tensors(path).tensors["b"].tolist() == [2**40, -3]


def test_a_failure_while_creating_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(ZeroDivisionError):
        create_half(path)
    assert list(tmp_path.iterdir()) == []


def test_a_failure_while_creating_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, tensors(), METADATA)
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        create_half(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("read", [files.read_tensors, files.read_metadata])
@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_error_names_a_truncated_file(tmp_path: Path, read: Any, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    files.write_tensors(path, tensors(), METADATA)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(files.TensorFileError, match=rf"{path} is not a complete safetensors file: \w+"):
        read(path)


@pytest.mark.parametrize("read", [files.read_tensors, files.read_metadata])
def test_error_names_a_missing_file_or_a_folder(tmp_path: Path, read: Any) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(files.TensorFileError, match=rf"^{path} does not exist$"):
            read(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"ddpm": "no JSON"}, {"ddpm": "null"}])
def test_error_names_a_file_of_another_program(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2)}, path, metadata)
    with pytest.raises(files.TensorFileError, match=rf"{path} was not written by this project"):
        files.read_tensors(path)


def write_empty(path: Path) -> None:
    with files.create_tensors(path, {"images": (np.uint8, (2, 3))}, {}):
        pass


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_text(path, "text"),
        lambda path: files.write_tensors(path, tensors(), METADATA),
        write_empty,
    ],
)
def test_every_file_has_the_mode_of_a_new_file(write: Callable[[Path], None], tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        (tmp_path / "new").touch()
        for _ in range(2):
            write(tmp_path / "written")
    finally:
        os.umask(before)
    assert (tmp_path / "written").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_file_is_flushed_while_it_is_open_for_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Windows requires."""
    modes = []
    monkeypatch.setattr(os, "fsync", lambda file: modes.append(fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE))
    files.write_text(tmp_path / "a.txt", "text")
    assert modes == [os.O_RDWR]


def test_no_file_is_memory_mapped_when_it_is_renamed_or_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses both."""

    def check(usual: Callable[..., object], path: Path, *arguments: object, **options: object) -> object:
        assert str(path) not in Path("/proc/self/maps").read_text()
        return usual(path, *arguments, **options)

    for name in ("replace", "unlink"):
        usual = getattr(Path, name)
        monkeypatch.setattr(Path, name, lambda *given, usual=usual, **options: check(usual, *given, **options))
    write_empty(tmp_path / "a.safetensors")
    with pytest.raises(ZeroDivisionError):
        create_half(tmp_path / "b.safetensors")


def write_half(path: Path, error: type[BaseException]) -> None:
    with files.replacing(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_appears_under_its_name_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with files.replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_only_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(path, ZeroDivisionError)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_os_error_names_the_target_and_not_the_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match="Is a directory") as caught:
        files.write_text(tmp_path / "a.txt", "new")
    assert caught.value.filename == str(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "folder: a folder or a device has that name"),
        ("/dev/stdout", "/dev/stdout: a folder or a device has that name"),
        ("file/more/x.txt", "x.txt: .*/file is a file"),
    ],
)
def test_check_writable_names_a_path_that_cannot_be_written(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"{reason}$"):
        files.check_writable(tmp_path / name)


def test_check_writable_accepts_old_files_new_files_and_new_folders(tmp_path: Path) -> None:
    (tmp_path / "old.txt").touch()
    for name in ("old.txt", "new.txt", "a/b/new.txt"):
        files.check_writable(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_no_file(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_half(tmp_path / "a.txt", error)
    assert list(tmp_path.iterdir()) == []


def test_writing_nothing_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), files.replacing(path):
        pass
    assert path.read_text() == "old"


def test_the_temporary_file_is_hidden_in_the_same_folder_with_the_same_suffix(tmp_path: Path) -> None:
    path = tmp_path / "picture.b.png"
    with files.replacing(path) as temporary:
        temporary.touch()
    assert temporary.parent == tmp_path
    assert temporary.suffix == ".png"
    assert temporary.name.startswith(".")


def test_missing_folders_are_created(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "a.txt"
    files.write_text(path, "x")
    assert path.read_text() == "x"


def test_text_is_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "ε̂ äé\n")
    assert path.read_bytes() == "ε̂ äé\n".encode()


def test_a_link_is_replaced_and_its_target_is_unchanged(tmp_path: Path) -> None:
    cached, path = tmp_path / "cached.txt", tmp_path / "a.txt"
    cached.write_text("kept by DVC")
    path.symlink_to(cached)
    files.write_text(path, "new")
    assert cached.read_text() == "kept by DVC"
    assert path.read_text() == "new"
    assert not path.is_symlink()
