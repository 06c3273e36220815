"""The GPUs of this machine, of which each stage takes one that no other stage of this repository uses.

Queued experiments that run at once therefore use different GPUs.
"""

import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from filelock import FileLock, Timeout

from lab.experiment import dvcfile

_INTERVAL = 1.0  # seconds between two attempts to take a GPU


@contextmanager
def taken(name: str, processes: int = 1) -> Iterator[str]:
    """Take the GPUs of a stage until the end; yield the device of this process for `runtime.device`.

    `name` is `runtime.device`. For auto and cuda, the stage takes the first free GPU; for several `processes`, it takes
    the first GPUs, one for each. It waits, with a message, while other stages use them. A GPU that is named, such as
    cuda:1, is used without waiting. Without a GPU, and for every other device, nothing happens.
    """
    gpus = _uuids() if name.startswith(("auto", "cuda")) else []
    with ExitStack() as held:
        if processes > 1:
            for number in range(min(processes, len(gpus))):  # in this order, so that two stages never block each other
                _first_free(gpus[number : number + 1], held)
            yield name
        elif ":" in name:
            _try([gpu for number, gpu in enumerate(gpus) if name == f"cuda:{number}"], held)
            yield name
        else:
            yield f"cuda:{_first_free(gpus, held)}" if gpus else name


def _first_free(gpus: Sequence[str], held: ExitStack) -> int:
    """Wait until one of the GPUs is free, and hold its lock; return its index."""
    said = False
    while (index := _try(gpus, held)) is None:
        if not said:
            which = f"all {len(gpus)} GPUs are" if len(gpus) > 1 else "the GPU is"
            print(f"{which} used by other stages of this project; waiting for one", file=sys.stderr, flush=True)
            said = True
        time.sleep(_INTERVAL)
    return index


def _try(gpus: Sequence[str], held: ExitStack) -> int | None:
    """Hold the lock of the first GPU that is free; return its index, or None if there is none."""
    folder = dvcfile.ROOT / ".ckpt"
    folder.mkdir(exist_ok=True)
    for index, gpu in enumerate(gpus):
        lock = FileLock(folder / f"gpu-{platform.node()}-{gpu}")
        try:
            held.enter_context(lock.acquire(timeout=0))
        except Timeout:
            continue
        return index
    return None


def _uuids() -> list[str]:
    """What identifies each visible GPU, whatever its number is in this process."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [str(torch.cuda.get_device_properties(number).uuid) for number in range(torch.cuda.device_count())]
