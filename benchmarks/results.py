"""What the commands have in common: options, progress, a table on the terminal, and JSON with the machine."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.timing import Spread
from ddpm import device as devices
from ddpm import files
from ddpm.params import Runtime


def parser(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options of every measurement."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=rounds, help=f"rounds that are counted (default {rounds})")
    made.add_argument("--device", default="auto", help="auto (CUDA or the CPU), cpu, cuda or cuda:N (default auto)")
    made.add_argument("--threads", type=int, default=2, help="CPU threads (default 2)")
    made.add_argument("--json", type=Path, metavar="FILE", help="also write the results and the machine to FILE")
    return made


def prepare(runtime: Runtime, device: str, threads: int) -> torch.device:
    """Set up torch as a stage does with `runtime.deterministic: false`, and return the device."""
    changes = {"device": device, "threads": threads, "deterministic": False}
    return devices.prepare(runtime.model_copy(update=changes))


def say(text: str) -> None:
    """Print progress beside the table."""
    print(text, file=sys.stderr, flush=True)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with its first column to the left and all others to the right, as Markdown shows it."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        first, *others = (
            cell.ljust(width) if index == 0 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "| " + " | ".join([first, *others]) + " |"

    rule = "|" + "|".join("-" * (width + 1) + ("-" if index == 0 else ":") for index, width in enumerate(widths)) + "|"
    return "\n".join([line(columns), rule, *map(line, rows)])


def finish(title: str, rows: Mapping[str, Any], printed: str, device: torch.device, path: Path | None) -> None:
    """Print the machine and the table; write the same as JSON to `path`, if there is one."""
    described = machine.describe(device)
    print(f"{title}\n{machine.line(described)}\n\n{printed}", flush=True)
    if path is not None:
        write(path, {"benchmark": title, "machine": described, "results": rows})


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON atomically."""
    files.write_text(path, json.dumps(content, indent=2) + "\n")


def number(value: float) -> str:
    """Three significant digits, and all digits of a large number."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def shown(spread: Spread) -> str:
    """The median and, in brackets, the range of the rounds."""
    return f"{number(spread.median)} ({number(spread.least)} to {number(spread.most)})"


def plain(spread: Spread) -> dict[str, float]:
    """A spread for JSON, with four significant digits."""
    return {name: float(f"{value:.4g}") for name, value in vars(spread).items()}
