"""Plots as SVG."""

import re
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from lab.pages import plots
from tests.lab.pages.reports import svg_texts


def loss_plot() -> str:
    return plots.lines({"run": [(50, 0.74), (100, 0.18), (2500, 0.08)]}, "optimizer step", "loss", "Loss")


def class_plot() -> str:
    groups = {"data": [60.0, 40.0], "samples": [50.0, 50.0]}
    return plots.bars(["zero", "one"], groups, "share of the images (%)", "Classes")


def test_axes_are_labelled_with_plain_numbers() -> None:
    assert {"optimizer step", "loss", "0", "1000", "2000", "0.1", "0.2", "0.5"} <= set(svg_texts(loss_plot()))
    assert svg_texts(plots.lines({"": [(0, 1), (800_000, 1e4)]}, "", "", ""))[:4] == ["0", "200k", "400k", "600k"]


@pytest.mark.parametrize(("values", "logarithmic"), [([1, 4.9], False), ([1, 5], True), ([0, 5], False), ([], False)])
def test_the_y_axis_is_logarithmic_from_a_ratio_of_five(values: list[float], logarithmic: bool) -> None:
    labels = svg_texts(plots.lines({"": list(enumerate(values))}, "", "", ""))
    assert ("2" in labels and "5" in labels and "3" not in labels and "4" not in labels) == logarithmic


@pytest.mark.parametrize("draw", [loss_plot, class_plot])
def test_a_plot_has_a_size_a_text_for_screen_readers_and_no_background(draw: Callable[[], str]) -> None:
    plot = ElementTree.fromstring(draw())
    width, height = map(float, plot.get("viewBox", "").split()[2:])
    assert 100 < height < width
    assert plot.get("aria-label") in ("Loss", "Classes")
    assert "#ffffff" not in draw()


@pytest.mark.parametrize("draw", [loss_plot, class_plot])
def test_every_colour_is_a_variable_of_the_page(draw: Callable[[], str]) -> None:
    colours = set(re.findall(r"(?:stroke|fill): ([^;\"]*)", draw()))
    assert {"var(--blue)", "var(--ink)"} <= colours
    assert all(colour == "none" or colour.startswith("var(--") for colour in colours)
    base = (Path(plots.__file__).parent / "base.html").read_text(encoding="utf-8")
    variables = set(plots._COLOURS.values())
    assert all(base.count(f"--{variable[6:-1]}: ") == 2 for variable in variables)  # light and dark


def test_an_id_in_a_plot_belongs_to_a_shape_that_is_used() -> None:
    plot = loss_plot()
    ids = re.findall(r'id="([^"]*)"', plot)
    assert ids
    assert all(f"#{id}" in plot for id in ids)


def test_colours_in_names_stay_as_they_are() -> None:
    curves = {"#0072b2": [(1, 1), (2, 2)], "stroke-#000000": [(1, 2), (2, 3)]}
    assert set(curves) <= set(svg_texts(plots.lines(curves, "", "", "")))


@pytest.mark.parametrize("draw", [loss_plot, class_plot])
def test_equal_plots_have_equal_bytes_under_any_user_settings(draw: Callable[[], str]) -> None:
    plain = draw()
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 20, "svg.hashsalt": "x"}):
        assert draw() == plain
    assert "<dc:date" not in plain


def test_a_legend_has_every_name_also_with_a_leading_underscore() -> None:
    plot = plots.lines({key: [(1, 1), (2, 2)] for key in ("_under", "over")}, "", "", "")
    assert {"_under", "over"} <= set(svg_texts(plot))


def test_names_are_neither_markup_nor_formulas() -> None:
    names = {"<script>1</script>", "from $1 to $2", "\u6f22"}
    plot = plots.lines({key: [(1, 1), (2, 2)] for key in names}, "x", "y", "")
    assert "<script" not in plot
    assert names <= set(svg_texts(plot))
    assert {"<b>", "\u6f22"} <= set(svg_texts(plots.bars(["<b>", "\u6f22"], {"data": [1.0, 2.0]}, "x", "")))


def test_a_long_name_loses_its_middle() -> None:
    names = ["a name of 24 letters, ok", "learning-rate-of-a-sweep 0123abcd"]
    assert [*map(plots.abridged, names)] == ["a name of 24 letters, ok", "learning-rate-… 0123abcd"]
    assert "learning-rate-… 0123abcd" in svg_texts(plots.bars(names, {"a": [1.0, 1.0]}, "", ""))
    assert "learning-rate-… 0123abcd" in svg_texts(plots.lines({key: [(1, 1)] for key in names}, "", "", ""))


def test_only_several_curves_have_a_legend_and_twenty_have_different_styles() -> None:
    assert "run" not in svg_texts(loss_plot())
    curves = {f"run {index}": [(1, index + 1), (2, index + 2)] for index in range(20)}
    assert set(curves) <= set(svg_texts(plots.lines(curves, "", "", "")))
    assert len(set(map(str, plots._STYLES))) == 20


def test_a_plot_of_very_many_points_stays_small() -> None:
    noise = np.random.default_rng(0).random(50_000) + 0.1
    assert len(plots.lines({"": list(enumerate(noise.tolist()))}, "", "", "")) < 260_000
