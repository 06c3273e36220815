"""Compare the experiments in MLflow: a table in the terminal, a CSV file, a page."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

from ddpm.errors import UsageError
from lab.pages import comparison
from lab.tracking import store
from lab.tracking.records import Records

_GAP = 2  # between columns
_UNLIMITED = 100_000  # columns of text, where the output is no terminal


def collect(records: Records, names: Sequence[str], metrics: Sequence[str]) -> comparison.Table:
    """The table of the experiments with these names, or of all. Raises `UsageError` where there are none."""
    experiments = records.experiments()
    if not experiments:
        raise UsageError(
            f"no experiment is tracked as {records.group} in {store.masked(records.uri)}: "
            f"run one with `dvc repro`, or publish those that DVC keeps with `ddpm publish --all`"
        )
    chosen = comparison.select(experiments, names)
    comparison.check_metrics(chosen, metrics)
    return comparison.compare(chosen, metrics)


@dataclass(frozen=True)
class _Column:
    head: str
    cells: Sequence[Text]
    right: bool = False

    @property
    def width(self) -> int:
        return _GAP + max(cell_len(part) for part in [*self.head.split("\n"), *(cell.plain for cell in self.cells)])


def show(table: comparison.Table, console: Console) -> None:
    """Print the table; on a terminal with the parameters that fit, and the names of the others."""
    if not console.is_terminal:
        console = Console(file=console.file, width=_UNLIMITED)
    names = _Column("experiment", [Text(text) for text in _named(table)])
    metrics = [_metric(key, cells) for key, cells in table.metrics.items()]
    shown, hidden = _fitting(table.params, console.width - sum(column.width for column in [names, *metrics]))
    _print(console, [names, *shown, *metrics])
    for note in _remarks(table, hidden):
        console.print(Text(note), soft_wrap=not console.is_terminal)


def _named(table: comparison.Table) -> Iterator[str]:
    """The names, with the status of experiments that are not finished."""
    for name, one in zip(table.names, table.experiments, strict=True):
        yield name if one.status == "finished" else f"{name} ({one.status})"


def _metric(key: str, cells: Sequence[comparison.Cell]) -> _Column:
    texts = [Text(f"{cell.text}*", style="bold green") if cell.best else Text(f"{cell.text} ") for cell in cells]
    return _Column(_head(key), texts, right=True)


def _fitting(params: Mapping[str, Sequence[str]], room: int) -> tuple[list[_Column], list[str]]:
    """The columns that fit into `room` characters, and the keys of those that do not."""
    shown: list[_Column] = []
    hidden: list[str] = []
    for key, values in params.items():
        column = _Column(_head(key), [Text(value) for value in values])
        if column.width > room:
            hidden.append(key)
            continue
        room -= column.width
        shown.append(column)
    return shown, hidden


def _head(key: str) -> str:
    """A dotted key with one part per line: a column is often narrower than its key."""
    return key.replace(".", ".\n")


def _print(console: Console, columns: Sequence[_Column]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP, 0, 0), show_edge=False)
    for column in columns:
        side: JustifyMethod = "right" if column.right else "left"
        table.add_column(Text(column.head), justify=side, vertical="bottom", overflow="fold")
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*row)
    console.print(table)


def _remarks(table: comparison.Table, hidden: Sequence[str]) -> Iterator[str]:
    if any(cell.best for cells in table.metrics.values() for cell in cells):
        yield "* the best"
    if hidden:
        yield f"There is no room for {', '.join(hidden)}, which differ too: --csv and --html show them."
    yield from table.notes


def csv(table: comparison.Table) -> str:
    """The table as CSV, a line per experiment: the parameters that differ and every metric, with all digits."""
    metrics = sorted({key for one in table.experiments for key in one.metrics})
    rows = [
        {
            "experiment": name,
            "fingerprint": one.fingerprint,
            "status": one.status,
            "started": datetime.fromtimestamp(one.started, UTC).isoformat(timespec="seconds"),
            **{key: _encoded(one.params[key]) if key in one.params else None for key in table.params},
            **{key: one.metrics.get(key) for key in metrics},
        }
        for name, one in zip(table.names, table.experiments, strict=True)
    ]
    return pd.DataFrame(rows).to_csv(index=False)


def page(table: comparison.Table, records: Records, sorted_by: str | None) -> str:
    """The page of the table, with the samples and the loss curves of the first experiments."""
    from lab.pages import comparison_page

    shown = table.experiments[: comparison_page.MOST]
    with tempfile.TemporaryDirectory() as folder:
        drawn = [
            comparison_page.Drawn(records.loss(one.id), records.samples(one.id, Path(folder, one.id))) for one in shown
        ]
        return comparison_page.page(table, drawn, sorted_by)


def _encoded(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
