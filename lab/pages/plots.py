"""Plots for pages: inline SVG in the colours of the text around it. Equal inputs give equal bytes."""

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, product
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ddpm.figures import BLUE, GREEN, ORANGE, PURPLE

_WIDTH, _HEIGHT = 4.6, 3.0  # inches: text stays readable where a phone shrinks the plot to its width
_LEGEND_LINE, _BAR = 0.18, 0.3  # inches
_INK = "#010203"  # becomes the colour of the text around the plot
_NAMED = {"blue": BLUE, "orange": ORANGE, "green": GREEN, "purple": PURPLE}  # a dark page may brighten them
_LOGARITHMIC = 5  # as soon as the largest value is so many times the smallest
_LONGEST = 24  # letters of a name: more leave no room for what it names
_MARKED = 40  # points: more are a line without marks
_STYLES = list(product(("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1))), _NAMED.values()))
_TASTE: Any = {  # an untyped dict: the keys of matplotlib's are literals
    "svg.fonttype": "none",  # text stays text, in the page's font
    "text.parse_math": False,  # names are no formulas
    "font.size": 9.5,
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), _INK),
}


@dataclass(frozen=True)
class Line:
    """A curve: its name, and its points."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


def lines(curves: Sequence[Line], x_label: str, y_label: str, description: str) -> Markup:
    """Curves on common axes, with a legend under several; y is logarithmic where its values span much.

    `description` is what a screen reader says.
    """
    rows = -(-len(curves) // 2) if len(curves) > 1 else 0
    with _svg(_HEIGHT + rows * _LEGEND_LINE, description) as (figure, drawn):
        axes = _axes(figure)
        for curve, (style, colour) in zip(curves, cycle(_STYLES), strict=False):
            mark = "." if len(curve.x) <= _MARKED else ""
            axes.plot(
                curve.x,
                curve.y,
                linestyle=style,
                color=colour,
                linewidth=1.5,
                marker=mark,
                markersize=4,
            )
        _scale(axes, [value for curve in curves for value in curve.y])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if rows:
            names = [_fitting(curve.name) for curve in curves]
            # Names and lines are given, for of itself a legend leaves out what begins with an underscore.
            figure.legend(
                axes.lines, names, loc="outside lower left", ncols=2, frameon=False, fontsize=8.5, handlelength=2.6
            )
    return drawn[0]


def bars(names: Sequence[str], groups: Mapping[str, Sequence[float]], x_label: str, description: str) -> Markup:
    """Horizontal bars from zero: for each name one of every group, the first on top."""
    thickness = 0.8 / len(groups)
    with _svg(len(names) * _BAR + 1, description) as (figure, drawn):
        axes = _axes(figure)
        for place, ((group, values), (_, colour)) in enumerate(zip(groups.items(), _STYLES, strict=False)):
            middles = [row + (place - (len(groups) - 1) / 2) * thickness for row in range(len(names))]
            axes.barh(middles, values, thickness, color=colour, label=group)
        axes.set_yticks(range(len(names)), [_fitting(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.grid(False, axis="y")
        axes.set_xlabel(x_label)
        figure.legend(loc="outside upper left", ncols=len(groups), frameon=False, fontsize=8.5)
    return drawn[0]


def _fitting(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def _axes(figure: Figure) -> Axes:
    axes = figure.add_subplot()
    axes.grid(True, color=_INK, alpha=0.14, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    return axes


def _scale(axes: Axes, values: Sequence[float]) -> None:
    """A y axis that is logarithmic where that serves and begins at zero elsewhere, its numbers written out."""
    span = max(values) / min(values) if values and min(values) > 0 else 1
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    if span < _LOGARITHMIC:
        axes.set_ylim(bottom=min([0, *values]))
        return
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1,) if span > 100 else (1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))  # a change of scale has forgotten it
    axes.yaxis.set_minor_formatter(NullFormatter())


def _short(value: float, _: object = None) -> str:
    """2500, 0.05, 200k, 1M."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= (size if size == 1e6 else 1e4):
            return f"{value / size:g}{letter}"
    return f"{value:g}"


@contextmanager
def _svg(height: float, description: str) -> Iterator[tuple[Figure, list[Markup]]]:
    """A figure to draw on; when that is done, the list has its SVG. Free of the user's settings."""
    drawn: list[Markup] = []
    with mpl.rc_context(mpl.rcParamsDefault), warnings.catch_warnings():
        mpl.rcParams.update(_TASTE | {"svg.hashsalt": description})
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the page's font has more letters than matplotlib's
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure, drawn
        written = io.StringIO()
        figure.savefig(written, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator")))
    drawn.append(_inline(written.getvalue(), description))


def _inline(svg: str, description: str) -> Markup:
    """A file's SVG as a part of a page: no heading, no styles for others, no names but those that are referred to."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([^")]+)', svg))
    svg = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    size = re.search(r'viewBox="[^"]+"', svg)
    assert size is not None
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" {size[0]} '
    opening += f'role="img" aria-label="{escape(description)}">'
    svg = re.sub(r"<svg[^>]*>", lambda _: opening, svg, count=1).replace(_INK, "currentColor")
    for name, colour in _NAMED.items():
        svg = svg.replace(f": {colour.lower()}", f": var(--{name}, {colour.lower()})")
    return Markup(svg)
