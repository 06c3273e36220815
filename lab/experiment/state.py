"""Resumable state in .ckpt/ of the repository: one folder for each fingerprint of a stage, with one writer at a time.

The fingerprint hashes all that determines the result: declared parameters, code, data, torch and the kind of device. A
stage with any change therefore starts anew, and two experiments with the same work share the folder. The folder is not
a DVC output, because DVC removes outputs before the command runs. It stays when the stage has finished: DVC has not
recorded the outputs yet, and a training with a larger train.steps continues from it.

A training has states (`StateFolder`, named by the fingerprint alone); other stages have rows (`RowsFolder`). Copies and
hidden files that people or other programs add are not read, and only removed with the whole folder.
"""

import json
import os
import re
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ddpm import files
from ddpm.alternatives import in_use
from ddpm.errors import UsageError
from lab.experiment import dvcfile
from lab.experiment.rows import COUNT, Rows

_FOLDER = re.compile(r"((?P<stage>[a-z]+)-)?[0-9a-z]+")  # the fingerprint of a training, or a stage and a fingerprint
_STATE = re.compile(r"step-(\d{8,})\.safetensors")
_FINISHED = re.compile(r"finished-\d{8,}")
_SET = re.compile(r"[a-z]+|\d{8,}")  # the rows of data, of samples, or of the snapshot of a step
_MADE = re.compile(r"[a-z]\w*\.safetensors")  # by stage reference, such as the extractor
_LEFTOVER = re.compile(r"\.(step-\d{8,}|\d{8,}|[a-z]+)\.\d+\.(safetensors|json)")  # as `files.replacing` names them


@dataclass(frozen=True)
class Folder(ABC):
    """What a stage keeps to continue after an interruption."""

    path: Path

    @property
    def stage(self) -> str:
        """The name of the stage."""
        return self.path.name.rpartition("-")[0] or "train"

    @property
    @abstractmethod
    def empty(self) -> bool:
        """Whether nothing is kept."""

    @property
    @abstractmethod
    def finished(self) -> bool:
        """Whether the stage has written its outputs."""

    @property
    @abstractmethod
    def reached(self) -> str:
        """Text for people: how far the stage has come."""

    @property
    def status(self) -> str:
        """Text for people: empty, damaged, or how far the stage has come, finished or unfinished."""
        try:
            return "empty" if self.empty else f"{'finished' if self.finished else 'unfinished'} at {self.reached}"
        except UsageError:
            return "damaged"

    @property
    def unfinished(self) -> bool:
        """Whether the stage has not finished, and something is kept, be it damaged."""
        return not self.finished and self.status != "empty"

    @property
    @abstractmethod
    def continuation(self) -> str:
        """Text for people: where the same command continues."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what is kept."""

    @property
    def modified(self) -> float:
        """The time at which something was last kept, seconds since the epoch; 0 without anything."""
        return max((status.st_mtime for status in self._files("**/*.*")), default=0.0)

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
        """Delete the folder unless a stage is writing it; return whether it is deleted."""
        try:
            with FileLock(self.path / "lock", timeout=0):
                shutil.rmtree(self.path)
        except Timeout:
            return False
        return True

    def keep_newest(self, keep: int) -> None:
        """Of all finished folders of this stage, keep only the `keep` newest."""
        done = sorted(
            (folder for folder in folders() if folder.stage == self.stage and folder.finished),
            key=lambda folder: folder.modified,
            reverse=True,
        )
        for folder in done[keep:]:
            folder.remove()


class StateFolder(Folder):
    """The states of one training, named by their step."""

    @property
    def states(self) -> dict[int, Path]:
        """The paths of the states by step, in increasing order."""
        return dict(sorted((step_of(path), path) for path in _named(self.path, _STATE)))

    @property
    def empty(self) -> bool:
        """Whether there is no state."""
        return not self.states

    @property
    def finished(self) -> bool:
        """Whether the last state is that of a finished training."""
        return bool(self.states) and self._marker(max(self.states)).exists()

    @property
    def reached(self) -> str:
        """The last step with a state."""
        return f"step {max(self.states)}"

    @property
    def continuation(self) -> str:
        """See `Folder`."""
        return "starts at step 0, no state is saved" if self.empty else f"continues from {self.reached}"

    @property
    def modified(self) -> float:
        """The time at which a state was last written, seconds since the epoch; 0 without a state."""
        return max((status.st_mtime for status in self._files("step-*")), default=0.0)

    def clear(self) -> None:
        """Remove the states; the weights of snapshots are replaced as the training goes on."""
        kept = self.path.glob("kept/*.safetensors")
        for old in (*self.states.values(), *_named(self.path, _FINISHED), *kept):
            old.unlink()

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

    def kept(self, step: int) -> Path:
        """The path of a state to which training can go back."""
        return self.path / "kept" / f"{step:08d}.safetensors"

    def keep(self, step: int) -> None:
        """Copy the state of a step, so that training can go back to it, and remove the earlier copies."""
        with files.replacing(self.kept(step)) as temporary:
            shutil.copyfile(self.states[step], temporary)
        for earlier in self.path.glob("kept/*.safetensors"):
            if earlier != self.kept(step):
                earlier.unlink()

    def go_back(self, step: int, bad: int, write: Callable[[Path], None]) -> None:
        """Write the state of a step to which training goes back, then remove the later ones up to step `bad`.

        States after `bad` are those of a longer training, which has gone back there, too.
        """
        self.save(step, write)
        for later, path in self.states.items():
            if step < later <= bad:
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
        self.keep_newest(keep)

    def _marker(self, step: int) -> Path:
        return self.path / f"finished-{step:08d}"


