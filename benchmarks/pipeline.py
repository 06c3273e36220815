"""Measure the time of every stage of `dvc repro` for a recipe, in a clone that has run nothing.

The clone is of the last commit, without its dvc.lock. The seconds of a stage are those of the journal; the rest is
DVC, Python's imports and the end of the run. `make repro` adds the installation and `ddpm publish`.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import results
from benchmarks.recipes import ROOT
from benchmarks.timing import Spread
from ddpm.errors import UsageError

_TOTAL, _REST = "all", "beside the stages"


def run(argv: Sequence[str] | None = None) -> None:
    """Reproduce the recipe as often as asked and print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="default", help="default: default")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="as after -S of `dvc exp run`")
    parser.add_argument("--rounds", type=int, default=3, help="default 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results and the machine to FILE")
    options = parser.parse_args(argv)
    found: list[dict[str, float]] = []
    for number in range(options.rounds):
        found.append(reproduce(options.recipe, options.set))
        results.say(f"round {number + 1} of {options.rounds}: {found[-1][_TOTAL]:.1f} s")
    rows = {name: results.plain(Spread.of([each[name] for each in found])) for name in found[0]}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    results.finish(f"dvc repro of {options.recipe}", rows, printed(rows), device, options.json)


def reproduce(recipe: str, changes: Sequence[str]) -> dict[str, float]:
    """The seconds of every stage, of the rest, and of all, in a new clone. Raises `UsageError` with DVC's output."""
    with tempfile.TemporaryDirectory() as name:
        clone = Path(name) / "clone"
        subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(clone)], check=True)
        if (ROOT / "data/raw").is_dir():  # datasets that are downloaded already
            shutil.copytree(ROOT / "data/raw", clone / "data/raw", dirs_exist_ok=True)
        (clone / "dvc.lock").unlink(missing_ok=True)
        _call(clone, sys.executable, "-m", "lab.commands.app", "recipe", recipe, "--force")
        if changes:
            _change(clone, changes)
        begin = time.perf_counter()
        _call(clone, sys.executable, "-m", "dvc", "repro")
        whole = time.perf_counter() - begin
        journal = (clone / ".ckpt/journal.jsonl").read_text(encoding="utf-8")
    stages = {line["stage"]: float(line["seconds"]) for line in map(json.loads, journal.splitlines())}
    return {**stages, _REST: whole - sum(stages.values()), _TOTAL: whole}


def _change(clone: Path, changes: Sequence[str]) -> None:
    """Set keys of params.yaml, whose values are YAML."""
    import yaml

    path = clone / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    for change in changes:
        key, _, value = change.partition("=")
        *sections, last = key.split(".")
        section = values
        for each in sections:
            section = section[each]
        section[last] = yaml.safe_load(value)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def _call(folder: Path, *command: str) -> None:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "MLFLOW_"))}
    programs = str(Path(sys.executable).parent) + os.pathsep + kept["PATH"]  # stages run `python`
    own = {"PATH": programs, "PYTHONPATH": str(folder), "DVC_NO_ANALYTICS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    result = subprocess.run(command, cwd=folder, env=kept | own, capture_output=True, text=True)
    if result.returncode:
        raise UsageError(f"{' '.join(command[1:])} failed:\n{(result.stdout + result.stderr)[-3000:]}")


def printed(rows: Mapping[str, Any]) -> str:
    """The table, and the stage that takes most of the time."""
    whole = rows[_TOTAL]["median"]
    cells = [
        [name, f"{row['median']:.1f}", f"{row['least']:.1f} to {row['most']:.1f}", f"{row['median'] / whole:.0%}"]
        for name, row in rows.items()
    ]
    longest = max((name for name in rows if name != _TOTAL), key=lambda name: rows[name]["median"])
    return results.table(["", "seconds", "range", "share"], cells) + f"\n\nlongest: {longest}"


if __name__ == "__main__":
    run()
