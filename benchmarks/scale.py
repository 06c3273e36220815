"""Measure a training step that 1, 2 and 4 processes share, with a fixed number of images in all.

Each row compares the tree of gradients (runtime.deterministic: true) with DistributedDataParallel (false). The
overhead of the tree is its step, less a step in which the processes wait for each other and exchange nothing, less the
time to send and receive as many numbers and do nothing else, as a share of the step. The threads are divided among the
processes. The bytes of the weights are compared with those of one process with as many threads as each of several has,
because threads affect rounding.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import recipes, results, timing
from benchmarks.recipes import ROOT
from benchmarks.timing import Spread
from ddpm.errors import UsageError

Found = dict[tuple[int, int], list[dict[str, Any]]]  # results by the number of processes and the threads of each

_PRECISIONS = {"digits": "fp32", "cifar10": "bf16"}


def run(argv: Sequence[str] | None = None) -> None:
    """Start the processes in turns, so that a change of the machine's speed meets all numbers of processes."""
    parser = results.parser(__doc__, rounds=3)
    parser.add_argument("--network", choices=recipes.SIZES, default="cifar10", help="default cifar10")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4], help="powers of two (default 1 2 4)")
    parser.add_argument("--batch", type=int, help="images in all (default: digits 64; cifar10 16, on a GPU 128)")
    parser.add_argument("--accumulate", type=int, help="micro-batches (default: the largest number of processes)")
    parser.add_argument("--calls", type=int, help="steps of each case (default: digits 20, cifar10 2)")
    options = parser.parse_args(argv)
    size = recipes.SIZES[options.network]
    device = results.prepare(recipes.settings(size.recipe, {}).runtime, options.device, options.threads)
    options.device = device.type
    options.batch = options.batch or size.batch(device)
    options.accumulate = options.accumulate or max(options.processes)
    options.calls = options.calls or (2 if options.network == "cifar10" and device.type == "cpu" else 20)
    layouts = sorted({(count, max(options.threads // count, 1)) for count in {1, *options.processes}})
    layouts = sorted({*layouts, *((1, threads) for _, threads in layouts)}, key=lambda each: (each[0], -each[1]))
    found: Found = {layout: [] for layout in layouts}
    for number in range(options.rounds):
        for layout in layouts if number % 2 else reversed(layouts):
            found[layout].append(measure(options, *layout))
        results.say(f"round {number + 1} of {options.rounds}")
    rows = {f"{count} x {threads}": row(found, count, threads) for count, threads in layouts}
    title = f"{options.network}, {options.batch} images a step in {options.accumulate} micro-batches"
    results.finish(f"scale: {title}", rows, printed(rows), device, options.json)


def measure(options: argparse.Namespace, count: int, threads: int) -> dict[str, Any]:
    """The median seconds of each case with a number of processes, and the digest of the weights.

    Raises `UsageError` with the first error of the processes.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seconds.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
        command += ["-m", "benchmarks.shared_step", "--network", options.network]
        command += ["--precision", _PRECISIONS[options.network], "--rounds", "2", "--json", str(path)]
        command += ["--threads", str(threads)]
        for name in ("device", "batch", "accumulate", "calls"):
            command += [f"--{name}", str(getattr(options, name))]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if result.returncode:
            errors = re.findall(r"(?m)^(?:.*: )?[\w.]*Error: .*", result.stderr) or [result.stderr.strip()[-500:]]
            raise UsageError(f"{count} processes on {options.device}: {errors[0]}")
        found = json.loads(path.read_text(encoding="utf-8"))
    seconds = {name: Spread.of(values).median for name, values in found["seconds"].items()}
    return {"seconds": seconds, "digest": found["digest"]}


def row(found: Found, count: int, threads: int) -> dict[str, Any]:
    """The result of a number of processes, each time as its spread over the rounds."""
    mine = found[count, threads]
    names = mine[0]["seconds"]
    made: dict[str, Any] = {
        f"{name} ms": results.plain(Spread.of([1e3 * each["seconds"][name] for each in mine])) for name in names
    }
    first = next(iter(found))  # one process with all threads
    both = timing.Durations({"mine": _steps(mine), "one": _steps(found[first])})
    made["times_one_process"] = results.plain(both.ratio("mine", "one"))
    made["same_bytes"] = {each["digest"] for each in [*mine, *found[1, threads]]} == {mine[0]["digest"]}
    if count > 1:
        made["overhead_of_tree"] = results.plain(Spread.of([overhead(each["seconds"]) for each in mine]))
    return made


def _steps(found: list[dict[str, Any]]) -> list[float]:
    return [each["seconds"]["tree"] for each in found]


def overhead(seconds: dict[str, float]) -> float:
    """The share of a step that the tree takes beyond the exchange itself."""
    return (seconds["tree"] - seconds["waiting only"] - seconds["exchange alone"]) / seconds["tree"]


def printed(rows: dict[str, dict[str, Any]]) -> str:
    """The table of the medians."""
    names = max((list(row) for row in rows.values()), key=len)
    cells = [[count, *(_cell(row.get(name)) for name in names)] for count, row in rows.items()]
    return results.table(["processes x threads", *(name.replace("_", " ") for name in names)], cells)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value['median']:.3g}" if isinstance(value, dict) else ("yes" if value else "NO")


if __name__ == "__main__":
    run()
