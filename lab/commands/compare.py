"""Compare the experiments in MLflow: a table in the terminal, a CSV file, a page."""

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from csv import writer as csv_writer
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import measure_renderables
from rich.table import Table
from rich.text import Text

from ddpm.errors import UsageError
from lab.pages import comparison
from lab.tracking.records import Records

_GAP = 3  # between columns: two of padding and one of the box
_UNLIMITED = 100_000  # columns of text, where the output is no terminal


def collect(records: Records, names: Sequence[str], metrics: Sequence[str]) -> comparison.Table:
    """The table of the experiments with these names, or of all. Raises `UsageError` if there are none."""
    experiments = records.experiments()
    if not experiments:
        raise UsageError(records.no_runs())
    chosen = comparison.select(experiments, names)
    comparison.check_metrics(chosen, metrics)
    return comparison.compare(chosen, metrics)


def show(table: comparison.Table, console: Console) -> None:
    """Print the table. On a terminal, parameters that do not fit are listed by name.

    Parameters with the most different values come first when the room is divided.
    """
    if not console.is_terminal:
        console = Console(file=console.file, width=_UNLIMITED)

    def width(column: Sequence[Text]) -> int:
        return _GAP + measure_renderables(console, console.options, column).maximum

    statuses = ["" if one.status == "finished" else f" ({one.status})" for one in table.experiments]
    names = [Text(name + status) for name, status in zip(table.names, statuses, strict=True)]
    first = _column("experiment", names)
    metrics = [_column(key, map(_marked, cells)) for key, cells in table.metrics.items()]
    room = console.width + _GAP - sum(map(width, [first, *metrics]))
    params = {key: _column(key, map(Text, values)) for key, values in table.params.items()}
    shown = set()
    for key in sorted(params, key=lambda key: -len(set(table.params[key]))):
        if width(params[key]) <= room:
            room -= width(params[key])
            shown.add(key)
    hidden = [key for key in params if key not in shown]
    console.print(_laid_out([first, *(params[key] for key in params if key in shown)], metrics))
    for note in _notes(table, hidden):
        console.print(Text(note), soft_wrap=not console.is_terminal)


def _column(key: str, cells: Iterable[Text]) -> list[Text]:
    """A head and its cells. The head has a line for each part of the key, because values are often narrower."""
    return [Text(key.replace(".", ".\n")), *cells]


def _marked(cell: comparison.Cell) -> Text:
    return Text(f"{cell.text}*", "bold green") if cell.best else Text(f"{cell.text} ")


def _laid_out(left: Sequence[Sequence[Text]], right: Sequence[Sequence[Text]]) -> Table:
    """A table of columns that are aligned left and then of columns that are aligned right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _GAP - 1, 0, 0), show_edge=False)
    for head, *_ in left:
        table.add_column(head, vertical="bottom", overflow="fold")
    for head, *_ in right:
        table.add_column(head, vertical="bottom", overflow="fold", justify="right")
    _, *rows = zip(*left, *right, strict=True)
    for row in rows:
        table.add_row(*row)
    return table


def _notes(table: comparison.Table, hidden: Sequence[str]) -> Iterator[str]:
    if table.has_best():
        yield "* the best"
    if hidden:
        yield f"Not shown, although they differ: {', '.join(hidden)}. Use --csv or --html."
    yield from table.notes


def csv(table: comparison.Table) -> str:
    """The table as CSV, a line per experiment: the parameters that differ and every metric, with all digits."""
    metrics = sorted({key for one in table.experiments for key in one.metrics})
    text = StringIO()
    writer = csv_writer(text, lineterminator="\n")
    writer.writerow(["experiment", "fingerprint", "status", "started", *table.params, *metrics])
    for name, one in zip(table.names, table.experiments, strict=True):
        started = datetime.fromtimestamp(one.started, UTC).isoformat(timespec="seconds")
        params = [_exact(one.params.get(key, "")) for key in table.params]
        writer.writerow([name, one.fingerprint, one.status, started, *params, *map(one.metrics.get, metrics)])
    return text.getvalue()


def page(table: comparison.Table, records: Records, sorted_by: str | None) -> str:
    """The page of the table, with the samples and the loss curves of the first experiments."""
    from lab.pages import comparison_page

    ids = [one.id for one in table.experiments[: comparison_page.MOST]]
    with tempfile.TemporaryDirectory() as folder:
        drawn = [comparison_page.Drawn(records.loss(id), records.samples(id, Path(folder, id))) for id in ids]
        return comparison_page.page(table, drawn, sorted_by)


def _exact(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