class RowsFolder(Folder):
    """The finished batches of one run of a stage that computes something for each image, and files it has made."""

    @property
    def rows(self) -> dict[str, Rows]:
        """The rows by name; those that another process removes meanwhile are skipped."""
        found = {}
        for folder in self._sets():
            with suppress(FileNotFoundError):
                found[folder.name] = Rows(folder)
        return found

    def _sets(self) -> list[Path]:
        """The folders that have rows, in the order of their names."""
        return sorted(path.parent for path in self.path.glob(f"*/{COUNT}") if _SET.fullmatch(path.parent.name))

    @property
    def empty(self) -> bool:
        """Whether there are no complete rows and no files. Raises `UsageError` if a count is damaged."""
        return not any(rows.done for rows in self.rows.values()) and not _named(self.path, _MADE)

    @property
    def finished(self) -> bool:
        """Whether the stage has written its outputs."""
        return self._marker.exists()

    @property
    def reached(self) -> str:
        """The number of images that are done, of all."""
        done, total = (sum(getattr(rows, name) for rows in self.rows.values()) for name in ("done", "total"))
        return f"image {done:,} of {total:,}"

    @property
    def continuation(self) -> str:
        """See `Folder`."""
        return "starts at image 0, none is kept" if self.empty else f"continues from {self.reached}"

    def clear(self) -> None:
        """Remove all that is kept."""
        self._marker.unlink(missing_ok=True)
        for rows in self._sets():
            (rows / COUNT).unlink()  # first: a count must never be without its rows
            shutil.rmtree(rows)
        for path in _named(self.path, _MADE):
            path.unlink()

    def finish(self) -> None:
        """Record that the outputs are written. Only the newest finished folder of the stage is kept."""
        self._marker.touch()
        self.keep_newest(1)

    @property
    def _marker(self) -> Path:
        return self.path / "finished"


def step_of(path: Path) -> int:
    """The step of a state, from its name."""
    return int(path.stem.removeprefix("step-"))


def _named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The files in a folder whose whole name matches."""
    return [path for path in folder.glob("*") if pattern.fullmatch(path.name) and path.is_file()]


def folders() -> list[Folder]:
    """All state folders of this repository."""
    found = ((path, _FOLDER.fullmatch(path.name)) for path in sorted((dvcfile.ROOT / ".ckpt").glob("*/")))
    return [RowsFolder(path) if name["stage"] else StateFolder(path) for path, name in found if name and _is_ours(path)]


def _is_ours(path: Path) -> bool:
    """Whether a stage has made the folder. A released lock stays, but not on Windows."""
    return (path / "lock").exists() or bool(_named(path, _STATE)) or any(path.glob(f"*/{COUNT}"))


def remember_verified(root: Path) -> None:
    """Keep in the state folders of a repository which large tensor files were verified; see `ddpm.files`."""
    files.remember_verified(root / ".ckpt" / "verified.jsonl")


def fingerprint(stage: str, ignored: set[str], machine: Mapping[str, str]) -> str:
    """A hash of everything that determines the result of a stage, without the `ignored` parameters."""
    declared = dvcfile.flatten(dvcfile.declared_params(stage, view=in_use))
    params = {key: value for key, value in declared.items() if key not in ignored}
    return dvcfile.digest({"params": params, "files": dvcfile.dependencies(stage), "machine": machine})[:16]


@contextmanager
def folder(name: str, resume: bool) -> Iterator[StateFolder]:
    """Lock the folder of a training, by its fingerprint, and yield it, after any other process releases the lock.

    Without `resume` its states are removed first.
    """
    state = StateFolder(dvcfile.ROOT / ".ckpt" / name)
    with _locked(state, "training", resume):
        yield state


@contextmanager
def rows_folder(stage: str, fingerprint: str, resume: bool) -> Iterator[RowsFolder]:
    """Lock the folder of rows of a stage and yield it, as `folder` does for a training."""
    state = RowsFolder(dvcfile.ROOT / ".ckpt" / f"{stage}-{fingerprint}")
    with _locked(state, f"stage {stage}", resume):
        yield state


@contextmanager
def _locked(state: Folder, work: str, resume: bool) -> Iterator[None]:
    state.path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(state.path / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"another process runs the same {work}; waiting for it ({state.path})", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        state.path.mkdir(parents=True, exist_ok=True)  # `ddpm clean` may have removed it meanwhile
        for path in state.path.rglob(".*"):
            if _LEFTOVER.fullmatch(path.name) and path.is_file():  # of a writer that was killed
                path.unlink()
        if not resume:
            state.clear()
        yield
    except KeyboardInterrupt as interrupt:
        if resume:
            interrupt.args = (f"the same command {state.continuation}",)
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
