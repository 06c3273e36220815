"""Files are whole or absent."""

from pathlib import Path

import pytest

from ddpm import atomic
from ddpm.errors import UsageError


def write_half(path: Path, error: type[BaseException]) -> None:
    with atomic.replacing(path) as temporary:
        temporary.write_text("half")
        raise error


def test_a_file_appears_under_its_name_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic.replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half(path, ZeroDivisionError)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_system_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(OSError, match="Is a directory") as caught:
        atomic.write_text(tmp_path / "a.txt", "new")
    assert caught.value.filename == str(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("folder", "folder: a folder or a device of that name is in the way"),
        ("/dev/stdout", "/dev/stdout: a folder or a device of that name is in the way"),
        ("file/more/x.txt", "x.txt: .*/file is a file"),
    ],
)
def test_a_place_where_no_file_can_be_written_is_named_before_the_work(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"{reason}$"):
        atomic.check(tmp_path / name)


def test_a_new_file_an_old_one_and_new_folders_are_places_to_write(tmp_path: Path) -> None:
    (tmp_path / "old.txt").touch()
    for name in ("old.txt", "new.txt", "a/b/new.txt"):
        atomic.check(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["old.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error):
        write_half(tmp_path / "a.txt", error)
    assert list(tmp_path.iterdir()) == []


def test_nothing_written_is_an_error_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic.replacing(path):
        pass
    assert path.read_text() == "old"


def test_the_temporary_file_is_hidden_beside_the_file_and_keeps_its_suffix(tmp_path: Path) -> None:
    path = tmp_path / "picture.b.png"
    with atomic.replacing(path) as temporary:
        temporary.touch()
    assert temporary.parent == tmp_path
    assert temporary.suffix == ".png"
    assert temporary.name.startswith(".")


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "one" / "two" / "a.txt"
    atomic.write_text(path, "x")
    assert path.read_text() == "x"


def test_text_is_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic.write_text(path, "ε̂ äé\n")
    assert path.read_bytes() == "ε̂ äé\n".encode()


def test_a_link_is_replaced_and_what_it_points_to_stays(tmp_path: Path) -> None:
    cached, path = tmp_path / "cached.txt", tmp_path / "a.txt"
    cached.write_text("kept by DVC")
    path.symlink_to(cached)
    atomic.write_text(path, "new")
    assert cached.read_text() == "kept by DVC"
    assert path.read_text() == "new"
    assert not path.is_symlink()
