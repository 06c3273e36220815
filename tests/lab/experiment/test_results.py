"""The JSON files of results."""

import json
from pathlib import Path

import pytest

from ddpm.errors import FileError
from lab.experiment import results


def test_results_are_read_as_written(tmp_path: Path) -> None:
    written = {"classifier": {"fid": 1.5, "is": 2}, "loss": {"train": float("inf")}}
    (tmp_path / "metrics.json").write_text(json.dumps(written))
    assert results.metrics(tmp_path / "metrics.json") == written
    assert results.read(tmp_path / "metrics.json", ["loss"]) == written


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "is not valid JSON: "),
        (b"\xff", "is not valid JSON: "),
        (b"[]", "must be a JSON object, and is a list$"),
        (b'{"b": {}}', "lacks a, c$"),
    ],
)
def test_error_names_a_file_that_is_not_the_expected_object(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(content)
    with pytest.raises(FileError, match=f"^{path} {problem}"):
        results.read(path, ["a", "b", "c"])


def test_error_names_a_folder_or_a_missing_file(tmp_path: Path) -> None:
    for path, problem in ((tmp_path, "Is a directory"), (tmp_path / "absent", "No such file or directory")):
        with pytest.raises(FileError, match=f"^{path} cannot be read: {problem}$"):
            results.read(path)
