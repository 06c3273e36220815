"""A training that crashes before each of its file operations, and a power cut after each rename."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from ddpm.data.batches import Batches
from tests.stages.conftest import fill
from tests.torture.training import params, trained

SETTINGS = params(steps=6, snapshots=[3])
OPERATIONS = {"open", "os.chmod", "os.mkdir", "os.remove", "os.rename", "os.truncate", "shutil.copyfile"}


class Crash(BaseException):
    """The end of the process: it does nothing more with files."""


class Disk:
    """Counts the operations on the files of a folder, from `last` on raises `Crash`, and notes what is synced."""

    def __init__(self) -> None:
        self.watch("")

    def watch(self, folder: str, last: int = sys.maxsize) -> None:
        """Begin to count, in another folder."""
        self.folder, self.last = folder, last
        self.done = 0
        self.synced: set[int] = set()
        self.unsafe: list[str] = []

    def look(self, event: str, arguments: tuple[Any, ...]) -> None:
        """An audit hook of Python."""
        if not self.folder or event not in OPERATIONS or not str(arguments[0]).startswith(self.folder):
            return
        self.done += 1
        if self.done >= self.last:
            raise Crash
        if event == "os.rename" and Path(arguments[0]).stat().st_ino not in self.synced:
            self.unsafe.append(str(arguments[1]))


DISK = Disk()
sys.addaudithook(DISK.look)  # Python cannot remove it; it does nothing without a folder


@contextmanager
def watched(folder: Path, last: int = sys.maxsize) -> Iterator[Disk]:
    """Count the operations in a folder; with `last`, crash before that operation."""
    sync = os.fsync

    def noted(file: int) -> None:
        DISK.synced.add(os.fstat(file).st_ino)
        sync(file)

    DISK.watch(str(folder), last)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", noted)
        try:
            yield DISK
        finally:
            DISK.folder = ""


@pytest.mark.parametrize("stride", [30, pytest.param(1, marks=pytest.mark.slow)])
def test_a_training_that_crashes_before_any_file_operation_continues_to_the_same_bytes(
    stride: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []
    get = Batches.get
    monkeypatch.setattr(Batches, "get", lambda self, step, *more: (steps.append(step), get(self, step, *more))[1])
    fill(tmp_path)
    data = tmp_path / "train.safetensors"
    with watched(tmp_path / "whole") as disk:
        expected = trained(SETTINGS, data, tmp_path / "whole")
    assert disk.done > 40
    for last in range(1, disk.done + 1, stride):
        root = tmp_path / f"crash {last}"
        steps.clear()
        with watched(root, last), suppress(Crash):
            trained(SETTINGS, data, root)
            pytest.fail(f"no crash before operation {last}")
        assert trained(SETTINGS, data, root) == expected
        assert len(steps) <= SETTINGS.train.steps + SETTINGS.runtime.checkpoint_every
    print(f"{disk.done} operations")


def test_a_file_is_on_disk_before_it_gets_its_name(tmp_path: Path) -> None:
    fill(tmp_path)
    with watched(tmp_path / "whole") as disk:
        trained(SETTINGS, tmp_path / "train.safetensors", tmp_path / "whole")
    assert disk.synced
    assert disk.unsafe == []
