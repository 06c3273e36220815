"""The files of curves: reports/train.csv, likelihood.csv, snapshots.csv."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ddpm import atomic


def write(path: Path, points: Sequence[dict[str, float]], columns: Sequence[str]) -> None:
    """One line per point; the first column, step or t, is whole."""
    table = pd.DataFrame(list(points), columns=list(columns)).astype({columns[0]: int})
    atomic.write_text(path, table.to_csv(index=False))


def read(path: Path) -> list[dict[str, float]]:
    """The points, in order."""
    return [{str(key): float(value) for key, value in row.items()} for row in pd.read_csv(path).to_dict("records")]
