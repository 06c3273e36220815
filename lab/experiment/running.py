"""The stages that run at once in this repository, and whether they have enough cores.

torch's threads wait for each other at every operation. If all stages together have more threads than the machine has
cores, most of that time is lost: of two trainings at once, each takes several times as long.
"""

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lab.experiment import dvcfile

_NUMBERS = re.compile(r"\d+-\d+")  # of the process and of its threads, in the name of its file


@contextmanager
def announced(threads: int) -> Iterator[list[int]]:
    """Yield the numbers of threads of the other stages that run now; until the end, they count this stage, too.

    A running stage holds the lock of a file in .ckpt, which the system releases if the stage is killed. Only stages of
    this machine count. A folder that cannot be written yields no stages.
    """
    others: list[int] = []
    folder = dvcfile.ROOT / ".ckpt"
    prefix = f"running-{platform.node()}-"
    path = folder / f"{prefix}{os.getpid()}-{threads}"
    own = FileLock(path)
    with suppress(OSError):
        folder.mkdir(exist_ok=True)
        with FileLock(folder / "running", timeout=10):  # stages that begin together see each other
            files = (path for path in folder.glob(f"{prefix}*") if _NUMBERS.fullmatch(path.name.removeprefix(prefix)))
            others = [int(other.name.rpartition("-")[2]) for other in files if _held(other)]
            own.acquire(timeout=0)
    try:
        yield others
    finally:
        own.release()
        with suppress(OSError):
            path.unlink()


def advice(threads: int, others: list[int]) -> str | None:
    """Text for people if this stage and the others have more threads than the machine has cores."""
    cores, stages = _cores(), len(others) + 1
    if not others or (total := threads + sum(others)) <= cores:
        return None
    each = f"{threads} thread{'s' * (threads != 1)} each" if {threads} == {*others} else f"{total} threads"
    fewer = f"-S runtime.threads={cores // stages} or " if 0 < cores // stages < threads else ""
    return (
        f"{stages} stages run at once with {each} on {cores} cores, and each takes several times as long: "
        f"use {fewer}--jobs {max(1, cores // threads)}"
    )


def _held(path: Path) -> bool:
    """Whether a running stage holds the lock; if not, the stage was killed, and its file is removed."""
    try:
        FileLock(path).acquire(timeout=0).lock.release()
    except Timeout:
        return True
    path.unlink(missing_ok=True)
    return False


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
