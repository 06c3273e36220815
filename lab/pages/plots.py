"""Plots of the pages, as SVG elements in the colours of the page. Equal inputs give equal text."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import cycle, product
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ddpm.figures import BLUE, GREEN, ORANGE, PURPLE

_WIDTH, _HEIGHT = 4.6, 3.0  # inches: the text stays readable when the plot is as wide as a phone
_LEGEND_LINE, _BAR = 0.18, 0.3  # inches
_LOGARITHMIC = 5  # the ratio of the largest value to the smallest from which the y axis is logarithmic
_LONGEST_NAME = 24  # letters
_MARKED = 40  # points; longer curves are lines without markers
_STYLES = list(product(("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1))), (BLUE, ORANGE, GREEN, PURPLE)))
_SETTINGS: Any = {  # untyped: matplotlib types its keys as literals
    "svg.fonttype": "none",  # text stays text: small files, and all letters of the reader's fonts
    "svg.hashsalt": "ddpm",  # random ids otherwise
    "text.parse_math": False,  # names are not formulas
    "font.size": 9.5,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "lines.markersize": 4,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.alpha": 0.14,
    "grid.color": "black",
    "grid.linewidth": 0.7,
}
_HEAD = (
    '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
    'class="plot" role="img" viewBox="0 0 {:g} {:g}" aria-label="{}">'
)
_COLOURS = {  # variables of base.html, which differ between light and dark mode
    "#000000": "var(--ink)",
    BLUE.lower(): "var(--blue)",
    ORANGE.lower(): "var(--orange)",
    GREEN.lower(): "var(--green)",
    PURPLE.lower(): "var(--purple)",
}


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], x_label: str, y_label: str, alt: str) -> Markup:
    """Plot curves by name on common axes, with a legend if there are several. `alt` is the text for screen readers.

    The y axis is logarithmic if the largest value is at least five times the smallest, and begins at 0 otherwise.
    """
    rows = -(-len(curves) // 2) if len(curves) > 1 else 0
    with _matplotlib_settings():
        figure = Figure(figsize=(_WIDTH, _HEIGHT + rows * _LEGEND_LINE), layout="constrained")
        axes = _axes(figure)
        for points, (style, colour) in zip(curves.values(), cycle(_STYLES), strict=False):
            marker = "." if len(points) <= _MARKED else ""
            axes.plot(*zip(*points, strict=True), linestyle=style, color=colour, marker=marker)
        _scale(axes, [y for points in curves.values() for _, y in points])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if rows:
            # Lines and names are explicit because matplotlib omits labels that begin with an underscore.
            figure.legend(axes.lines, map(abridged, curves), loc="outside lower left", ncols=2, handlelength=2.6)
        return _element(figure, alt)


def bars(names: Sequence[str], groups: Mapping[str, Sequence[float]], x_label: str, alt: str) -> Markup:
    """Plot horizontal bars from zero: for each name one bar of each group, the first name on top."""
    thickness = 0.8 / len(groups)
    with _matplotlib_settings():
        figure = Figure(figsize=(_WIDTH, len(names) * _BAR + 1), layout="constrained")
        axes = _axes(figure)
        for index, ((group, values), (_, colour)) in enumerate(zip(groups.items(), _STYLES, strict=False)):
            centres = [row + (index - (len(groups) - 1) / 2) * thickness for row in range(len(names))]
            axes.barh(centres, values, thickness, color=colour, label=group)
        axes.set_yticks(range(len(names)), [abridged(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel(x_label)
        figure.legend(loc="outside upper left", ncols=len(groups))
        return _element(figure, alt)


def abridged(name: str) -> str:
    """Cut the middle out of a long name, because names in a sweep differ at both ends."""
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 10]}…{name[-9:]}"


def _axes(figure: Figure) -> Axes:
    axes = figure.add_subplot()
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    return axes


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """Set the scale of the y axis, with numbers such as 0.05 instead of powers."""
    ratio = max(values) / min(values) if values and min(values) > 0 else 1
    if ratio < _LOGARITHMIC:
        axes.set_ylim(bottom=min([0, *values]))
    else:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1,) if ratio > 100 else (1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(FuncFormatter(_short))


def _short(value: float, _: object = None) -> str:
    """Format a tick label: 2500, 0.05, 200k, 1M."""
    if abs(value) >= 1e6:
        return f"{value / 1e6:g}M"
    return f"{value / 1e3:g}k" if abs(value) >= 1e4 else f"{value:g}"


@contextmanager
def _matplotlib_settings() -> Iterator[None]:
    """Use matplotlib's defaults and the settings of the plots instead of the user's."""
    with mpl.rc_context(mpl.rcParamsDefault), warnings.catch_warnings():
        mpl.rcParams.update(_SETTINGS)
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has other fonts
        yield


def _element(figure: Figure, alt: str) -> Markup:
    """The figure as an <svg> element with a text for screen readers.

    Ids to which nothing refers are left out, because a page may have several plots.
    """
    svg = io.StringIO()
    figure.savefig(svg, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    _, _, text = svg.getvalue().partition("</metadata>")
    text = re.sub(r' id="[\w.]+_\d+"', "", text)
    text = re.sub(rf"(stroke|fill): ({'|'.join(_COLOURS)})", lambda found: f"{found[1]}: {_COLOURS[found[2]]}", text)
    width, height = figure.get_size_inches() * 72  # points
    return Markup(_HEAD).format(width, height, alt) + Markup(text)
