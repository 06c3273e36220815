"""The report as Markdown."""

import html
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lab.pages import contents, reproduce
from lab.pages.contents import CAPTIONS, Report


def page(report: Report, folder: Path) -> str:
    """Format the report for a file in `folder`, to which the paths of its pictures are relative."""
    metrics = report.metrics
    parts = [
        "# Report",
        contents.summary(report),
        *[f"> **Warning:** {_cell(warning)}." for warning in report.protocol["warnings"]],
        *[_picture(CAPTIONS[name], os.path.relpath(path, folder)) for name, path in report.pictures.items()],
        "## Metrics",
        f"{contents.extractor(report.protocol)} {contents.NOT_COMPARABLE}",
        metrics_table(metrics),
        *_reported(report),
        *_metrics("distance to the nearest training image in grey levels", contents.of_neighbours(metrics)),
        contents.memorisation(metrics),
        contents.class_balance(metrics),
        *_metrics("negative log likelihood in bits per dimension", contents.of_likelihood(metrics)),
        "## Training",
        contents.training(report.points),
        contents.best_snapshot(metrics),
        "## Parameters",
        _changes(report),
        f"```yaml\n{contents.all_parameters(report)}\n```",
        "## Protocol",
        _table(("", ""), [(f"`{key}`", _cell(value)) for key, value in contents.measured(report)]),
        "## Provenance",
        _table(("", ""), [(key, _cell(value)) for key, value in contents.provenance(report)]),
        *_commands(report),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def metrics_table(metrics: Mapping[str, Any]) -> str:
    """Format the metrics of the extractor as a table. The README has the same."""
    return _metrics("metric", contents.of_extractor(metrics))[0]


def _metrics(title: str, measured: Sequence[tuple[str, str, str]]) -> list[str]:
    rows = [(f"`{name}`", value, description) for name, value, description in measured]
    return [_table((title, "value", "description"), rows)] if rows else []


def _picture(caption: str, path: str) -> str:
    return f"![{caption}]({path})\n\n*{caption}*"


def _reported(report: Report) -> list[str]:
    rows = [
        (f"`{name}`", "not measured" if here is None else contents.number(here), contents.number(there))
        for name, here, there in contents.reported(report)
    ]
    return [_table(("metric", "here", _cell(report.params["reported"]["source"])), rows)] if rows else []


def _changes(report: Report) -> str:
    rows = [(f"`{key}`", _cell(here), _cell(there)) for key, here, there in contents.changes(report)]
    return _table(("parameter", "here", "in `recipes/default.yaml`"), rows) if rows else contents.UNCHANGED


def _commands(report: Report) -> list[str]:
    lines = reproduce.reproduce(report.params, report.defaults)
    instruction = contents.REPRODUCE_FROM_FILE if lines is None else contents.REPRODUCE
    return [instruction, "```bash\n" + "\n".join(lines or ["dvc repro"]) + "\n```"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _cell(text: str) -> str:
    """Escape a text for a table cell. Names of the user's data may contain Markdown and HTML."""
    return re.sub(r"[\\`*_(|]", r"\\\g<0>", html.escape(" ".join(text.splitlines()), quote=False))
