"""Tensors of memory-mapped files, which may be larger than memory.

Pages of a mapped file that were read count as memory of the process until they are released. `blocks` and `gather` read
large tensors and release the pages.
"""

import ctypes
import mmap
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

LARGE = 2**28  # bytes of a tensor from which on its pages are released; smaller data is faster if it stays in memory
BLOCK = 2**26  # bytes that are read in order before their pages are released
_ROWS = 64  # rows that are gathered before their pages are released: each can map 2 MiB, the largest page


def is_large(tensor: torch.Tensor) -> bool:
    """Whether `blocks` and `gather` release the pages of the tensor if it is memory-mapped."""
    return tensor.nbytes >= LARGE


def blocks(tensor: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    """Yield the blocks of `tensor.split(size)`. Release the pages of a large memory-mapped tensor behind the reader."""
    mapped = is_large(tensor) and _is_mapped(tensor)
    released = 0
    for first in range(0, len(tensor), size):
        if mapped and tensor[released:first].nbytes >= BLOCK:
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
    for block in blocks(source, max(1, BLOCK // max(1, source[:1].nbytes))):
        part = target[first : first + len(block)]
        part.copy_(block)
        if is_large(target):
            release(part)
        first += len(block)


def release_all(tensors: Iterable[torch.Tensor]) -> None:
    """Release the pages of all tensors of a file that was opened; `release` would search for each of them."""
    spans = [(tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes) for tensor in tensors if tensor.nbytes]
    begin, end = min((first for first, _ in spans), default=0), max((last for _, last in spans), default=0)
    if end > begin and _is_of_file(begin, end - begin):
        _advise_memory(begin, end - begin, mmap.MADV_DONTNEED)


def _is_mapped(tensor: torch.Tensor) -> bool:
    """Whether the tensor is contiguous memory of a file. To release other memory would erase it."""
    if tensor.device.type != "cpu" or not tensor.is_contiguous():
        return False
    return _is_of_file(tensor.data_ptr(), tensor.nbytes)


def _is_of_file(begin: int, size: int) -> bool:
    """Whether memory is mapped from one file. Only Linux can tell."""
    if sys.platform != "linux":
        return False
    for line in Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines():
        span, _, _, _, inode, *_ = line.split(maxsplit=5)
        first, _, last = span.partition("-")
        if int(first, 16) <= begin < int(last, 16):
            return inode != "0" and begin + size <= int(last, 16)
    return False


def _advise(tensor: torch.Tensor, advice: int) -> None:
    """Call madvise for all pages on which a mapped tensor lies."""
    _advise_memory(tensor.data_ptr(), tensor.nbytes, advice)


def _advise_memory(begin: int, size: int, advice: int) -> None:
    """Call madvise for all pages on which memory lies. A kernel that refuses the advice changes nothing."""
    first = begin // mmap.PAGESIZE * mmap.PAGESIZE
    ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(begin + size - first), ctypes.c_int(advice))
