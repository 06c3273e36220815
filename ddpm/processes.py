"""The processes that share the work of a stage: one, unless a launcher such as torchrun has started more.

Process 0 decides and writes; the others compute. The results do not depend on the number of processes: gradients are
added in one fixed binary tree (`Group.sum`), and samples and features are computed in fixed batches (`Group.in_turn`).
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from ddpm import device
from ddpm.errors import UsageError
from ddpm.params import Runtime

_T = TypeVar("_T")
_Item = TypeVar("_Item")
_HOST = torch.device("cpu")
# Process 0 may compute metrics for hours while the others wait. A process that ends closes its connections, which the
# others notice at once; this limit is only for a machine that vanishes from the network.
_TIMEOUT = timedelta(days=7)
_BUCKET = 2**23  # elements that are exchanged at once: 32 MiB of gradients

# The connection to all processes, from `join` to `leave`. It exists only if there are several.
_store: Store | None = None


class LostProcessError(UsageError):
    """Another process has ended, or its machine cannot be reached."""


def rank() -> int:
    """The rank of this process, as its launcher has set it; 0 without a launcher."""
    return int(os.environ.get("RANK", "0")) if size() > 1 else 0


def size() -> int:
    """The number of processes that the launcher has started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1")) if launched() else 1


def local_size() -> int:
    """The number of processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if size() > 1 else 1


def local_rank() -> int:
    """The rank of this process among those of this machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if size() > 1 else 0


def launched() -> bool:
    """Whether a launcher has started this process: it has set the environment variables of torchrun."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()


@dataclass(frozen=True)
class Group:
    """This process among those that share the work, and its device."""

    device: torch.device
    rank: int = 0
    size: int = 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes; every process gets the same bytes.

        Processes at distance 1 are added first, then those at distance 2, 4, ..., so the sum is the upper part of a
        binary tree. The size is a power of two. Each process sends and receives 2 (1 - 1 / size) times the tensors in
        2 log2(size) exchanges: recursive halving and doubling (Rabenseifner 2004).
        """
        if self.size == 1:
            return
        for bucket in _buckets(tensors):
            count = sum(tensor.numel() for tensor in bucket)
            padding = bucket[0].new_zeros(-count % self.size)
            flat = torch.cat([*(tensor.reshape(-1) for tensor in bucket), padding])
            with _connected():
                self._sum(flat)
            parts = flat[:count].split([tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view(tensor.shape))

    def _sum(self, flat: Tensor) -> None:
        """Sum a vector whose length is a multiple of the size."""
        distances = [2**level for level in range(self.size.bit_length() - 1)]
        own = flat
        halves = []  # of each level: the half that this process adds, and the half that its partner adds
        for distance in distances:
            lower, upper = own.chunk(2)
            own, other = (upper, lower) if self.rank & distance else (lower, upper)
            halves.append((own, other))
            own += self._exchange(other, torch.empty_like(own), distance)
        for distance, (mine, theirs) in zip(reversed(distances), reversed(halves), strict=True):
            self._exchange(mine, theirs, distance)

    def _exchange(self, sent: Tensor, received: Tensor, distance: int) -> Tensor:
        """Send a vector to the partner at a distance, and receive one of its own."""
        partner = self.rank ^ distance
        pair = [dist.P2POp(dist.isend, sent, partner), dist.P2POp(dist.irecv, received, partner)]
        for work in dist.batch_isend_irecv(pair):
            work.wait()
        return received

    def in_turn(self, items: Sequence[_Item], work: Callable[[_Item], _T]) -> Iterator[_T]:
        """Do `work` on all items, which the processes take in turn.

        Process 0 yields the results in the order of the items; results are objects on the host. The other processes
        yield nothing, but must be iterated to do their part.
        """
        for first in range(0, len(items), self.size):
            mine = first + self.rank
            result = work(items[mine]) if mine < len(items) else None
            if self.rank == 0:
                yield result  # type: ignore[misc] # process 0 always has an item
                for other in range(1, min(self.size, len(items) - first)):
                    yield self._receive(other)
            elif result is not None:
                with _connected():
                    dist.send_object_list([result], dst=0, device=_HOST)

    def _receive(self, source: int) -> Any:
        received = [None]
        with _connected():
            dist.recv_object_list(received, src=source, device=_HOST)
        return received[0]

    def from_first(self, value: _T) -> _T:
        """The value that process 0 passes, on every process. The value of the other processes is ignored."""
        values: list[Any] = [value]
        if self.size > 1:
            with _connected():
                dist.broadcast_object_list(values, src=0, device=_HOST)
        return values[0]

    def agree(self, fingerprint: str) -> None:
        """Raise `UsageError` on each process whose fingerprint of the work differs from that of process 0."""
        if self.from_first(fingerprint) != fingerprint:
            raise UsageError("the code, the data, the parameters or torch differ from those of process 0")

    def any(self, flag: bool) -> bool:
        """Whether the flag is true on any process. It is exchanged by the hosts: no process waits for its device."""
        if self.size == 1:
            return flag
        flags = torch.tensor([flag], dtype=torch.int32)
        with _connected():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Groups of tensors, in order, with at most `_BUCKET` elements or with one tensor."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(other.numel() for other in bucket) + tensor.numel() > _BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def join(runtime: Runtime) -> Group:
    """Set up torch and the device, and connect to the other processes, if there are any.

    Raises `UsageError` if the device or the backend of its kind is missing, or if processes would share a GPU.
    """
    global _store
    where = device.prepare(runtime, local_rank(), local_size())
    if size() == 1:
        return Group(where)
    if where.type == "cuda" and not dist.is_nccl_available():
        raise UsageError("several processes on GPUs need NCCL, which this build of torch lacks; use runtime.device cpu")
    backend = "cpu:gloo,cuda:nccl" if where.type == "cuda" else "gloo"
    with _connected():
        _store, own, count = next(iter(rendezvous("env://", timeout=_TIMEOUT)))
        bound = where if where.type == "cuda" else None
        dist.init_process_group(backend, store=_store, rank=own, world_size=count, timeout=_TIMEOUT, device_id=bound)
    return Group(where, own, count)


def leave() -> None:
    """Disconnect from the other processes."""
    global _store
    if _store is not None:
        dist.destroy_process_group()
        _store = None


def first_to_fail(error: BaseException) -> bool:
    """Whether no other process has failed before this one: the one whose message explains the failure of all."""
    if _store is None:
        return True
    try:
        return int(_store.add("failed", 1)) == 1
    except RuntimeError:  # the process that holds the store has ended, and others have lost it
        return not isinstance(error, LostProcessError)


@contextmanager
def _connected() -> Iterator[None]:
    """Turn an error of the connection into one message."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError("another process that shares the work has ended or cannot be reached") from error
