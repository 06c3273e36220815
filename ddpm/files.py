"""Files that are written completely or not at all, and tensors in safetensors files.

A tensor file's metadata is JSON under the keys that the caller chooses, plus `digest`: the sha256 of the names, dtypes,
shapes and bytes of all tensors. The header alone identifies a large file.

Pages of a memory-mapped file that were read count as memory of the process until they are released. `blocks` and
`gather` read large tensors and release the pages, so that data may be larger than memory.
"""

import ctypes
import hashlib
import json
import mmap
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file

from ddpm.errors import UsageError

_DTYPES = {np.dtype("uint8"): "U8", np.dtype("int64"): "I64", np.dtype("float32"): "F32"}
_DIGEST_OF_NOTHING = "0" * 64

LARGE = 2**28  # bytes of a tensor from which on its pages are released; smaller data is faster if it stays in memory
_UNRELEASED = 2**26  # bytes that are read in order before their pages are released
_ROWS = 64  # rows that are gathered before their pages are released: each can map 2 MiB, the largest page


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It replaces `path` on success and is removed on failure.

    The temporary name keeps the suffix, because image libraries choose their format by it. The file has the mode of a
    new file, whatever the library that writes it sets.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        temporary.unlink()
        yield temporary
        temporary.chmod(mode)  # safetensors writes files that only their owner can read
        with temporary.open("r+b") as written:  # Windows flushes only files that are open for writing
            os.fsync(written.fileno())  # before the rename: a power cut must not leave the name without the contents
        temporary.replace(path)
    except OSError as error:
        if str(error.filename) == str(temporary):
            error.filename = str(path)  # the user does not know the temporary name
        raise
    finally:
        temporary.unlink(missing_ok=True)


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


class TensorFileError(UsageError):
    """A file does not have the expected contents; the message names the file and the reason."""


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
    """Write tensors with metadata that JSON can express, atomically. Equal contents give equal bytes."""
    on_host = {name: tensor.detach().cpu().contiguous() for name, tensor in sorted(tensors.items())}
    description = _encode({**metadata, "digest": _digest(on_host)})
    with replacing(path) as temporary:
        save_file(on_host, temporary, description)


