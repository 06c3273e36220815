"""Files that are written completely or not at all, and tensors in safetensors files.

A tensor file's metadata is JSON under the keys that the caller chooses, plus `digest`: the sha256 of the names, dtypes,
shapes and bytes of all tensors. The header alone identifies a large file. Another sha256 is that of the metadata. Both
are verified when a file is read, so that a damaged file is an error and never a changed result.
"""

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file

from ddpm import mapped
from ddpm.errors import FileError, UsageError

KINDS = {  # of tensor files by their formats, for messages
    "ddpm-dataset-1": "packed images",
    "ddpm-extractor-1": "an extractor",
    "ddpm-model-1": "a model",
    "ddpm-reference-1": "features of real images",
    "ddpm-samples-1": "samples",
    "ddpm-snapshot-samples-1": "samples of snapshots",
    "ddpm-state-1": "the state of a training",
}
_DTYPES = {np.dtype("uint8"): "U8", np.dtype("int64"): "I64", np.dtype("float32"): "F32"}
_DIGEST_OF_NOTHING = "0" * 64
_OF_METADATA = "metadata_digest"
_NO_PREALLOCATION = (errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # the file system cannot, as opposed to: it is full


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It replaces `path` on success and is removed on failure.

    The temporary name keeps the suffix, because image libraries choose their format by it. The file has the mode of a
    new file, whatever the library that writes it sets. An `OSError` of writing names `path`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        with naming(path):
            temporary.touch()
            mode = temporary.stat().st_mode
            temporary.unlink()
            yield temporary
            temporary.chmod(mode)  # safetensors writes files that only their owner can read
            with temporary.open("r+b") as written:  # Windows flushes only files that are open for writing
                os.fsync(written.fileno())  # first: a power cut must not leave the name without the contents
            temporary.replace(path)
    except OSError as error:
        if str(temporary) in (str(error.filename), str(error.filename2)):  # of a copy, the second is the target
            error.filename = str(path)  # the user does not know the temporary name
        raise
    finally:
        with suppress(OSError):  # a name that is too long, or a read-only folder: the error of writing explains it
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an error of writing to an open file, which has no name of a file, the name `path`, as an `OSError`."""
    try:
        yield
    except safetensors.SafetensorError as error:  # for example: I/O error: No space left on device (os error 28)
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error
        raise
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            error.filename = str(path)
        raise


def check_writable(path: Path) -> None:
    """Raise `UsageError` if no file can be written to `path`. Call this before long work."""
    if path.exists() and (not path.is_file() or path.absolute().is_relative_to("/dev")):
        raise UsageError(f"{path}: a folder or a device has that name")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise UsageError(f"{path}: {nearest} is a file")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{path}: there is no permission to write to {nearest}")


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically, with the line ends of `text`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")  # the same bytes on every system


class TensorFileError(FileError):
    """A tensor file is missing, damaged, or does not have the expected contents."""


@dataclass(frozen=True)
class TensorFile:
    """The contents of a file: tensors by name, and their metadata."""

    tensors: dict[str, torch.Tensor]
    metadata: dict[str, Any]

    @property
    def digest(self) -> str:
        """The sha256 of the tensors."""
        return str(self.metadata["digest"])


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors with metadata that JSON can express, atomically. Equal contents give equal bytes.

    Raises `OSError` with the name `path`, and with the size of the tensors as a note, if they cannot be written.
    """
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    description = _encode(metadata, _digest(on_host))
    with _sized(sum(tensor.nbytes for tensor in on_host.values())), replacing(path) as temporary:
        save_file(on_host, temporary, description)


def read_tensors(path: Path, format: str | None = None) -> TensorFile:
    """Open a file. Its tensors are memory-mapped: they are read from disk when they are used.

    All of a small file is read to verify its digest, of a large one only once, see `remember_verified`. Raises
    `TensorFileError` if the file does not exist, was not written by this project, does not match its digest, or its
    metadata does not have the given `format`.
    """
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        opened = TensorFile(tensors, _decode(path, file.metadata(), format))
    _verify(path, opened)
    return opened


def remember_verified(record: Path) -> None:
    """Keep in the file `record` which large tensor files have matched their digests, and read those that it has.

    Such a file is not verified again while its path, inode, size and time of change stay the same. Without a record
    each process verifies it once.
    """
    _verified.keep(record)


def read_metadata(path: Path, format: str | None = None) -> dict[str, Any]:
    """Read the metadata without the tensors, which are not verified. Raises as `read_tensors` does."""
    with _open(path) as file:
        return _decode(path, file.metadata(), format)


@contextmanager
def create_tensors(
    path: Path, arrays: Mapping[str, tuple[type, tuple[int, ...]]], metadata: Mapping[str, Any]
) -> Iterator[Mapping[str, np.ndarray]]:
    """Yield writable memory-mapped arrays of the given dtypes and shapes, for data larger than memory.

    The file appears under its name, with its digest, when the block ends without an error.
    """
    # Widest first, as safetensors does, so that every array is aligned.
    ordered = sorted(arrays.items(), key=lambda item: (-np.dtype(item[1][0]).itemsize, item[0]))
    specification = {name: (np.dtype(dtype), shape) for name, (dtype, shape) in ordered}
    with replacing(path) as temporary:
        header = _header(specification, _encode(metadata, _DIGEST_OF_NOTHING))
        offset = len(header)
        temporary.write_bytes(header)
        _preallocate(temporary, offset + sum(dtype.itemsize * prod(shape) for dtype, shape in specification.values()))
        writable: dict[str, np.memmap] = {}
        for name, (dtype, shape) in specification.items():
            writable[name] = np.memmap(temporary, dtype, "r+", offset, shape)
            offset += writable[name].nbytes
        try:
            yield writable
            digest = _digest({name: torch.from_numpy(array) for name, array in writable.items()})
        finally:
            while writable:
                writable.popitem()[1].flush()  # and unmap: Windows cannot rename or remove a mapped file
        with temporary.open("r+b") as file:
            file.write(_header(specification, _encode(metadata, digest)))
    if path.stat().st_size >= mapped.LARGE:
        _verified.add(_version(path, digest))


def _preallocate(path: Path, size: int) -> None:
    """Reserve the disk space of a file: writing to a mapped file on a full disk would kill the process by SIGBUS."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    with path.open("r+b") as file, _sized(size):
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            if error.errno not in _NO_PREALLOCATION:
                raise


@contextmanager
def _sized(size: int) -> Iterator[None]:
    """Add a note to an `OSError`: how many bytes are being written."""
    try:
        yield
    except OSError as error:
        error.add_note(f"it needs {size:,} bytes")
        raise


def _header(specification: Mapping[str, tuple[np.dtype, tuple[int, ...]]], metadata: Mapping[str, str]) -> bytes:
    """The first bytes of a safetensors file: the length of the header, then JSON padded to eight bytes."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for name, (dtype, shape) in specification.items():
        end = begin + dtype.itemsize * int(np.prod(shape))
        header[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _digest(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        for block in mapped.blocks(tensor.reshape(-1).view(torch.uint8), mapped.BLOCK):
            digest.update(block.numpy().data)
    return digest.hexdigest()


class _Verified:
    """The large files that have matched their digests: a line of text for each, in memory and in a file."""

    def __init__(self) -> None:
        self._lines: set[str] = set()
        self._record: Path | None = None

    def keep(self, record: Path) -> None:
        self._record = record
        with suppress(OSError):  # without the file, large files are verified again
            self._lines.update(record.read_text(encoding="utf-8", errors="replace").splitlines())

    def __contains__(self, line: str) -> bool:
        return line in self._lines

    def add(self, line: str) -> None:
        self._lines.add(line)
        if self._record is None:
            return
        with suppress(OSError):
            self._record.parent.mkdir(parents=True, exist_ok=True)
            with self._record.open("a", encoding="utf-8", newline="\n") as file:
                file.write(f"{line}\n")  # one write per line: lines of simultaneous processes do not mix


_verified = _Verified()


def _verify(path: Path, file: TensorFile) -> None:
    """Raise `TensorFileError` if the tensors do not match their digest."""
    digest = str(file.metadata.get("digest"))
    version = _version(path, digest)
    if version in _verified:
        return
    computed = _digest(file.tensors)
    mapped.release_all(file.tensors.values())  # data that is only described, such as the test images, needs no memory
    if computed != digest:
        raise _damaged(path)
    if path.stat().st_size >= mapped.LARGE:
        _verified.add(version)


def _version(path: Path, digest: str) -> str:
    status = path.stat()
    return json.dumps([str(path.resolve()), status.st_ino, status.st_size, status.st_mtime_ns, digest])


def _damaged(path: Path) -> TensorFileError:
    return TensorFileError(f"{path} is damaged: its contents do not match its digest", path)


def _named(format: str) -> str:
    return f"{format} ({KINDS[format]})" if format in KINDS else format


def _encode(metadata: Mapping[str, Any], digest: str) -> dict[str, str]:
    """All metadata under one key: safetensors writes several keys in a random order."""
    described = json.loads(json.dumps({**metadata, "digest": digest}))  # as it will be read
    return {"ddpm": json.dumps({**described, _OF_METADATA: _digest_of(described)}, sort_keys=True)}


def _decode(path: Path, metadata: Mapping[str, str] | None, format: str | None) -> dict[str, Any]:
    try:
        described = dict(json.loads((metadata or {})["ddpm"]))
    except (KeyError, TypeError, ValueError):
        problem = "was not written by this project, or is damaged: it has no metadata"
        raise TensorFileError(f"{path} {problem}", path) from None
    if described.pop(_OF_METADATA, None) not in (None, _digest_of(described)):  # earlier versions wrote none
        raise _damaged(path)
    found = described.get("format")
    if format is not None and found != format:
        held = f"the format {_named(found)}" if found else "no format"
        raise TensorFileError(f"{path} has {held}: expected {_named(format)}", path)
    return described


def _digest_of(metadata: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        if not path.is_file():
            raise TensorFileError(f"{path} does not exist", path)
        opened = safetensors.safe_open(path, framework="pt")
    except safetensors.SafetensorError as error:
        raise TensorFileError(f"{path} is not a complete safetensors file: {error}", path) from error
    except OSError:
        path.open("rb").close()  # raises the error of the system; safetensors reports every one as a missing file
        raise
    with opened as file:
        yield file
