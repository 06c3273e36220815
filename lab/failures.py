"""Failures of the machine as one line: a full disk, missing permissions, memory that does not suffice.

Every other error is a bug and keeps its traceback.
"""

import errno
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_AGAIN = "then run the same command again"
_IN_STAGE = f"{_AGAIN}: finished work is kept"
_SHOWN = 100  # characters of a path that is too long
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_UNREADY = (errno.EACCES, errno.EPERM)
_WITHOUT_NAME = (*_FULL, errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EAGAIN)  # explained without a file
_MEMORY = re.compile(  # of errors that Python, torch, the loader, the driver of the GPU and oneDNN raise
    r"can't allocate memory|cannot allocate memory|out of memory|bad_alloc|_ALLOC_FAILED|failed to map segment"
    r"|can't start new thread|could not create a primitive|could not create a memory",
    re.IGNORECASE,
)
_ASKED = re.compile(r"allocate ([\d.]+ ?(?:bytes|[KMGT]iB))|mmap (\d+ bytes)", re.IGNORECASE)
_ON_GPU = re.compile(r"total capacity of ([\d.]+ \w+) of which ([\d.]+ \w+) is free")
_SQLITE = {
    "SQLITE_FULL": "its disk is full; free space",
    "SQLITE_IOERR": "its disk failed or may hold no larger file; check its free space and `ulimit -f`",
    "SQLITE_READONLY": "it or its folder is read-only; make it writable",
    "SQLITE_CANTOPEN": "it cannot be opened; check its folder and the permissions there",
}
# The keys on which the memory of a stage depends, and for training the one to raise.
_KEYS = {
    "prepare": ("data.image_size",),
    "reference": ("evaluate.classifier.batch_size", "evaluate.classifier.channels"),
    "train": ("train.batch_size", "network.channels"),
    "sample": ("sample.batch_size",),
    "evaluate": ("sample.batch_size", "sample.count"),
}
_RAISED = {"train": "train.accumulate"}


def line(error: BaseException, stage: str = "", values: Mapping[str, Any] | None = None) -> str | None:
    """One line on what failed, where, why, and what to do; None if the error is not one of the machine.

    For a stage, the line on memory names the keys to lower, with their `values` in the sections of params.yaml.
    """
    for one in _chain(error):
        if _is_of_memory(one):
            return _memory(str(one), stage, values or {})
        if isinstance(one, OSError) and (text := _of_files(one, _IN_STAGE if stage else _AGAIN)):
            return text
        if cause := _SQLITE.get("_".join(getattr(one, "sqlite_errorname", "").split("_")[:2])):
            return f"the database cannot be written: {cause}, {_IN_STAGE if stage else _AGAIN}"
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and its causes. An error that was only being handled at the same time explains nothing."""
    known: BaseException | None = error
    while known is not None:
        yield known
        known = known.__cause__


def _is_of_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | ImportError) and bool(_MEMORY.search(str(error)))
    )


def _memory(text: str, stage: str, values: Mapping[str, Any]) -> str:
    gpu, on_gpu = re.search("CUDA|CUDNN|CUBLAS", text), _ON_GPU.search(text)
    where = "the memory of the GPU does not suffice" if gpu else "the memory does not suffice"
    asked = _ASKED.search(text)
    facts = [f"{_sized(asked[1] or asked[2])} more were asked for"] if asked else []
    if on_gpu:
        facts.append(f"{on_gpu[2]} of {on_gpu[1]} are free")
    elif not gpu:
        facts += _memory_of_host()
    higher = "raise the limit, or " if not gpu and _limit("RLIMIT_AS") is not None else ""
    again = _IN_STAGE if stage else _AGAIN
    return f"{where}{': ' * bool(facts)}{', '.join(facts)}; {higher}{_lower(stage, values)}, {again}"


def _sized(text: str) -> str:
    number, unit = re.fullmatch(r"([\d.]+?)\.? ?(\w+)", text).groups()  # type: ignore[union-attr]  # matched by _ASKED
    return f"{float(number) / 1e6:,.1f} MB" if unit == "bytes" else f"{number} {unit}"


def _memory_of_host() -> Iterator[str]:
    """What limits the memory of this process: the limit of its addresses, and what the machine has free."""
    if (limit := _limit("RLIMIT_AS")) is not None:
        yield f"the process may use {limit / 1e6:,.0f} MB of addresses (ulimit -v)"
    with suppress(OSError, KeyError, ValueError, MemoryError):
        rows = (row.partition(":") for row in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines())
        kibibytes = {name: int(value.split()[0]) for name, _, value in rows}
        free, total = (kibibytes[name] * 1024 / 1e6 for name in ("MemAvailable", "MemTotal"))
        yield f"{free:,.0f} of {total:,.0f} MB are free"


def _limit(name: str) -> int | None:
    """A limit of this process, such as RLIMIT_AS; None without one, or on Windows."""
    with suppress(ImportError):
        import resource

        soft = resource.getrlimit(getattr(resource, name))[0]
        return None if soft == resource.RLIM_INFINITY else soft
    return None


def _lower(stage: str, values: Mapping[str, Any]) -> str:
    """The keys to lower, with their values, as far as they are in use; for other work, more memory."""

    def shown(key: str) -> str:
        value: Any = values
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return f"{key} = {value}" if value is not None else ""

    lower = " or ".join(filter(None, map(shown, _KEYS.get(stage, ()))))
    higher = shown(_RAISED.get(stage, ""))
    advice = [*([f"lower {lower}"] * bool(lower)), *([f"raise {higher}"] * bool(higher))]
    if not stage:
        return "lower --count where the command has it, or end other programs"
    return ", or ".join(advice) or "end other programs, or use a machine with more"


def _of_files(error: OSError, again: str) -> str | None:
    number, name = error.errno, None if error.filename is None else str(error.filename)
    if number is None or (name is None and number not in _WITHOUT_NAME):
        return None  # of the network, of decoders, a closed pipe
    if number in _FULL or number in (errno.EROFS, errno.EIO):
        what = f"{name or 'a file'} cannot be {'written' if number != errno.EIO else 'used'}"
        needs = [str(note) for note in getattr(error, "__notes__", ())]
        return f"{what}: {', '.join([_reason_of_disk(error), *needs])}; {_remedy_of_disk(number)}, {again}"
    if number in (errno.EMFILE, errno.ENFILE):
        return (
            f"{name or 'a file'}: too many files are open ({_limited('RLIMIT_NOFILE', 'ulimit -n')}); raise it, {again}"
        )
    if number == errno.EAGAIN:
        return f"no further process can start ({_limited('RLIMIT_NPROC', 'ulimit -u')}); end others, {again}"
    path = str(name)
    shown = f"{path[:_SHOWN]}…" if number == errno.ENAMETOOLONG and len(path) > _SHOWN else path
    return f"{shown}: {_reason_of_path(error, Path(path))}"


def _reason_of_disk(error: OSError) -> str:
    where = _existing(Path(error.filename or Path.cwd()).absolute())
    if error.errno == errno.EFBIG:
        limit = _limited("RLIMIT_FSIZE", "ulimit -f")
        return f"it has more bytes than a file may have ({limit})"
    if error.errno == errno.EIO:
        return f"the disk or the network folder at {_mount(where)} failed (input/output error)"
    if error.errno == errno.EROFS:
        return f"{where if where.is_dir() else where.parent} is read-only"
    if error.errno == errno.EDQUOT:
        return f"the disk quota at {_mount(where)} is used up"
    return f"the disk at {_mount(where)} is full: {_free(where)}"


def _remedy_of_disk(number: int) -> str:
    return {
        errno.ENOSPC: "free space, for example by `ddpm clean`",
        errno.EDQUOT: "free space or have the quota raised (`quota -s` shows it)",
        errno.EFBIG: "raise the limit, or use another file system",
        errno.EROFS: "make it writable (`mount` shows why it is not), or use another folder",
        errno.EIO: "check the disk (`dmesg` shows its errors)",
    }[number]


def _free(where: Path) -> str:
    """The free space of the file system of an existing path."""
    found = os.statvfs(where) if hasattr(os, "statvfs") else None
    if found is None:
        return "no space is left"
    free = found.f_bavail * found.f_frsize
    entries = " and no further file" * bool(found.f_files and not found.f_favail)
    return f"{free:,} bytes{entries} are free"


def _limited(name: str, shown_by: str) -> str:
    """A limit of this process in words."""
    limit = _limit(name)
    return f"the limit is {limit:,}, {shown_by}" if limit is not None else "the limit of the system"


def _existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists and can be examined."""
    for one in (path, *path.parents):
        with suppress(OSError):
            one.stat()
            return one
    return Path("/")


