"""How long stages took and on which machine: one line in .ckpt/journal.jsonl for every stage that DVC has run.

The outputs of a stage are the same bytes everywhere, so they cannot record durations. The newest line of a stage is
valid if its key, a hash of all inputs, matches.
"""

import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.experiment import dvcfile


def record(stage: str, observed: Mapping[str, Any], seconds: float) -> None:
    """Append the line of a stage that ran on the inputs `observed`. A failure prints a warning; the stage continues."""
    line = {"stage": stage, "key": _key(observed), "seconds": round(seconds, 1), "machine": machine()}
    try:
        _path().parent.mkdir(exist_ok=True)
        text = json.dumps(line) + "\n"
        with _path().open("a+b") as file:  # one write per line: lines of simultaneous stages do not mix
            file.seek(-1 if file.tell() else 0, os.SEEK_END)
            after_torn_line = file.read() not in (b"", b"\n")
            file.write(("\n" * after_torn_line + text).encode())
    except OSError as error:
        print(f"{stage}: its duration could not be written ({error})", file=sys.stderr, flush=True)


def tags(stages: Iterable[str], folder: Path = Path()) -> dict[str, str]:
    """The duration of each stage's last run on the inputs in `folder`, and the machine of the training."""
    newest = {(line["stage"], line["key"]): line for line in _lines()}
    found: dict[str, str] = {}
    for stage in stages:
        if line := newest.get((stage, _key(dvcfile.observed(stage, folder)))):
            found[f"seconds.{stage}"] = str(line["seconds"])
            found |= line["machine"] if stage == "train" else {}
    return found


def _lines() -> Iterator[dict[str, Any]]:
    """The complete lines. A full disk or a crash cuts a line short; without the file no duration is known."""
    texts: list[str] = []
    with suppress(OSError):
        texts = _path().read_text(encoding="utf-8", errors="replace").splitlines()
    for text in texts:
        with suppress(ValueError, TypeError, KeyError, RecursionError):
            line = json.loads(text)
            yield {
                "stage": str(line["stage"]),
                "key": str(line["key"]),
                "seconds": float(line["seconds"]),
                "machine": {str(name): str(value) for name, value in dict(line["machine"]).items()},
            }


def machine() -> dict[str, str]:
    """Versions, the device that this process has used, the number of processes, and the model of the processor."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "ddpm")}
    used = {"device": _device(), "processes": _processes(), "cpu": _processor()}
    return used | {"python": platform.python_version(), **versions}


def _processes() -> str:
    """The number of processes that share the work; a launcher sets it."""
    return os.environ.get("WORLD_SIZE", "1") if "MASTER_ADDR" in os.environ else "1"


def _processor() -> str:
    """The model of the processor. Only Linux has it in a file; elsewhere Python gives the architecture at least."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device() -> str:
    torch: Any = sys.modules.get("torch")  # a stage that has not imported it has used the CPU
    if torch is None or not torch.cuda.is_initialized():
        return "cpu"
    busiest = max(range(torch.cuda.device_count()), key=torch.cuda.max_memory_allocated)
    return str(torch.cuda.get_device_name(busiest))


def _path() -> Path:
    return dvcfile.ROOT / ".ckpt" / "journal.jsonl"


def _key(observed: Mapping[str, Any]) -> str:
    return dvcfile.digest(observed)[:16]
