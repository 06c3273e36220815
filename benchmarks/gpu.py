"""Measure everything that only a GPU can show, in 25 minutes: in runs of 9 minutes that continue each other.

Each result is written to the folder at once, as JSON and as a line of results.md. The same command again skips
finished rows and continues the others. A part is repeated after its JSON file is removed.

The parts: `peak` of large products, `training-speed` and `sampling-speed` of the paper's CIFAR-10 network, `tests`
(pytest -m gpu), `determinism`, `processes`, and `training`: recipe cifar10-jpeg with samples, a loss curve and
metrics. They need torch, torchvision, numpy, pydantic, safetensors and PyYAML; a picture or metric that needs more is
left out with a reason.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch

from benchmarks import machine, results
from benchmarks.parts import determinism, gpu_tests, several, speeds, training
from benchmarks.parts import part as parts
from benchmarks.parts.part import OutOfTimeError, Part
from benchmarks.recipes import ROOT
from ddpm import device as devices

_MORE_TIME = 3  # exit status of a part that is not complete
_GRACE = 20.0  # seconds after which a part that does not end by itself is killed
_START = 15.0  # seconds that a part needs to begin

_TOTAL, _SHORTEST = 25.0, 5.0  # minutes of all parts, and of the last even if the others took more

# The parts in their order, and the minutes that each may take in all runs together; the last takes those that are left.
PARTS: Mapping[str, tuple[Callable[[Part], None], float]] = {
    "peak": (speeds.peak, 0.5),
    "training-speed": (speeds.training, 7),
    "tests": (gpu_tests.run, 1.5),
    "sampling-speed": (speeds.sampling, 4),
    "determinism": (determinism.run, 2),
    "processes": (several.run, 1.5),
    "training": (training.run, _TOTAL),
}


def run(argv: Sequence[str] | None = None) -> None:
    """Run the parts that are not complete, each in a process of its own, until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("results/gpu"), help="of the results (default results/gpu)")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this run (default 9)")
    parser.add_argument("--device", default="cuda", help="default cuda")
    parser.add_argument("--data", type=Path, metavar="FILE", help="images of the training: cifar10-jpeg.zip")
    parser.add_argument("--miniature", action="store_true", help="tiny sizes, to try the command: a minute on a CPU")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help="only these")
    parser.add_argument("--inside", choices=PARTS, help=argparse.SUPPRESS)  # the part that this process is
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    options.folder = options.folder.resolve()
    if options.inside:
        sys.exit(_run_inside(options))
    device = devices.resolve(options.device)
    until = time.time() + 60 * options.minutes
    results.say(f"{machine.line(machine.describe(device))}; results: {options.folder}")
    for name in options.parts:
        if not parts.is_complete(options.folder, name):
            _start(options, name, until)
    left = [name for name in options.parts if not parts.is_complete(options.folder, name)]
    if (options.folder / "results.md").is_file():
        print((options.folder / "results.md").read_text(encoding="utf-8"))
    print(f"not complete: {', '.join(left)}; run the same command again" if left else "all parts are complete")


def _start(options: argparse.Namespace, name: str, until: float) -> None:
    """Run a part in a process of its own, because an error of CUDA spoils the process that it occurs in."""
    left = until - time.time()
    if left < _START:
        return
    command = [sys.executable, "-m", "benchmarks", "gpu", "--inside", name, "--until", str(until)]
    command += ["--folder", str(options.folder), "--device", options.device]
    command += ["--miniature"] if options.miniature else []
    command += ["--data", str(options.data.resolve())] if options.data else []
    begin = time.time()
    options.folder.mkdir(parents=True, exist_ok=True)
    log = options.folder / f"{name}.log"
    with log.open("a", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)
        try:
            status = process.wait(left + _GRACE)
        except subprocess.TimeoutExpired:
            status = _MORE_TIME
            _end(process)
            part = _part(options, name, until)
            part.earlier += time.time() - begin
            part.give_up()
        finally:
            _end(process)
    if status not in (0, _MORE_TIME):
        *_, last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or [""]
        part = _part(options, name, until)
        part.add("the part", {"failed": f"exit status {status}: {last[:300]}", "log": log.name})
        part.save(complete=True)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of the processes of a part."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _run_inside(options: argparse.Namespace) -> int:
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    function, _ = PARTS[options.inside]
    part = _part(options, options.inside, options.until)
    try:
        function(part)
    except OutOfTimeError as error:
        part.save(complete=error.for_good)
        return 0 if error.for_good else _MORE_TIME
    part.save(complete=True)
    return 0


def _end_with(parent: int) -> None:
    """Kill this process and its children once its parent has ended: nobody would wait for them."""
    while os.getppid() == parent:
        time.sleep(1)
    os.killpg(0, signal.SIGKILL)


def _part(options: argparse.Namespace, name: str, until: float) -> Part:
    limit = 60 * PARTS[name][1]
    if limit == 60 * _TOTAL:
        others = [parts.read(options.folder, other) for other in PARTS if other != name]
        limit = max(limit - sum(found["seconds"] for found in others if found), 60 * _SHORTEST)
    return Part(name, options.folder, torch.device(options.device), until, limit, options.miniature, options.data)


if __name__ == "__main__":
    run()