def read_tensors(path: Path, format: str | None = None) -> TensorFile:
    """Open a file. Its tensors are memory-mapped: they are read from disk when they are used.

    Raises `TensorFileError` if the file does not exist, was not written by this project, or its metadata does not have
    the given `format`.
    """
    with _open(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        opened = TensorFile(tensors, _decode(path, file.metadata()))
    if format is not None and opened.metadata.get("format") != format:
        raise TensorFileError(f"{path} has the format {opened.metadata.get('format')}: expected {format}")
    return opened


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata without the tensors. Raises as `read_tensors` does."""
    with _open(path) as file:
        return _decode(path, file.metadata())


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
        header = _header(specification, {**metadata, "digest": _DIGEST_OF_NOTHING})
        offset = len(header)
        temporary.write_bytes(header)
        mapped: dict[str, np.memmap] = {}
        for name, (dtype, shape) in specification.items():
            mapped[name] = np.memmap(temporary, dtype, "r+", offset, shape)
            offset += mapped[name].nbytes
        try:
            yield mapped
            digest = _digest({name: torch.from_numpy(array) for name, array in mapped.items()})
        finally:
            while mapped:
                mapped.popitem()[1].flush()  # and unmap: Windows cannot rename or remove a mapped file
        with temporary.open("r+b") as file:
            file.write(_header(specification, {**metadata, "digest": digest}))


def is_large(tensor: torch.Tensor) -> bool:
    """Whether `blocks` and `gather` release the pages of the tensor if it is memory-mapped."""
    return tensor.nbytes >= LARGE


def blocks(tensor: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Yield the blocks of `tensor.split(size)`. Release the pages of a large memory-mapped tensor behind the reader."""
    mapped = is_large(tensor) and _is_mapped(tensor)
    released = 0
    for first in range(0, len(tensor), size):
        if mapped and tensor[released:first].nbytes >= _UNRELEASED:
            _advise(tensor[released:first], mmap.MADV_DONTNEED)
            released = first
        yield tensor[first : first + size]
    if mapped:
        _advise(tensor[released:], mmap.MADV_DONTNEED)


def gather(tensor: torch.Tensor, chosen: np.ndarray) -> torch.Tensor:
    """Copy the rows `chosen`, int64 (n,), of a tensor. Release the pages of a large memory-mapped tensor.

    Rows that are not in memory are read from the disk at the same time, not one after the other.
    """
    if not (is_large(tensor) and _is_mapped(tensor)):
        return tensor[torch.from_numpy(chosen)]
    copied = np.empty((len(chosen), *tensor.shape[1:]), tensor.numpy().dtype)
    for row in chosen.tolist():
        _advise(tensor[row], mmap.MADV_WILLNEED)
    for first in range(0, len(chosen), _ROWS):
        part = slice(first, first + _ROWS)
        np.take(tensor.numpy(), chosen[part], axis=0, out=copied[part], mode="clip")  # the default mode copies twice
        _advise(tensor, mmap.MADV_DONTNEED)
    return torch.from_numpy(copied)


def release(tensor: torch.Tensor) -> None:
    """Release the pages of a memory-mapped tensor; they are read again when they are used.

    What was written through `create_tensors` is kept. Nothing happens to other tensors, or without Linux.
    """
    if _is_mapped(tensor):
        _advise(tensor, mmap.MADV_DONTNEED)


def copy(source: torch.Tensor, target: torch.Tensor) -> None:
    """Copy a tensor into another one of its shape, block by block, if one of them is memory-mapped and large."""
    first = 0
    for block in blocks(source, max(1, _UNRELEASED // max(1, source[:1].nbytes))):
        part = target[first : first + len(block)]
        part.copy_(block)
        if is_large(target):
            release(part)
        first += len(block)


def _is_mapped(tensor: torch.Tensor) -> bool:
    """Whether the tensor is contiguous memory of a file. To release other memory would erase it."""
    if sys.platform != "linux" or tensor.device.type != "cpu" or not tensor.is_contiguous():
        return False
    begin = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, _, _, _, inode, *_ = line.split(maxsplit=5)
        first, _, last = span.partition("-")
        if int(first, 16) <= begin < int(last, 16):
            return inode != "0" and begin + tensor.nbytes <= int(last, 16)
    return False


def _advise(tensor: torch.Tensor, advice: int) -> None:
    """Call madvise for all pages on which a mapped tensor lies. A kernel that refuses the advice changes nothing."""
    begin = tensor.data_ptr() // mmap.PAGESIZE * mmap.PAGESIZE
    length = tensor.data_ptr() + tensor.nbytes - begin
    ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(length), ctypes.c_int(advice))


def _header(specification: Mapping[str, tuple[np.dtype, tuple[int, ...]]], metadata: Mapping[str, Any]) -> bytes:
    """The first bytes of a safetensors file: the length of the header, then JSON padded to eight bytes."""
    header: dict[str, Any] = {"__metadata__": _encode(metadata)}
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
        for block in blocks(tensor.reshape(-1).view(torch.uint8), _UNRELEASED):
            digest.update(block.numpy().data)
    return digest.hexdigest()


def _encode(metadata: Mapping[str, Any]) -> dict[str, str]:
    """All metadata under one key: safetensors writes several keys in a random order."""
    return {"ddpm": json.dumps(metadata, sort_keys=True)}


def _decode(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    try:
        return dict(json.loads((metadata or {})["ddpm"]))
    except (KeyError, TypeError, ValueError):
        raise TensorFileError(f"{path} was not written by this project: it has no metadata") from None


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise TensorFileError(f"{path} does not exist")
    try:
        opened = safetensors.safe_open(path, framework="pt")
    except safetensors.SafetensorError as error:
        raise TensorFileError(f"{path} is not a complete safetensors file: {error}") from error
    with opened as file:
        yield file