def _mount(path: Path) -> Path:
    """The folder at which the file system of an existing path is mounted."""
    return next((one for one in (path, *path.parents) if os.path.ismount(one)), path)  # Path.is_mount fails on Windows


def _reason_of_path(error: OSError, path: Path) -> str:
    """Why a path cannot be used, and what to do."""
    match error.errno:
        case errno.ENOENT if path.name in ("params.yaml", "dvc.yaml"):
            return f"{error.strerror}; run the command in the root of the repository, or `git restore {path.name}`"
        case errno.EISDIR | errno.ENOTEMPTY:
            return "there is a folder of this name where a file is expected; rename or remove it"
        case errno.ENOTDIR | errno.EEXIST:
            file = next((one for one in (path, *path.parents) if one.is_file()), path)
            return f"{file} is a file where a folder is expected; rename or remove it"
        case errno.ENAMETOOLONG:
            length, longest = (
                len(os.fsencode(part)) for part in (path.absolute(), max(path.parts, key=len, default=""))
            )
            return (
                f"the path is too long: {length} bytes, its longest name {longest}, where most systems allow 4,095 and "
                "255; use shorter names, or a folder nearer to the root"
            )
        case number if number in _UNREADY:
            return _permission(path.absolute())
    return str(error.strerror)


def _permission(path: Path) -> str:
    """Who may use the nearest path that exists, and who this process is."""
    nearest = _existing(path)
    found = nearest.stat()
    who = f"this process runs as user {_user(os.geteuid())}" if hasattr(os, "geteuid") else "this process has no right"
    owner = f"belongs to user {_user(found.st_uid)}, mode {stat.S_IMODE(found.st_mode):03o}"
    subject = "it" if nearest == path else str(nearest)
    return f"there is no permission: {subject} {owner}, and {who}; change the owner or the mode (chown, chmod)"


def _user(number: int) -> str:
    with suppress(ImportError, KeyError):
        import pwd

        return pwd.getpwuid(number).pw_name
    return str(number)
