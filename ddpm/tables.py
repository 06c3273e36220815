"""The small CSV files that stages exchange: curves (train, likelihood, snapshots) and shares of classes."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from io import StringIO
from pathlib import Path

from ddpm import files

_SHARES = ("class", "data", "samples")


@dataclass(frozen=True)
class Share:
    """The share of one class among the training images and among the samples, each from 0 to 1."""

    name: str
    data: float
    samples: float


def write_points(path: Path, points: Iterable[Mapping[str, float]], columns: Sequence[str]) -> None:
    """Write a curve, one line per point. The first column, step or t, holds integers."""
    first, *others = columns
    _write(path, columns, ([int(point[first]), *(point[name] for name in others)] for point in points))


def read_points(path: Path) -> list[dict[str, float]]:
    """Read a curve: its points in order, by column name."""
    return [{name: float(value) for name, value in row.items()} for row in _read(path)]


def write_shares(path: Path, shares: Sequence[Share]) -> None:
    """Write one line per class, or the header alone where there are no classes."""
    _write(path, _SHARES, map(astuple, shares))


def read_shares(path: Path) -> list[Share]:
    """Read the shares in the order of the classes."""
    return [Share(row["class"], float(row["data"]), float(row["samples"])) for row in _read(path)]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
