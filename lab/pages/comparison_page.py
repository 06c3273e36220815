"""The comparison page: the table of experiments, their samples and their loss curves."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lab.pages import embed, plots, templates
from lab.pages.comparison import Table
from lab.pages.embed import Picture

MOST = 20  # experiments with samples and a loss curve; plots have styles for as many
_PICTURES = 1_900_000  # bytes of all embedded files; their encoding adds a third, and the page stays below 3 MB
_POINTS = 200  # of a curve


@dataclass(frozen=True)
class Drawn:
    """The loss curve of an experiment and a picture of its samples, if any."""

    loss: Sequence[tuple[int, float]]  # steps and values
    samples: Path | None


def page(table: Table, drawn: Sequence[Drawn], sorted_by: str | None) -> str:
    """Render the page. `drawn` belongs to the first experiments of the table."""
    shown = dict(zip(table.names, drawn, strict=False))
    pictures = dict(_fitting({name: one.samples for name, one in shown.items() if one.samples}))
    losses = {name: thinned(one.loss) for name, one in shown.items() if one.loss}
    alt = f"Loss over optimizer steps of {', '.join(losses)}"
    return templates.render(
        "comparison.html",
        table=table,
        order=f"Sorted by {sorted_by}" if sorted_by else "Newest first",
        drawn=len(drawn),
        pictures=pictures,
        too_large=[name for name, one in shown.items() if one.samples and name not in pictures],
        without_samples=[name for name, one in shown.items() if not one.samples],
        curves=plots.lines(losses, "optimizer step", "loss", alt) if losses else None,
    )


def _fitting(files: Mapping[str, Path]) -> Iterator[tuple[str, Picture]]:
    """Embed the files in their order, except those that would make the page too large."""
    remaining = _PICTURES
    for name, path in files.items():
        size = path.stat().st_size
        if size <= remaining:
            remaining -= size
            yield name, embed.from_file(path, f"Samples of {name}")


def thinned(points: Sequence[tuple[int, float]]) -> list[tuple[float, float]]:
    """Reduce a curve to at most 200 points, each the last step and the mean value of a group of points."""
    groups = np.array_split(np.array(points, float), min(len(points), _POINTS))
    return [(float(group[-1, 0]), float(group[:, 1].mean())) for group in groups]
