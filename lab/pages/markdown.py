"""The report as Markdown, reports/report.md."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.pages import contents, reproduce
from lab.pages.contents import CAPTIONS, Report
from lab.pages.templates import cell, render


def page(report: Report, folder: Path) -> str:
    """Render the report for a file in `folder`, to which the paths of its pictures are relative."""
    return render(
        "markdown.html",
        report=report,
        contents=contents,
        changes=contents.changes(report),
        pictures={CAPTIONS[name]: os.path.relpath(path, folder) for name, path in report.pictures.items()},
        commands=reproduce.reproduce(report.params, report.defaults),
        table=table,
        metrics_table=metrics_table,
    )


def metrics_table(metrics: Mapping[str, Any], protocol: Mapping[str, Any]) -> str:
    """Format the metrics of the extractor and the losses as a table. The README has the same."""
    return table(("metric", "value", "description"), contents.main_metrics(metrics, protocol))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], mark: str = "`") -> str:
    """Format a table. `mark` encloses the first cell of each row; cells that it does not enclose are escaped."""
    marked = [[f"{mark}{key}{mark}" if mark else cell(key), *map(cell, others)] for key, *others in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [map(cell, head), ["---"] * len(head), *marked])
