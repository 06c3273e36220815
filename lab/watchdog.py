"""Ends a stage that hangs: one whose progress bar is open, but which finishes no step and no image for a long time.

The exit status is `STATUS`, that of timeout(1), so that a script can start the same command again. A hang in code that
holds Python's interpreter lock is not noticed.
"""

import faulthandler
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

STATUS = 124
_LOOKS = 20  # per limit: the time in which the system has stopped the process counts as one look
_T = TypeVar("_T")


class Watchdog:
    """Counts the progress of a stage, and ends the process if there is none for too long."""

    def __init__(self) -> None:
        self._progress = 0
        self._watched = 0  # open progress bars

    @contextmanager
    def guarding(self, name: str, minutes: float | None, end: Callable[[str], object]) -> Iterator[None]:
        """Call `end` with a message, in a thread, once nothing has happened for so many minutes; None: never."""
        done = threading.Event()
        if minutes is not None:
            threading.Thread(target=self._guard, args=(name, minutes, end, done), daemon=True, name="watchdog").start()
        try:
            yield
        finally:
            done.set()

    def beat(self) -> None:
        """Count some progress."""
        self._progress += 1

    def watch(self, begin: bool) -> None:
        """Begin to watch for progress, or end it."""
        self._watched += 1 if begin else -1
        self.beat()

    def beating(self, function: Callable[..., _T]) -> Callable[..., _T]:
        """The function, of which each call counts as progress."""

        def counted(*args: Any, **kwargs: Any) -> _T:
            self.beat()
            return function(*args, **kwargs)

        return counted

    def _guard(self, name: str, minutes: float, end: Callable[[str], object], done: threading.Event) -> None:
        quiet, seen = 0, self._progress
        while quiet < _LOOKS:
            if done.wait(60 * minutes / _LOOKS):
                return
            quiet = quiet + 1 if self._watched and seen == self._progress else 0
            seen = self._progress
        end(
            f"{name}: hangs: no step and no image for {minutes:g} minutes (runtime.stall_minutes). The stacks of all "
            "threads are above; the same command continues from what is kept"
        )


def end(message: str) -> None:
    """Print the stacks of all threads and the message, and end the process without waiting for any thread."""
    sys.stderr.flush()
    faulthandler.dump_traceback(all_threads=True)
    print(message, file=sys.stderr, flush=True)
    os._exit(STATUS)
