"""The start and the end of every stage: arguments, errors, and the check that its inputs did not change.

`note_inputs` takes the digests of all inputs before the code of the stage is imported. DVC takes them after the command
has ended, and so would record code that was edited meanwhile as the source of the output.
"""

import argparse
import inspect
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from tqdm import tqdm

from lab import failures, terminal, watchdog
from lab.experiment import dvcfile, gpus, journal, running

if TYPE_CHECKING:  # a stage imports its code only after `note_inputs`
    import torch

    from ddpm.params import Params, Runtime

_T = TypeVar("_T")
_OTHER = "MASTER_ADDR" in os.environ and os.environ.get("RANK", "0") != "0"  # of several processes, not the first
_STAGE = None if _OTHER else os.environ.get("DVC_STAGE")  # None unless DVC runs the stage
_GO_BACK = (  # DVC has removed the outputs of the stage
    "\nset an allowed value and run again, or go back to the last commit: "
    "git restore params.yaml dvc.lock reports && dvc checkout"
)
_COMPUTING = ("reference", "train", "sample", "evaluate")  # the stages that use runtime.threads and share their work
_FIRST_LINE = 5.0  # seconds until a log has the first line of progress, with the expected time
_LOG_INTERVAL = 30.0  # seconds between two later lines
_LOG_FORMAT = "{desc}: {n_fmt}/{total_fmt}{unit}, {elapsed} elapsed, {remaining} left, {rate_fmt}{postfix}"
_noted: dict[str, Any] = {}
_dog = watchdog.Watchdog()
tqdm.monitor_interval = 0  # no thread of tqdm: Python waits for ever for a thread for which there is no memory
_start = time.monotonic()


class _Bar(tqdm):  # type: ignore[type-arg] # tqdm is generic for type checkers only
    """A progress bar that the watchdog watches while it is open."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._open = True
        _dog.watch(begin=True)

    def update(self, n: float | None = 1) -> bool | None:
        _dog.beat()
        return super().update(n)

    def close(self) -> None:
        if getattr(self, "_open", False):
            self._open = False
            _dog.watch(begin=False)
        super().close()


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
    """Record the parameters of the running stage and the digests of its dependencies.

    From here to `run`, Ctrl-C ends the process at once: it would end in a traceback of the imports.
    """
    if sys.argv[0] == "-m":  # of `python -m stages.NAME`, while Python imports this package for it
        sys.excepthook = _explain
    if _STAGE:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        _noted.update(dvcfile.observed(_STAGE))


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an error outside of `run`, such as while code is imported: one line if it is no bug."""
    from ddpm.errors import UsageError  # here, because a stage imports its code only after `note_inputs`

    known = str(error) if isinstance(error, UsageError) else failures.line(error, "stage")
    if known is None:
        sys.__excepthook__(kind, error, trace)
    else:
        name = next((word for word in sys.orig_argv if word.startswith("stages.")), "stage").removeprefix("stages.")
        print(f"{name}: {known}", file=sys.stderr, flush=True)


