"""The small CSV files that stages exchange: curves (train, likelihood, snapshots) and shares of classes."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from io import StringIO
from pathlib import Path

_SHARES = ("class", "data", "samples")
_AGREEMENT = "agreement"  # a column only where it is measured


@dataclass(frozen=True)
class Share:
    """The share of one class among the training images and among the samples, each from 0 to 1.

    `agreement` is the share of the samples with this label that the classifier assigns to it; None if there are none.
    """

    name: str
    data: float
    samples: float
    agreement: float | None = None


def write_points(path: Path, points: Iterable[Mapping[str, float]], columns: Sequence[str]) -> None:
    """Write a curve, one line per point. The first column, step or t, holds integers."""
    first, *others = columns
    _write(path, columns, ([int(point[first]), *(point[name] for name in others)] for point in points))


def read_points(path: Path) -> list[dict[str, float]]:
    """Read the points of a curve by column name."""
    return [{name: float(value) for name, value in row.items()} for row in _read(path)]


def write_shares(path: Path, shares: Sequence[Share]) -> None:
    """Write one line per class. Without classes the file is only a header.

    There is a column for the agreement if any class has one.
    """
    measured = any(share.agreement is not None for share in shares)
    columns = (*_SHARES, _AGREEMENT) if measured else _SHARES
    _write(path, columns, (astuple(share)[: len(columns)] for share in shares))


def read_shares(path: Path) -> list[Share]:
    """Read the shares of the classes in their order."""
    return [
        Share(row["class"], float(row["data"]), float(row["samples"]), float(cell) if cell else None)
        for row in _read(path)
        for cell in (row.get(_AGREEMENT),)
    ]


def _write(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    from ddpm import files  # imports torch, which readers of these files need not wait for

    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
