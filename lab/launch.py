"""Start a stage again under `runtime.launcher`, which starts several processes of it.

The launcher `torchrun` is this module: torchrun of the same Python, without its own traceback after an error, because
the stage has already printed the error.
"""

import ctypes
import logging
import os
import shlex
import shutil
import signal
import sys

from ddpm.errors import UsageError
from lab import terminal

_TORCHRUN = (sys.executable, "-m", "lab.launch")


def start_again(launcher: str, module: str, threads: int) -> None:
    """Replace this process by the launcher, which runs `python -m module` with the arguments of this process.

    Variables of the environment such as $SLURM_NNODES are expanded. Raises `UsageError` if there is no such program.
    """
    command = [
        word
        for part in shlex.split(os.path.expandvars(launcher))
        for word in (_TORCHRUN if part == "torchrun" else (part,))
    ]
    if shutil.which(command[0]) is None:
        raise UsageError(f"runtime.launcher = {launcher!r}: there is no program {command[0]!r}")
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # else torchrun sets 1, with a warning
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(command[0], [*command, "-m", module, *sys.argv[1:]])


def end_with_launcher() -> None:
    """Let the system send SIGTERM to this process when its launcher has been killed. Only Linux can."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _torchrun() -> int:
    """Run torchrun with the arguments of this process; return its exit status."""
    # After a restart, processes could read addresses of the last attempt from a store that attempts share.
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    # Without a list, torchrun also handles a SIGHUP that `nohup` lets it ignore.
    ending = [*terminal.ending_signals(), signal.SIGINT]
    if sys.platform != "win32":
        ending.append(signal.SIGQUIT)
    os.environ.setdefault("PET_SIGNALS_TO_HANDLE", ",".join(number.name for number in ending))
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.disable(logging.ERROR)  # it logs how each process ended
    try:
        run.main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode >= 0:
            return failure.exitcode
        name = failure.signal_name()
        memory = ", as the system does when memory runs out" * (name == "SIGKILL")
        print(f"process {rank} was ended by {name}{memory}", file=sys.stderr)
        return 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(_torchrun())