class Interrupted(KeyboardInterrupt):
    """Ends a stage after a signal; its text says from where the same command continues."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


def run(stage: Callable[..., None]) -> None:
    """Run a stage with params.yaml and the paths of the command line: one `--name PATH` per parameter of its function.

    The process ends with one message after a `UsageError`, a failure of the machine or an interruption, and, under DVC,
    if an input changed while the stage ran. With `runtime.launcher`, the launcher takes the place of this process and
    starts several that run this function. Then only the message of the process that failed first is printed.
    """
    from ddpm import processes
    from ddpm.errors import UsageError
    from ddpm.params import ParamsError, load
    from lab import launch
    from lab.experiment import remedy, state

    name = stage.__name__
    paths = _paths(stage)
    params: Params | None = None
    terminal.outlive()
    for ending in terminal.ending_signals():
        signal.signal(ending, _interrupt)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if processes.launched():
        launch.end_with_launcher()
    state.remember_verified(dvcfile.ROOT)
    try:
        params = load(dvcfile.PARAMS)
        launcher = params.runtime.launcher
        if name in _COMPUTING and launcher and not processes.launched():
            launch.start_again(launcher, f"stages.{name}", params.runtime.threads)
        elif name in _COMPUTING or processes.rank() == 0:
            minutes = None if _OTHER else params.runtime.stall_minutes  # only process 0 counts its progress
            hangs = _dog.guarding(name, minutes, watchdog.end)
            with hangs, _sharing_cores(name, params.runtime), _placed(name, params) as placed:
                _check_capacity(name, placed)
                stage(placed, **paths)
        processes.leave()
    except UsageError as error:
        way_back = _GO_BACK * (isinstance(error, ParamsError) and _in_workspace())
        message = f"{_who(name)}: {error}{remedy.of(error)}{way_back}"
        _fail(message if processes.first_to_fail(error) else "")
    except KeyboardInterrupt as interrupt:
        end_interrupted(name, interrupt)
    except Exception as error:
        known = failures.line(error, name, params.model_dump() if params else None) or traceback.format_exc()
        _fail(f"{_who(name)}: {known}" if processes.first_to_fail(error) else "")
    _end(name)


def end_interrupted(name: str, interrupt: KeyboardInterrupt) -> NoReturn:
    """End the process with one line, and with the exit status of the signal."""
    number = interrupt.number if isinstance(interrupt, Interrupted) else signal.SIGINT
    how = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    message = "; ".join([f"{name}: {how}", *map(str, interrupt.args)])
    _fail("" if _OTHER else message, 128 + number)


def _fail(message: str, status: int = 1) -> NoReturn:
    """End the process with a message; DVC then records nothing."""
    if message:
        print(message, file=sys.stderr, flush=True)
    for number in terminal.ending_signals():  # the launcher ends all processes as soon as one has failed
        signal.signal(number, signal.SIG_DFL)
    sys.exit(status)


def _who(name: str) -> str:
    from ddpm import processes

    return f"{name}: process {processes.rank()}" if processes.rank() else name


def _interrupt(number: int, _: object) -> None:
    raise Interrupted(number)


@contextmanager
def signals_deferred() -> Iterator[Callable[[], int]]:
    """Defer SIGTERM, SIGHUP and the first Ctrl-C; yield a function that returns the first signal that came, or 0.

    Several count as one: Slurm sends SIGTERM to a launcher and to its processes, and the launcher sends it on. A closed
    terminal and its shell both send SIGHUP.
    """
    received = 0

    def note(number: int, _: object) -> None:
        nonlocal received
        if received and number == signal.SIGINT:
            raise Interrupted(number)
        received = received or number

    before = {number: signal.signal(number, note) for number in (*terminal.ending_signals(), signal.SIGINT)}
    try:
        yield lambda: received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _sharing_cores(name: str, runtime: "Runtime") -> Iterator[None]:
    """Print a warning if this stage and those that already run have more threads than there are cores."""
    from ddpm import device, processes

    local = processes.local_size()
    if name not in _COMPUTING or processes.local_rank() or device.resolve(runtime.device, 0, local).type != "cpu":
        yield
        return
    threads = runtime.threads * local
    with running.announced(threads) as others:
        if advice := running.advice(threads, others):
            print(f"{name}: {advice}", file=sys.stderr, flush=True)
        yield


@contextmanager
def _placed(name: str, params: "Params") -> Iterator["Params"]:
    """Take the GPUs of the stage; yield the parameters with the device of this process."""
    from ddpm import processes

    if name not in _COMPUTING or processes.local_rank():  # the first process of a machine takes the GPUs of all
        yield params
        return
    with gpus.taken(params.runtime.device, processes.local_size()) as device:
        yield params.model_copy(update={"runtime": params.runtime.model_copy(update={"device": device})})


def _check_capacity(name: str, params: "Params") -> None:
    """Raise `UsageError` if memory or disk plainly cannot suffice for the stage."""
    from ddpm import device, processes
    from lab import capacity

    if processes.rank() == 0:
        local = processes.local_size()
        capacity.check(name, params, device.resolve(params.runtime.device, 0, local), local)


def say(text: str) -> None:
    """Print a line to standard error, on process 0 only."""
    if not _OTHER:
        print(text, file=sys.stderr, flush=True)


def bar(description: str, total: int, unit: str, done: int = 0) -> "tqdm[Any]":
    """Create a progress bar, whose method `update` serves as `progress`. `done` units are done already.

    Without a terminal, as in the log of a queue, it writes a line after 5 seconds, one every 30 seconds, and the last.
    It writes nothing if all units are done already.
    """
    terminal = sys.stderr.isatty()
    return _Bar(
        total=total,
        initial=done,
        desc=description,
        unit=f" {unit}",
        mininterval=1,
        miniters=1,
        file=None if terminal else _Log(),
        disable=_OTHER or 0 < total == done,
        bar_format=None if terminal else _LOG_FORMAT,
    )


def beating(function: Callable[..., _T]) -> Callable[..., _T]:
    """The function, of which each call is progress for the watchdog."""
    return _dog.beating(function)


def compiles(name: str, runtime: "Runtime", where: "torch.device", parameters: int, passes: int) -> bool:
    """Whether stage `name` compiles a network, by `ddpm.device.compilation`; prints the reason unless it is off."""
    from ddpm.device import compilation

    decision = compilation(runtime.compile, where, parameters, passes)
    if runtime.compile:
        say(f"{name}: {decision.reason}")
    return decision.chosen


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
