"""Failures of the machine are one line; bugs are none."""

import errno
import os
import re
import resource
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch

from ddpm import files
from lab import failures
from lab.tracking import store

KEEPS = "then run the same command again: finished work is kept"
VALUES = {
    "train": {"batch_size": 64, "accumulate": 2},
    "network": {"channels": 32},
    "sample": {"batch_size": 256, "count": 1500},
    "evaluate": {"classifier": {"batch_size": 128, "channels": 16}},
}
ON_CUDA = (
    "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 139.81 GiB of which 3.50 GiB is "
    "free. Process 1 has 136.00 GiB memory in use."
)
ON_HOST = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "400000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, r" cannot be written: the disk at /\S* is full: [\d,]+ bytes are free; free space, .*"),
        (
            errno.EDQUOT,
            r" cannot be written: the disk quota at /\S* is used up; free space or have the quota raised .*",
        ),
        (errno.EFBIG, r" cannot be written: it has more bytes than a file may have \(.*\); raise the limit, .*"),
        (errno.EROFS, r" cannot be written: /\S* is read-only; make it writable .*"),
        (errno.EIO, r" cannot be used: the disk or the network folder at /\S* failed .*; check the disk .*"),
        (errno.EMFILE, r": too many files are open \(the limit is [\d,]+, ulimit -n\); raise it, .*"),
        (errno.EISDIR, r": there is a folder of this name where a file is expected; rename or remove it"),
        (errno.EACCES, r": there is no permission: \S* belongs to user \w+, mode 7\d\d, and this process runs as .*"),
        (errno.ESTALE, r": Stale file handle"),
    ],
)
def test_an_error_of_the_system_names_the_file_the_reason_and_the_remedy(
    number: int, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "folder/file"
    found = failures.line(OSError(number, os.strerror(number), str(path)), "train")
    assert found is not None
    assert re.fullmatch(re.escape(str(path)) + reason, found)


def test_the_size_of_what_is_written_is_named() -> None:
    error = OSError(errno.ENOSPC, "No space left on device", "model.safetensors")
    error.add_note("it needs 2,623,840 bytes")
    assert "bytes are free, it needs 2,623,840 bytes; free space" in str(failures.line(error))


def test_a_long_path_is_shortened_and_measured() -> None:
    found = str(failures.line(OSError(errno.ENAMETOOLONG, "", "/" + 300 * "a")))
    assert found.startswith("/" + 99 * "a" + "…: the path is too long: 301 bytes, its longest name 300, ")


@pytest.mark.parametrize(
    ("stage", "advice"),
    [
        ("reference", "lower evaluate.classifier.batch_size = 128 or evaluate.classifier.channels = 16"),
        ("train", "lower train.batch_size = 64 or network.channels = 32, or raise train.accumulate = 2"),
        ("sample", "lower sample.batch_size = 256"),
        ("evaluate", "lower sample.batch_size = 256 or sample.count = 1500"),
        ("report", "end other programs, or use a machine with more"),
    ],
)
@pytest.mark.parametrize(
    ("error", "facts"),
    [
        (torch.OutOfMemoryError(ON_CUDA), "the memory of the GPU does not suffice: 20.00 GiB more were asked for, 3"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "the memory of the GPU does not suffice; "),
        (RuntimeError(ON_HOST), "the memory does not suffice: 400.0 MB more were asked for, "),
        (RuntimeError("std::bad_alloc"), "the memory does not suffice"),
        (RuntimeError("can't start new thread"), "the memory does not suffice"),
        (RuntimeError("unable to mmap 2000000 bytes: Cannot allocate memory (12)"), "the memory does not suffice: 2.0"),
        (ImportError("libtorch.so: failed to map segment from shared object"), "the memory does not suffice"),
        (MemoryError("Unable to allocate 763. MiB for an array"), "the memory does not suffice: 763 MiB more"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "the memory does not suffice"),
    ],
)  # fmt: skip
def test_a_lack_of_memory_names_the_keys_to_lower(error: Exception, facts: str, stage: str, advice: str) -> None:
    found = str(failures.line(error, stage, VALUES))
    assert found.startswith(facts)
    assert found.endswith(f"; {advice}, {KEEPS}")


def test_keys_of_an_alternative_that_is_not_chosen_are_not_named() -> None:
    found = failures.line(MemoryError(), "reference", {"evaluate": {"classifier": None}})
    assert "; end other programs, or use a machine with more, " in str(found)


@pytest.mark.parametrize(
    "error", [KeyError("x"), RuntimeError("size mismatch"), ImportError("no module x"), OSError("truncated"), OSError(
        errno.ECONNREFUSED, "Connection refused"), BrokenPipeError(errno.EPIPE, "Broken pipe")]
)  # fmt: skip
def test_a_bug_is_no_failure_of_the_machine(error: Exception) -> None:
    assert failures.line(error, "train", VALUES) is None


def test_the_cause_of_an_error_explains_it_but_not_an_error_that_was_being_handled() -> None:
    caused, handling = ValueError("x"), KeyError("y")
    caused.__cause__ = handling.__context__ = MemoryError()
    assert failures.line(caused) is not None
    assert failures.line(handling) is None


def test_a_database_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "a.db").execute("create table t (x)").connection.close()
    with sqlite3.connect(f"file:{tmp_path / 'a.db'}?mode=ro", uri=True) as database:
        with pytest.raises(sqlite3.OperationalError) as raised:
            database.execute("insert into t values (1)")
        database.rollback()
    database.close()
    assert store.reason(raised.value) == "the database cannot be written: it or its folder is read-only"
    error = RuntimeError("first line\nsecond line")
    error.__cause__ = raised.value
    assert store.reason(error) == "the database cannot be written: it or its folder is read-only"


@pytest.mark.parametrize("name", [300 * "a", "a/b"])
def test_a_file_that_cannot_be_written_is_named_and_not_its_temporary_file(name: str, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    with pytest.raises(OSError, match=r"File name too long|File exists|Not a directory") as raised:
        files.write_text(tmp_path / name, "text")
    assert "/." not in raised.value.filename


def test_arrays_of_a_file_for_which_there_is_no_space_are_an_error_and_not_a_signal(tmp_path: Path) -> None:
    path = tmp_path / "data.safetensors"
    path.write_bytes(b"previous")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    arrays = {"images": (np.uint8, (20_000,))}
    try:
        with pytest.raises(OSError, match="File too large") as raised, files.create_tensors(path, arrays, {}):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(path)
    assert raised.value.__notes__ == ["it needs 20,280 bytes"]
    assert [one.name for one in tmp_path.iterdir()] == ["data.safetensors"]
    assert path.read_bytes() == b"previous"
