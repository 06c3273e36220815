"""The start and the end of every stage: arguments, errors, and the check that its inputs did not change.

`note_inputs` takes the digests of all inputs before the code of the stage is imported. DVC takes them after the command
has ended, and so would record code that was edited meanwhile as the source of the output.
"""

import argparse
import inspect
import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lab.experiment import dvcfile, journal, running

if TYPE_CHECKING:  # a stage imports its code only after `note_inputs`
    from ddpm.params import Runtime

_STAGE = os.environ.get("DVC_STAGE")  # None unless DVC runs the stage
_GO_BACK = (  # DVC has removed the outputs of the stage
    "\nset an allowed value and run again, or go back to the last commit: "
    "git restore params.yaml dvc.lock reports && dvc checkout"
)
_COMPUTING = ("reference", "train", "sample", "evaluate")  # the stages that use runtime.threads
_FIRST_LINE = 5.0  # seconds until a log has the first line of progress, with the expected time
_LOG_INTERVAL = 30.0  # seconds between two later lines
_LOG_FORMAT = "{desc}: {n_fmt}/{total_fmt}{unit}, {elapsed} elapsed, {remaining} left, {rate_fmt}{postfix}"
_noted: dict[str, Any] = {}
_start = time.monotonic()


class _Log(io.TextIOBase):
    """A file for the progress bars of tqdm where standard error is no terminal.

    Of the texts that a bar writes, one after 5 seconds, then one every 30 seconds and the last one become lines.
    """

    def __init__(self) -> None:
        self._waiting = self._shown = ""
        self._due = time.monotonic() + _FIRST_LINE

    def write(self, text: str) -> int:
        line = text.strip()
        self._waiting = line or self._waiting
        count, _, _ = self._waiting.partition(",")
        # A bar ends with a newline.
        if (text == "\n" or (line and time.monotonic() >= self._due)) and count != self._shown:
            print(self._waiting, file=sys.stderr, flush=True)
            self._shown, self._due = count, time.monotonic() + _LOG_INTERVAL
        return len(text)


def note_inputs() -> None:
    """Record the parameters of the running stage and the digests of its dependencies."""
    if _STAGE:
        _noted.update(dvcfile.observed(_STAGE))


def run(stage: Callable[..., None]) -> None:
    """Run a stage with params.yaml and the paths of the command line: one `--name PATH` per parameter of its function.

    The process ends with one message after a `UsageError` or an interruption, and, under DVC, if an input changed
    while the stage ran.
    """
    from ddpm.errors import UsageError
    from ddpm.params import ParamsError, load

    name = stage.__name__
    paths = _paths(stage)
    try:
        params = load(dvcfile.PARAMS)
        with _sharing_cores(name, params.runtime):
            stage(params, **paths)
    except UsageError as error:
        sys.exit(f"{name}: {error}" + _GO_BACK * (isinstance(error, ParamsError) and _in_workspace()))
    except KeyboardInterrupt as interrupt:
        print("; ".join([f"{name}: interrupted", *map(str, interrupt.args)]), file=sys.stderr)
        sys.exit(130)  # the exit status after Ctrl-C, with which DVC records nothing
    _end(name)


@contextmanager
def _sharing_cores(name: str, runtime: "Runtime") -> Iterator[None]:
    """Print a warning if this stage and those that already run have more threads than there are cores."""
    from ddpm import device

    if name not in _COMPUTING or device.resolve(runtime.device).type != "cpu":
        yield
        return
    with running.announced(runtime.threads) as others:
        if advice := running.advice(runtime.threads, others):
            print(f"{name}: {advice}", file=sys.stderr, flush=True)
        yield


def bar(description: str, total: int, unit: str, done: int = 0) -> "tqdm[Any]":
    """Create a progress bar, whose method `update` serves as `progress`. `done` units are done already.

    Without a terminal, as in the log of a queue, it writes a line after 5 seconds, one every 30 seconds, and the last.
    """
    terminal = sys.stderr.isatty()
    return tqdm(
        total=total,
        initial=done,
        desc=description,
        unit=f" {unit}",
        mininterval=1,
        file=None if terminal else _Log(),
        bar_format=None if terminal else _LOG_FORMAT,
    )


def _in_workspace() -> bool:
    """Whether DVC runs the stage in the workspace and not in a temporary copy of it."""
    return bool(_STAGE) and dvcfile.ROOT.samefile(Path.cwd())


def _paths(stage: Callable[..., None]) -> dict[str, Path]:
    parser = argparse.ArgumentParser(prog=f"python -m stages.{stage.__name__}", description=stage.__doc__)
    _, *names = inspect.signature(stage).parameters
    for name in names:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True, metavar="PATH")
    return vars(parser.parse_args())


def _end(name: str) -> None:
    """Fail if an input changed while the stage ran, else record the duration of the stage."""
    if not _STAGE:
        return
    now = dvcfile.observed(_STAGE)
    if changed := sorted(key for key in _noted.keys() | now.keys() if _noted.get(key) != now.get(key)):
        sys.exit(f"{name}: {', '.join(changed)} changed while the stage ran: run it again")
    journal.record(_STAGE, _noted, time.monotonic() - _start)
