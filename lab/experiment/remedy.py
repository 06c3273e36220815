"""How to restore a file that cannot be used, which depends on what wrote it."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lab.experiment import dvcfile


def of(error: Exception) -> str:
    """Text to append to the message of an error; empty unless it is about a file that this project has written."""
    from ddpm.errors import FileError  # a stage imports its code only after its inputs are noted

    return _restoring(error.path) if isinstance(error, FileError) else ""


def _restoring(path: Path) -> str:
    here = path.absolute()
    if here.is_relative_to((dvcfile.ROOT / ".ckpt").absolute()):
        return "; remove that file, or start anew with -S runtime.resume=false"
    with suppress(Exception):  # without a valid dvc.yaml nothing is known about the file
        for name, stage in dvcfile.stages().items():
            for output, cached in _outputs(stage):
                if here.is_relative_to(Path(output).absolute()):
                    # DVC takes a file whose size and time are unchanged for intact, even with --force.
                    restore = f"rm {path} && dvc checkout {path}" if cached else f"git restore {path}"
                    return f"; `{restore}` restores it, `dvc repro --force --single-item {name}` makes it again"
    return ""


def _outputs(stage: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """The path of each output of a stage, and whether DVC's cache has it."""
    for kind in ("outs", "metrics", "plots"):
        for entry in stage.get(kind, []):
            described = {entry: {}} if isinstance(entry, str) else entry
            yield from ((path, options.get("cache", True)) for path, options in described.items())
