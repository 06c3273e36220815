"""Rows that are appended batch by batch survive a crash at any moment."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ddpm.errors import UsageError
from lab.experiment import rows
from lab.experiment.rows import COUNT, Rows


def batch(first: int, count: int) -> dict[str, Tensor]:
    """The features, float32 (N, 3), and the images, uint8 (N, 2, 5), first..first + count - 1."""
    numbers = torch.arange(first, first + count)
    features = numbers.view(-1, 1) + torch.tensor([0.0, 0.25, 0.5])
    return {"features": features, "images": numbers.to(torch.uint8).view(-1, 1, 1).expand(-1, 2, 5)}


def fail(*_: object) -> None:
    raise OSError("no space left")


def test_all_rows_are_read_in_their_order_from_any_number_of_runs(tmp_path: Path) -> None:
    for first, count in ((0, 4), (4, 1), (5, 2)):
        kept = Rows.create(tmp_path / "rows", 7)
        assert (kept.done, kept.total) == (first, 7)
        kept.append(batch(first, count))
    torch.testing.assert_close(Rows.create(tmp_path / "rows", 7).tensors(), batch(0, 7), rtol=0, atol=0)


def test_a_batch_that_was_not_counted_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Rows.create(tmp_path, 6)
    kept.append(batch(0, 2))
    with monkeypatch.context() as patched:
        patched.setattr(rows, "_write", fail)
        with pytest.raises(OSError, match="no space left"):
            kept.append(batch(50, 3))
    assert kept.done == Rows(tmp_path).done == 2
    kept.append(batch(2, 4))  # also in the same process
    torch.testing.assert_close(kept.tensors(), batch(0, 6), rtol=0, atol=0)


def test_a_batch_of_which_a_part_was_written_is_replaced(tmp_path: Path) -> None:
    Rows.create(tmp_path, 4).append(batch(0, 2))
    with (tmp_path / "features.bin").open("ab") as file:
        file.write(b"torn!")
    kept = Rows.create(tmp_path, 4)
    kept.append(batch(2, 2))
    torch.testing.assert_close(kept.tensors(), batch(0, 4), rtol=0, atol=0)
    assert (tmp_path / "features.bin").stat().st_size == 4 * 3 * 4


def test_the_rows_are_on_disk_before_they_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    write, sync = rows._write, rows.os.fsync
    monkeypatch.setattr(rows, "_write", lambda *arguments: (done.append("count"), write(*arguments)))
    monkeypatch.setattr(rows.os, "fsync", lambda file: (done.append("sync"), sync(file)))
    kept = Rows.create(tmp_path, 4)
    done.clear()
    kept.append(batch(0, 2))
    assert done == ["sync", "sync", "count", "sync"]  # of two tensors, and of the count itself


def test_rows_can_be_used_without_a_warning_and_a_change_does_not_reach_the_file(tmp_path: Path) -> None:
    kept = Rows.create(tmp_path, 2)
    kept.append(batch(0, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        features = kept.tensors()["features"]
        features[0] = 99
        assert features.numpy().sum() > 99
    torch.testing.assert_close(kept.tensors(), batch(0, 2), rtol=0, atol=0)


@pytest.mark.parametrize("damage", ["shorter", "missing"])
def test_error_of_damaged_rows_names_the_remedy(tmp_path: Path, damage: str) -> None:
    Rows.create(tmp_path, 4).append(batch(0, 2))
    path = tmp_path / "images.bin"
    content = path.read_bytes()
    path.unlink()
    if damage == "shorter":
        path.write_bytes(content[:-1])
    with pytest.raises(UsageError, match=r"images\.bin is not complete; remove .*, or start anew with .*resume=false"):
        Rows.create(tmp_path, 4)
    assert Rows(tmp_path).done == 2  # `ddpm clean` lists it


def test_without_a_batch_the_count_is_zero_of_the_total(tmp_path: Path) -> None:
    Rows.create(tmp_path / "rows", 50_000)
    assert json.loads((tmp_path / "rows" / COUNT).read_text()) == {"total": 50_000, "done": 0, "tensors": {}, "crc": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"total": 4, "done": 2}',
        b'{"total": 4, "done": 5, "tensors": {}}',
        b'{"total": 4, "done": "x", "tensors": {}}',
        b'{"total": 4, "done": 2, "tensors": {"images": ["uint9", [3]]}}',
        b'{"total": 4, "done": 2, "tensors": {"images": 3}}',
        b'{"total": 9, "done": 2, "tensors": {}, "crc": {}}',
        b'{"total": 4, "done": 0, "tensors": {"images": ["uint8", [3]]}, "crc": {}}',
    ],
)
def test_error_of_a_damaged_count_names_the_remedy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / COUNT).write_bytes(content)
    expected = rf"^{tmp_path}/rows\.json is damaged.*; remove {tmp_path}, or start anew with -S runtime\.resume=false$"
    with pytest.raises(UsageError, match=expected):
        Rows.create(tmp_path, 4)


@pytest.mark.parametrize("position", [0, 15, 29])
def test_a_bit_flipped_in_kept_rows_is_an_error(tmp_path: Path, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_BLOCK", 8)
    for first in (0, 1):
        Rows.create(tmp_path, 4).append(batch(first, 1 + first))
    path = tmp_path / "images.bin"
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 1
    path.write_bytes(damaged)
    expected = rf"^{path} is damaged: .* their checksum; remove {tmp_path}, or start anew with .*resume=false$"
    with pytest.raises(UsageError, match=expected):
        Rows.create(tmp_path, 4)
