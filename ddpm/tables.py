"""The small CSV files that stages exchange: curves (train, likelihood, snapshots) and shares of classes."""

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from io import StringIO
from pathlib import Path

from ddpm.errors import FileError

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


def read_points(path: Path, columns: Sequence[str] = ()) -> list[dict[str, float]]:
    """Read the points of a curve by column name.

    Raises `FileError` if the file is not a table of numbers with at least the given columns.
    """
    points = []
    for line, row in _read(path, columns):
        point = {name: _number(path, line, name, value) for name, value in row.items()}
        first = next(iter(point))
        if not math.isfinite(point[first]):
            raise FileError(f"{path}, line {line}: {first} = {point[first]} must be finite", path)
        points.append(point)
    return points


def write_shares(path: Path, shares: Sequence[Share]) -> None:
    """Write one line per class. Without classes the file is only a header.

    There is a column for the agreement if any class has one.
    """
    measured = any(share.agreement is not None for share in shares)
    columns = (*_SHARES, _AGREEMENT) if measured else _SHARES
    _write(path, columns, (astuple(share)[: len(columns)] for share in shares))


def read_shares(path: Path) -> list[Share]:
    """Read the shares of the classes in their order. Raises `FileError` for another table."""
    shares = []
    for line, row in _read(path, _SHARES):
        cells = {name: value for name, value in row.items() if name != "class" and (value or name != _AGREEMENT)}
        numbers = {name: _number(path, line, name, value) for name, value in cells.items()}
        shares.append(Share(row["class"], numbers["data"], numbers["samples"], numbers.get(_AGREEMENT)))
    return shares


def _write(path: Path, columns: Sequence[str], rows: Iterable[Iterable[object]]) -> None:
    from ddpm import files  # imports torch, which readers of these files need not wait for

    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    files.write_text(path, text.getvalue())


def _read(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the number of each line of a table, and its cells by column."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if missing := [name for name in columns if name not in (reader.fieldnames or ())]:
                raise FileError(f"{path} has no column {', '.join(missing)}", path)
            for row in reader:
                if None in row or None in row.values():  # csv's names for cells without a column, and the reverse
                    raise FileError(
                        f"{path}, line {reader.line_num}: must have {len(reader.fieldnames or ())} cells", path
                    )
                yield reader.line_num, row
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror}", path) from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(f"{path} is not a CSV file: {error}", path) from error


def _number(path: Path, line: int, name: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise FileError(f"{path}, line {line}: {name} = {value!r} must be a number", path) from None
