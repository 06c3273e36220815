"""The file of class shares: reports/classes.csv."""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import pandas as pd

from ddpm import atomic

_COLUMNS = ("class", "data", "samples")


@dataclass(frozen=True)
class Share:
    """How much of the images is of one class, 0 to 1."""

    name: str
    data: float
    samples: float


def write(path: Path, shares: Sequence[Share]) -> None:
    """One line per class; a heading alone where nobody has looked at classes."""
    table = pd.DataFrame([astuple(share) for share in shares], columns=list(_COLUMNS))
    atomic.write_text(path, table.to_csv(index=False))


def read(path: Path) -> list[Share]:
    """The shares, in the order of the classes; any name is one, NA too."""
    table = pd.read_csv(path, dtype={"class": str, "data": float, "samples": float}, keep_default_na=False)
    return [Share(*row) for row in table.itertuples(index=False)]
