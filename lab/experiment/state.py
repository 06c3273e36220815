"""Resumable training state in .ckpt/<fingerprint>/ of the repository, with one writer at a time.

The fingerprint hashes all that determines the training: declared parameters, code, data, torch and the kind of device.
A training with any change therefore starts anew, and two experiments with the same training share the folder. The
folder is not a DVC output, because DVC removes outputs before the command runs. The last state stays when training has
finished: DVC has not recorded the outputs yet, and a larger train.steps continues from it.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ddpm import files
from ddpm.alternatives import in_use
from ddpm.errors import UsageError
from lab.experiment import dvcfile


@dataclass(frozen=True)
class StateFolder:
    """The states of one training, named by their step."""

    path: Path

    @property
    def states(self) -> dict[int, Path]:
        """The paths of the states by step, in increasing order."""
        return dict(sorted((step_of(path), path) for path in self.path.glob("step-*.safetensors")))

    @property
    def finished(self) -> bool:
        """Whether the last state is that of a finished training."""
        return bool(self.states) and self._marker(max(self.states)).exists()

    @property
    def status(self) -> str:
        """Text for people: empty, finished at a step, or unfinished at a step."""
        if not self.states:
            return "empty"
        return f"{'finished' if self.finished else 'unfinished'} at step {max(self.states)}"

    def latest(self, steps: int) -> Path | None:
        """The last state that a training of `steps` steps can continue from.

        Raises `UsageError` if that state is damaged; using an earlier state could lose days of training.
        """
        path = next((path for step, path in reversed(self.states.items()) if step <= steps), None)
        try:
            if path is not None:
                files.read_metadata(path)
        except UsageError as error:
            raise UsageError(f"{error}; remove that file, or start anew with -S runtime.resume=false") from error
        return path

    def save(self, step: int, write: Callable[[Path], None]) -> None:
        """Write a state with `write(path)`, then remove the earlier ones."""
        write(self.path / f"step-{step:08d}.safetensors")
        for earlier, path in self.states.items():
            if earlier < step:
                path.unlink()

    def snapshot(self, step: int) -> Path:
        """The path for the weights of a step, which later states do not replace. Its folder exists."""
        folder = self.path / "snapshots"
        folder.mkdir(exist_ok=True)
        return folder / f"{step:08d}.safetensors"

    def copy_snapshots(self, steps: Sequence[int], to: Path) -> None:
        """Copy the weights of the given steps to the folder `to`, with steps.json, which lists the steps.

        Without the list the folder could be empty, for which DVC prints warnings.
        """
        to.mkdir(parents=True, exist_ok=True)
        files.write_text(to / "steps.json", json.dumps(list(steps)) + "\n")
        for step in steps:
            shutil.copy(self.snapshot(step), to)

    def finish(self, step: int, keep: int) -> None:
        """Record that training is finished. Of all finished trainings, keep only the `keep` newest folders."""
        self._marker(step).touch()
        done = sorted((f for f in folders() if f.finished), key=lambda f: f.modified, reverse=True)
        for folder in done[keep:]:
            folder.remove()

    def _marker(self, step: int) -> Path:
        return self.path / f"finished-{step:08d}"

    @property
    def modified(self) -> float:
        """The time at which a state was last written, seconds since the epoch; 0 without a state."""
        return max((status.st_mtime for status in self._files("step-*")), default=0.0)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(status.st_size for status in self._files("**/*.*"))

    def _files(self, pattern: str) -> Iterator[os.stat_result]:
        """The status of the files that match; files that another process removes meanwhile are skipped."""
        for path in self.path.glob(pattern):
            with suppress(FileNotFoundError):
                yield path.stat()

    def remove(self) -> bool:
        """Delete the folder unless a training is writing it; return whether it is deleted."""
        try:
            with FileLock(self.path / "lock", timeout=0):
                shutil.rmtree(self.path)
        except Timeout:
            return False
        return True


def step_of(path: Path) -> int:
    """The step of a state, from its name."""
    return int(path.stem.removeprefix("step-"))


def folders() -> list[StateFolder]:
    """All state folders of this repository."""
    return [StateFolder(path) for path in sorted((dvcfile.ROOT / ".ckpt").glob("*/")) if path.is_dir()]


def fingerprint(stage: str, ignored: set[str], machine: Mapping[str, str]) -> str:
    """A hash of everything that determines the result of a stage, without the `ignored` parameters."""
    declared = dvcfile.flatten(dvcfile.declared_params(stage, view=in_use))
    params = {key: value for key, value in declared.items() if key not in ignored}
    return dvcfile.digest({"params": params, "files": dvcfile.dependencies(stage), "machine": machine})[:16]


@contextmanager
def folder(name: str, resume: bool) -> Iterator[StateFolder]:
    """Lock the folder of a fingerprint and yield it, after any other process releases the lock.

    Without `resume` its states are removed first.
    """
    path = dvcfile.ROOT / ".ckpt" / name
    path.mkdir(parents=True, exist_ok=True)
    state, lock = StateFolder(path), FileLock(path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process runs the same training; waiting for it ({path})", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        path.mkdir(parents=True, exist_ok=True)  # `ddpm clean` may have removed it meanwhile
        for leftover in path.rglob(".*"):  # temporary files of a writer that was killed
            leftover.unlink()
        if not resume:
            for old in (*state.states.values(), *path.glob("finished-*")):
                old.unlink()
        yield state
    except KeyboardInterrupt as interrupt:
        if resume:
            start = (
                f"continues from step {max(state.states)}" if state.states else "starts at step 0, no state is saved"
            )
            interrupt.args = (f"the same command {start}",)
        raise
    finally:
        lock.release()


def age(seconds: float) -> str:
    """Text for how long ago a time was; empty for 0."""
    if not seconds:
        return ""
    hours = (time.time() - seconds) / 3600
    if hours < 1:
        return f"{60 * hours:.0f} min ago"
    return f"{hours:.1f} h ago" if hours < 48 else f"{hours / 24:.0f} d ago"
