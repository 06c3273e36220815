"""What ran how long, where and by which DVC: one line in .ckpt/journal.jsonl for every stage that DVC has run.

A stage's outputs are the same bytes everywhere, so they cannot tell it. MLflow's runs do, those of restored stages too:
the newest line of a stage holds as long as its key does, which hashes all that the stage depends on.
"""

import hashlib
import importlib.metadata
import json
import platform
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lab.experiment import dvcfile


def record(stage: str, observed: Mapping[str, Any], seconds: float) -> None:
    """Note that a stage has run, on the dependencies `observed` at its start. What fails here fails no stage."""
    line = {"stage": stage, "key": _key(observed), "seconds": round(seconds, 1), "machine": machine()}
    try:
        text = json.dumps({**line, "dvc": _dvc_process()}) + "\n"
        _path().parent.mkdir(exist_ok=True)
        with _path().open("a", encoding="utf-8") as file:  # one write of one line: stages that end together do not mix
            file.write(text)
    except Exception as error:
        print(f"{stage}: how long it took could not be noted ({error})", file=sys.stderr, flush=True)


def tags(stages: Iterable[str], folder: Path = Path()) -> dict[str, str]:
    """How long each stage took when it last ran as the files in `folder` have it, and what the training ran on."""
    newest = {(line["stage"], line["key"]): line for line in _lines()}
    found: dict[str, str] = {}
    for stage in stages:
        if line := newest.get((stage, _key(dvcfile.observed(stage, folder)))):
            found[f"seconds.{stage}"] = str(line["seconds"])
            found |= line["machine"] if stage == "train" else {}
    return found


def restored(stages: Iterable[str]) -> list[str] | None:
    """The stages that the DVC around this process had no need to run; None where there is no DVC around it."""
    here = _dvc_process()
    ran = {line["stage"] for line in _lines() if line["dvc"] == here}
    return None if here is None else [stage for stage in stages if stage not in ran]


def machine() -> dict[str, str]:
    """Versions, and the device that this process has worked on."""
    versions = {name: importlib.metadata.version(name) for name in ("torch", "ddpm")}
    return {"device": _device(), "python": platform.python_version(), **versions}


def _device() -> str:
    torch: Any = sys.modules.get("torch")  # a stage that has not imported it has worked on the CPU
    if torch is None or not torch.cuda.is_initialized():
        return "cpu"
    busiest = max(range(torch.cuda.device_count()), key=torch.cuda.max_memory_allocated)
    return str(torch.cuda.get_device_name(busiest))


def _path() -> Path:
    return dvcfile.ROOT / ".ckpt" / "journal.jsonl"


def _key(observed: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(observed, sort_keys=True).encode()).hexdigest()[:16]


def _lines() -> list[dict[str, Any]]:
    """All lines, oldest first. One that a full disk has cut short is passed over."""
    lines = []
    for text in _path().read_text(encoding="utf-8", errors="replace").splitlines() if _path().exists() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def _dvc_process() -> str | None:
    """The DVC that runs this stage, as its process id and start; None where a person runs it."""
    import psutil

    for process in psutil.Process().parents():
        if "dvc" in (Path(word).name for word in process.cmdline()[:3]):  # python .venv/bin/dvc, python -m dvc
            return f"{process.pid}-{process.create_time():.2f}"
    return None
