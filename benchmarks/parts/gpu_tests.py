"""The part `tests`: pytest on the tests that need a GPU."""

import importlib.util
import subprocess
import sys

from benchmarks.parts.part import Part
from benchmarks.recipes import ROOT

_SECONDS = 60


def run(part: Part) -> None:
    """Run the files that have such tests, because others may need packages that are not installed."""
    if "pytest -m gpu" in part.rows:
        return
    files = [str(file) for file in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in file.read_text("utf-8")]
    if importlib.util.find_spec("pytest") is None:
        part.add("pytest -m gpu", {"skipped": "pytest is not installed"})
    elif part.device.type != "cuda":
        part.add("pytest -m gpu", {"skipped": f"the device is {part.device.type}"})
    else:
        part.require(_SECONDS)
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", *files]
        result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        print(result.stdout, result.stderr)  # into the log of the part
        *_, last = result.stdout.strip().splitlines() or [f"exit status {result.returncode}"]
        failed = [line for line in result.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
        part.add("pytest -m gpu", {"result": last, **({"failures": failed} if failed else {})})
