"""Experiments side by side as a page: the table, their samples, their loss curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.pages import embed, plots, templates
from lab.pages.comparison import Table
from lab.pages.embed import Picture

MOST = 20  # experiments that are drawn: so many curves can still be told apart
_PICTURES = 1_900_000  # bytes of all embedded files; with their encoding and the table, the page stays below 3 MB
_POINTS = 200  # of a curve: as many as the plot is wide, more or less


@dataclass(frozen=True)
class Drawn:
    """What is drawn of an experiment: as many points of its loss as it has, and a file with a grid of its samples."""

    loss: Sequence[tuple[int, float]]  # steps and values
    samples: Path | None


def page(table: Table, drawn: Sequence[Drawn], sorted_by: str | None) -> str:
    """The page; `drawn` belongs to the first experiments of the table."""
    names = table.names[: len(drawn)]
    pictures = dict(_fitting({name: one.samples for name, one in zip(names, drawn, strict=True) if one.samples}))
    return templates.render(
        "comparison.html",
        table=table,
        order=f"by {sorted_by}" if sorted_by else "the newest first",
        drawn=len(drawn),
        pictures=pictures,
        too_large=[name for name, one in zip(names, drawn, strict=True) if one.samples and name not in pictures],
        without_samples=[name for name, one in zip(names, drawn, strict=True) if not one.samples],
        headlines=headlines(table),
        curves=curves({name: one.loss for name, one in zip(names, drawn, strict=True) if one.loss}),
    )


def _fitting(files: Mapping[str, Path]) -> Iterator[tuple[str, Picture]]:
    """Embed the files in their order, except those that would make the page too large."""
    remaining = _PICTURES
    for name, path in files.items():
        size = path.stat().st_size
        if size <= remaining:
            remaining -= size
            yield name, embed.from_file(path, f"Samples of {name}")


def headlines(table: Table) -> dict[str, str]:
    """The first metric of each experiment, to stand under its samples."""
    if not table.metrics:
        return {}
    key, cells = next(iter(table.metrics.items()))
    return {
        name: f"{key} {cell.text}{' ★' if cell.best else ''}" for name, cell in zip(table.names, cells, strict=True)
    }


def curves(losses: Mapping[str, Sequence[tuple[int, float]]]) -> Picture | None:
    """Loss curves on common axes; None where nothing was trained."""
    if not losses:
        return None
    lines = [plots.Line(name, *zip(*thinned(points), strict=True)) for name, points in losses.items()]
    return plots.lines(lines, "optimizer step", "loss", f"Loss over optimizer steps of {', '.join(losses)}")


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """At most 200 points, each the last step and the mean of its neighbours."""
    groups = np.array_split(np.array(points, float), min(len(points), _POINTS))
    return [(float(group[-1, 0]), float(group[:, 1].mean())) for group in groups]
