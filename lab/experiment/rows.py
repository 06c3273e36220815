"""Rows of tensors that are appended to files batch by batch and survive a crash at any moment.

The rows of each tensor follow one another in NAME.bin. rows.json has the number of complete rows and their checksums. A
batch is written, then counted: rows beyond the count belong to a batch that was interrupted, and the next one replaces
them. The checksum is CRC-32, because it can be continued from batch to batch in another process.
"""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from ddpm import files
from ddpm.errors import UsageError

COUNT = "rows.json"
_BLOCK = 2**24  # bytes that are read at a time
_DTYPES = {"uint8": torch.uint8, "float32": torch.float32}

Batch = Mapping[str, Tensor]  # tensors by name, each with one row per image


@dataclass(frozen=True)
class _Count:
    """The contents of rows.json. Dtypes and shapes (without rows) are those of the first batch."""

    total: int
    done: int
    tensors: Mapping[str, tuple[str, list[int]]]
    crc: Mapping[str, int]  # of the complete rows


class Rows:
    """`total` rows of one or more tensors in a folder, of which `done` are complete."""

    def __init__(self, folder: Path) -> None:
        """Open rows. Raises `UsageError` if their count is damaged."""
        self._folder = folder
        text = (folder / COUNT).read_bytes()
        try:
            self._count = _parsed(text)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            raise UsageError(f"{folder / COUNT} is damaged; {self._remedy}") from None

    @classmethod
    def create(cls, folder: Path, total: int) -> "Rows":
        """Open the rows in a folder; without any, begin with none of `total`.

        Raises `UsageError` if a file is damaged.
        """
        if not (folder / COUNT).exists():
            _write(folder, _Count(total, 0, {}, {}))
        rows = cls(folder)
        rows._check(total)
        return rows

    @property
    def total(self) -> int:
        """The number of rows when all are complete."""
        return self._count.total

    @property
    def done(self) -> int:
        """The number of complete rows."""
        return self._count.done

    def append(self, batch: Batch) -> None:
        """Write the next rows of all tensors, uint8 or float32 on the host, then count them."""
        (count,) = {len(tensor) for tensor in batch.values()}
        tensors = {name: (str(part.dtype).removeprefix("torch."), list(part.shape[1:])) for name, part in batch.items()}
        assert tensors == (self._count.tensors or tensors)
        assert self.done + count <= self.total
        crc = {}
        for name, part in batch.items():
            rows = part.contiguous().numpy().data
            crc[name] = zlib.crc32(rows, self._count.crc.get(name, 0))
            path = self._file(name)
            with files.naming(path), path.open("r+b" if path.exists() else "wb") as file:
                file.truncate(self.done * _row_bytes(*tensors[name]))
                file.seek(0, os.SEEK_END)
                file.write(rows)
                file.flush()
                os.fsync(file.fileno())  # before the count: a power cut must not leave the count without the rows
        counted = replace(self._count, done=self.done + count, tensors=tensors, crc=crc)
        _write(self._folder, counted)
        self._count = counted

    def tensors(self) -> dict[str, Tensor]:
        """All rows of all tensors, memory-mapped: they are read from disk when they are used."""
        assert self.done == self.total
        return {
            name: torch.from_file(
                str(self._file(name)), shared=False, size=self.total * prod(shape), dtype=_DTYPES[dtype]
            ).view(self.total, *shape)
            for name, (dtype, shape) in self._count.tensors.items()
        }

    def _file(self, name: str) -> Path:
        return self._folder / f"{name}.bin"

    @property
    def _remedy(self) -> str:
        return f"remove {self._folder}, or start anew with -S runtime.resume=false"

    def _check(self, total: int) -> None:
        if self.total != total:
            raise UsageError(
                f"{self._folder / COUNT} is damaged: its total is {self.total}, not {total}; {self._remedy}"
            )
        for name, (dtype, shape) in self._count.tensors.items():
            path = self._file(name)
            size = self.done * _row_bytes(dtype, shape)
            if not path.is_file() or path.stat().st_size < size:
                raise UsageError(f"{path} is not complete; {self._remedy}")
            if _crc(path, size) != self._count.crc[name]:
                raise UsageError(f"{path} is damaged: its contents do not match their checksum; {self._remedy}")


def _parsed(text: bytes) -> _Count:
    """The count in a file. Raises errors of several kinds for other contents."""
    count = json.loads(text)
    tensors = {name: (dtype, list(map(int, shape))) for name, (dtype, shape) in count["tensors"].items()}
    parsed = _Count(
        int(count["total"]), int(count["done"]), tensors, {name: int(count["crc"][name]) for name in tensors}
    )
    if not 0 <= parsed.done <= parsed.total or {dtype for dtype, _ in tensors.values()} - _DTYPES.keys():
        raise ValueError
    return parsed


def _crc(path: Path, size: int) -> int:
    """The checksum of the first `size` bytes of a file."""
    crc = 0
    with path.open("rb") as file:
        for first in range(0, size, _BLOCK):
            crc = zlib.crc32(file.read(min(_BLOCK, size - first)), crc)
    return crc


def _row_bytes(dtype: str, shape: list[int]) -> int:
    return _DTYPES[dtype].itemsize * prod(shape)


def _write(folder: Path, count: _Count) -> None:
    files.write_text(folder / COUNT, json.dumps(vars(count)) + "\n")
