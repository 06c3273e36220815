"""A part of the measurements on a GPU: its rows on disk, and the time that it has."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine, recipes, results
from ddpm import files
from ddpm.params import Params

_MINIATURE = {  # a network of a few thousand weights
    "network.channels": 8,
    "network.multipliers": [1, 2],
    "network.blocks": 1,
    "network.groups": 4,
    "runtime.threads": 1,
    "evaluate.classifier": {"channels": 4, "steps": 10, "batch_size": 16, "learning_rate": 2.0e-3},
}


class OutOfTimeError(Exception):
    """The part has no time left: in this run, or, if `for_good`, of its share of the total."""

    def __init__(self, for_good: bool) -> None:
        super().__init__()
        self.for_good = for_good


@dataclass
class Part:
    """A part that is under way. A row is a result by its name; every row is on disk as soon as it is known."""

    name: str
    folder: Path
    device: torch.device
    until: float  # the time, as of `time.time`, at which this run must end
    limit: float  # seconds that the part may take in all runs together
    miniature: bool
    data: Path | None
    begin: float = field(default_factory=time.time)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    earlier: float = 0.0  # seconds of earlier runs
    under_way: str | None = None  # the row that is measured now

    def __post_init__(self) -> None:
        if found := read(self.folder, self.name):
            self.rows, self.earlier = dict(found["rows"]), found["seconds"]

    @property
    def seconds(self) -> float:
        """The seconds of all runs."""
        return self.earlier + time.time() - self.begin

    def left(self) -> float:
        """The seconds that are left to this run."""
        return min(self.until - time.time(), self.limit - self.seconds)

    def require(self, seconds: float) -> None:
        """Raise `OutOfTimeError` unless so many seconds are left. A miniature needs none."""
        if not self.miniature and self.left() < seconds:
            raise OutOfTimeError(self.limit - self.seconds < seconds)

    def start(self, row: str, seconds: float) -> None:
        """Note a row that is under way, if so many seconds are left; see `require`."""
        self.require(seconds)
        self.under_way = row
        self.save(complete=False)

    def give_up(self) -> None:
        """Write that the row under way did not end in time, so that no later run waits for it again."""
        found = read(self.folder, self.name) or {}
        if row := found.get("under_way"):
            self.add(row, {"failed": "it did not end in time"})

    def add(self, row: str, result: Mapping[str, Any]) -> None:
        """Write a result at once."""
        self.rows[row] = dict(result)
        self.under_way = None
        self.save(complete=False)
        results.say(f"{self.name}, {row}: {_shown(result)}")

    def save(self, complete: bool) -> None:
        """Write the rows, and the summary of all parts."""
        content = {
            "part": self.name,
            "complete": complete,
            "under_way": self.under_way,
            "seconds": round(self.seconds, 1),
            "machine": machine.describe(self.device),
            "rows": self.rows,
        }
        results.write(path(self.folder, self.name), content)
        summarise(self.folder)

    def params(self, changes: Mapping[str, Any], recipe: str = "ho2020-cifar10") -> Params:
        """The settings of a recipe, with a tiny network in a miniature."""
        return params(self.miniature, changes, recipe)


def params(miniature: bool, changes: Mapping[str, Any], recipe: str = "ho2020-cifar10") -> Params:
    """The settings of a recipe, with a tiny network in a miniature."""
    return recipes.settings(recipe, {**(_MINIATURE if miniature else {}), **changes})


def path(folder: Path, name: str) -> Path:
    """The file of a part's rows."""
    return folder / f"{name}.json"


def read(folder: Path, name: str) -> dict[str, Any] | None:
    """The file of a part, or None if it has none yet."""
    file = path(folder, name)
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def is_complete(folder: Path, name: str) -> bool:
    """Whether a part has nothing more to do."""
    found = read(folder, name)
    return bool(found and found["complete"])


def summarise(folder: Path) -> None:
    """Write results.md from the files of all parts."""
    sections = []
    where = ""
    for file in sorted(folder.glob("*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        where = machine.line(found["machine"])
        lines = [f"- {name}: {_shown(row)}" for name, row in found["rows"].items()]
        if not found["complete"]:
            lines.append("- not complete: run the same command again")
        sections.append("\n".join([f"## {found['part']}", "", *lines]))
    text = "\n\n".join(["# Measured by `python -m benchmarks gpu`", where, *sections])
    files.write_text(folder / "results.md", text + "\n")


def _shown(row: Mapping[str, Any]) -> str:
    return "; ".join(f"{key.replace('_', ' ')} {_value(value)}" for key, value in row.items())


def _value(value: object) -> str:
    return results.number(value) if isinstance(value, float) else str(value)
