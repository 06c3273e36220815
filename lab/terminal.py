"""The terminal that a stage can lose: its output, and the signal that it sends."""

import errno
import io
import os
import signal
import sys

_GONE = {errno.EIO, errno.EPIPE}  # of a closed terminal, of a pipe that nobody reads


class _Lasting(io.TextIOWrapper):
    """A text stream that discards all text once nobody can read it."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._discard(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._discard(error)

    def _discard(self, error: OSError) -> None:
        """Lead the file descriptor to nothing, because text that is still buffered is written at the end."""
        if error.errno not in _GONE:
            raise error
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, self.fileno())
        os.close(nothing)


def ending_signals() -> list[signal.Signals]:
    """SIGTERM, and SIGHUP, which a closed terminal sends. An ignored SIGHUP, as under `nohup`, is not in the list."""
    if sys.platform == "win32" or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        return [signal.SIGTERM]
    return [signal.SIGTERM, signal.SIGHUP]


def outlive() -> None:
    """From now on, a closed terminal or a pipe that nobody reads is no error of standard output and error.

    A closed terminal also ends the programs that read a pipe, such as `tee`, and so does Ctrl-C. A stage then saves its
    state, and must not fail at a line that it prints before.
    """
    for name in ("stdout", "stderr"):
        old = getattr(sys, name)
        if old is None:  # the process was started without it
            continue
        settings = {key: getattr(old, key) for key in ("encoding", "errors", "line_buffering", "write_through")}
        setattr(sys, name, _Lasting(old.buffer, **settings))
