"""One `dvc repro` that is killed at a random moment of a stage."""

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.pipeline.project import Project, environment

STAGES = ("prepare", "reference", "train", "sample", "evaluate", "report")
BETWEEN = "between stages"
SIGNALS = {signal.SIGKILL: 7, signal.SIGTERM: 1, signal.SIGHUP: 1, signal.SIGINT: 1}  # and their weights
_WRITTEN = (".ckpt", "data", "models", "reports")  # the folders of the results, and of what is kept to continue
_POLL = 0.005  # seconds
_PATIENCE = 120.0  # seconds until a run has ended after a signal


class RunError(Exception):
    """A run failed that nothing has killed, or a run did not end after a signal."""


@dataclass(frozen=True)
class Timing:
    """Seconds from the start of a stage to its first change of a folder, and to the start of the next stage."""

    first_change: float
    whole: float


@dataclass(frozen=True)
class Moment:
    """The time `seconds` after a stage has started, or after its first change of a folder."""

    stage: str
    after_change: bool
    seconds: float

    @classmethod
    def draw(cls, rng: random.Random, stage: str, timing: Timing) -> "Moment":
        """A random moment of a stage. Half of them come after the imports, which take most of its time here."""
        if rng.random() < 0.5:
            return cls(stage, after_change=False, seconds=rng.uniform(0, timing.whole))
        return cls(stage, after_change=True, seconds=rng.uniform(0, timing.whole - timing.first_change))


@dataclass(frozen=True)
class Kill:
    """A signal to the process group of `dvc repro`, and the stage that ran then, or `BETWEEN`."""

    stage: str
    number: signal.Signals
    traceback: bool  # whether the run then printed one


@dataclass
class _Run:
    """A `dvc repro` in a process group of its own, and the times at which its stages began and changed a folder."""

    process: "subprocess.Popen[str]"
    folder: Path
    lines: list[str] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)
    changed: dict[str, float] = field(default_factory=dict)
    _before: int = 0

    def read(self) -> None:
        """Read the output to its end."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if begun := re.match(r"Running stage '(\w+)'", line):
                self._before = _changes(self.folder)
                self.started[begun[1]] = time.monotonic()

    def goes_on(self) -> bool:
        """Wait a moment and note the first change by the current stage; return whether the run goes on."""
        time.sleep(_POLL)
        if self.started:
            *_, stage = self.started
            if stage not in self.changed and _changes(self.folder) != self._before:
                self.changed[stage] = time.monotonic()
        return self.process.poll() is None

    def has_come(self, moment: Moment) -> bool:
        """Whether a moment of its stage has come, or, if the stage has ended, of a later one."""
        times = self.changed if moment.after_change else self.started
        late = [times[stage] for stage in STAGES[STAGES.index(moment.stage) :] if stage in times]
        return bool(late) and time.monotonic() >= late[0] + moment.seconds

    def check(self) -> None:
        """Raise `RunError` if the run has failed."""
        if self.process.returncode:
            raise RunError(f"dvc repro has failed:\n{''.join(self.lines[-40:])}")


def _changes(folder: Path) -> int:
    """A number that differs when a file has been created, replaced or deleted in one of the folders."""
    total = 0
    for name in _WRITTEN:
        for path in (folder / name, *(folder / name).glob("*/")):
            with suppress(FileNotFoundError):
                total += path.stat().st_mtime_ns
    return total


@contextmanager
def _running(project: Project) -> Iterator[_Run]:
    """Start `dvc repro`, and read its output."""
    process = subprocess.Popen(
        ["dvc", "repro"],
        cwd=project.path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        preexec_fn=_default_signals,
    )
    run = _Run(process, project.path)
    reader = threading.Thread(target=run.read)
    reader.start()
    try:
        yield run
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        reader.join()


def _default_signals() -> None:
    """Restore the handling of signals that this process ignores, as under `nohup` and in workers of pytest-xdist."""
    for number in SIGNALS.keys() - {signal.SIGKILL}:
        signal.signal(number, signal.SIG_DFL)


def timed(project: Project) -> dict[str, Timing]:
    """Run the pipeline without a kill; return the timing of each stage, all of which must run."""
    with _running(project) as run:
        while run.goes_on():
            pass
        end = time.monotonic()
    run.check()
    ends = [*run.started.values(), end][1:]
    return {
        stage: Timing(run.changed[stage] - begin, after - begin)
        for (stage, begin), after in zip(run.started.items(), ends, strict=True)
    }


def finished(project: Project) -> None:
    """Run the pipeline to its end."""
    with _running(project) as run:
        run.process.wait()
    run.check()


def killed(project: Project, moment: Moment, number: signal.Signals) -> Kill | None:
    """Run the pipeline and kill it at a moment; None if it has finished before."""
    stage = None
    with _running(project) as run:
        while run.goes_on():
            if run.has_come(moment):
                with suppress(psutil.NoSuchProcess):
                    whole = psutil.Process(run.process.pid)
                    processes = [*whole.children(recursive=True), whole]
                    stage = _stage(processes)
                    os.killpg(run.process.pid, number)
                    _, alive = psutil.wait_procs(processes, timeout=_PATIENCE)
                    if alive:
                        raise RunError(f"{number.name} has not ended {alive}:\n{''.join(run.lines[-20:])}")
                break
        run.process.wait()
    if stage is None:
        run.check()
        return None
    return Kill(stage, number, "Traceback" in "".join(run.lines))


def _stage(processes: Iterable[psutil.Process]) -> str:
    """The stage that one of the processes runs, or `BETWEEN`."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if found := re.search(r"-m stages\.(\w+)", " ".join(process.cmdline())):
                return found[1]
    return BETWEEN
