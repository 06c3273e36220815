"""The memory and the disk of this machine, and whether they can suffice for a stage."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from ddpm import estimate
from ddpm.errors import UsageError
from ddpm.params import Params

if TYPE_CHECKING:  # it takes seconds, which `ddpm check` need not wait for
    import torch

PROCESS = 1_000_000_000  # bytes of Python, torch and MLflow in a process that has computed on the CPU
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")
_NO_LIMIT = 2**60  # a cgroup without a limit has "max", or a number near 2**63


def memory() -> int:
    """Bytes of memory that this process may use at most: of the machine or of its container, and swap."""
    return min([psutil.virtual_memory().total, *_limits()]) + psutil.swap_memory().total


def memory_of(device: "torch.device") -> int:
    """Bytes of memory of a device."""
    if device.type != "cuda":
        return memory()
    import torch

    return int(torch.cuda.get_device_properties(device).total_memory)


def gpu_memory() -> int | None:
    """Bytes of memory of the first NVIDIA GPU; None without one. torch is not imported."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).total)
    except pynvml.NVMLError:
        return None


def free_disk(folder: Path) -> int:
    """Bytes that can still be written to a folder or to its nearest parent that exists."""
    nearest = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    return shutil.disk_usage(nearest).free


def check(name: str, params: Params, device: "torch.device", processes: int) -> None:
    """Raise `UsageError` if stage `name` cannot run on this machine, even with nothing beside it.

    `processes` of this machine share the work; on the CPU they share its memory.
    """
    need = estimate.experiment(params).stages.get(name)
    if need is None:
        return
    shared = 1 if device.type == "cuda" else processes
    available = memory_of(device)
    if shared * need.certain > available:
        where = "the GPU" if device.type == "cuda" else "this machine"
        with_weights = ("the state of the network needs", need.lower[1])
        with_batch = (f"the network with a batch of {need.images:,} images needs", need.lower[0])
        what, key = with_weights if shared * need.weights > available else with_batch
        needed = size(shared * need.certain)
        raise UsageError(f"{what} at least {needed} of memory, and {where} has {size(available)}: lower {key}")
    check_disk(need.outputs, need.lower[2])


def check_disk(needed: int, key: str) -> None:
    """Raise `UsageError` if `needed` bytes do not fit on the disk of the working directory; `key` is what to lower.

    Files that exist do not count as free: they are replaced when the new ones are complete.
    """
    if needed > (free := free_disk(Path())):
        raise UsageError(
            f"the files to write need {size(needed)} of disk, and {Path.cwd()} has {size(free)} free: lower {key}, "
            "or remove files (`ddpm clean`, `dvc gc`)"
        )


def size(count: int) -> str:
    """Text for people: a number of bytes."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB" if value < 999.5 else f"{value:,.0f} TB"


def _limits() -> Iterator[int]:
    """The limits of memory of the control groups of this process; only Linux has them."""
    if sys.platform != "linux":
        return
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers in ("", "memory"):
                name = "memory.limit_in_bytes" if controllers else "memory.max"
                top = _CGROUPS / controllers
                own = top / group.lstrip("/")
                for folder in (own, *own.parents):
                    if folder.is_relative_to(top):
                        yield from _limit(folder / name)


def _limit(path: Path) -> Iterator[int]:
    with suppress(OSError, ValueError):
        limit = int(path.read_text(encoding="utf-8"))
        if limit < _NO_LIMIT:
            yield limit
