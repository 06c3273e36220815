"""Plots as SVG."""

from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest

from lab.pages import plots
from lab.pages.embed import Picture
from tests.lab.pages.reports import svg_source, svg_texts


def loss_plot() -> Picture:
    return plots.lines({"run": [(50, 0.74), (100, 0.18), (2500, 0.08)]}, "optimizer step", "loss", "Loss")


def class_plot() -> Picture:
    groups = {"data": [60.0, 40.0], "samples": [50.0, 50.0]}
    return plots.bars(["zero", "one"], groups, "share of the images (%)", "Classes")


def svg(plot: Picture) -> str:
    return svg_source(plot.uri)


def texts(plot: Picture) -> list[str]:
    return svg_texts(plot.uri)


def test_axes_are_labelled_with_plain_numbers() -> None:
    assert {"optimizer step", "loss", "0", "1000", "2000", "0.1", "0.2", "0.5"} <= set(texts(loss_plot()))
    assert texts(plots.lines({"": [(0, 1), (800_000, 1e4)]}, "", "", ""))[:4] == ["0", "200k", "400k", "600k"]


@pytest.mark.parametrize(("values", "logarithmic"), [([1, 4.9], False), ([1, 5], True), ([0, 5], False), ([], False)])
def test_the_y_axis_is_logarithmic_from_a_ratio_of_five(values: list[float], logarithmic: bool) -> None:
    labels = texts(plots.lines({"": list(enumerate(values))}, "", "", ""))
    assert ("2" in labels and "5" in labels and "3" not in labels and "4" not in labels) == logarithmic


@pytest.mark.parametrize("draw", [loss_plot, class_plot])
def test_a_plot_has_a_size_a_text_for_screen_readers_and_no_background(draw: Callable[[], Picture]) -> None:
    plot = draw()
    width, height = ElementTree.fromstring(svg(plot)).get("viewBox", "").split()[2:]
    assert plot.width / plot.height == pytest.approx(float(width) / float(height), rel=0.01)
    assert plot.alt in ("Loss", "Classes")
    assert "#ffffff" not in svg(plot)


@pytest.mark.parametrize("draw", [loss_plot, class_plot])
def test_equal_plots_have_equal_bytes_under_any_user_settings(draw: Callable[[], Picture]) -> None:
    plain = draw()
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 20, "svg.hashsalt": "x"}):
        assert draw() == plain
    assert "<dc:date" not in svg(plain)


def test_a_legend_has_every_name_also_with_a_leading_underscore() -> None:
    plot = plots.lines({key: [(1, 1), (2, 2)] for key in ("_under", "over")}, "", "", "")
    assert {"_under", "over"} <= set(texts(plot))


def test_names_are_neither_markup_nor_formulas() -> None:
    names = {"<script>1</script>", "from $1 to $2", "\u6f22"}
    plot = plots.lines({key: [(1, 1), (2, 2)] for key in names}, "x", "y", "")
    assert "<script" not in svg(plot)
    assert names <= set(texts(plot))
    assert {"<b>", "\u6f22"} <= set(texts(plots.bars(["<b>", "\u6f22"], {"data": [1.0, 2.0]}, "x", "")))


def test_a_long_name_loses_its_middle() -> None:
    names = ["a name of 24 letters, ok", "learning-rate-of-a-sweep 0123abcd"]
    assert [*map(plots.abridged, names)] == ["a name of 24 letters, ok", "learning-rate-… 0123abcd"]
    assert "learning-rate-… 0123abcd" in texts(plots.bars(names, {"a": [1.0, 1.0]}, "", ""))
    assert "learning-rate-… 0123abcd" in texts(plots.lines({key: [(1, 1)] for key in names}, "", "", ""))


def test_only_several_curves_have_a_legend_and_twenty_have_different_styles() -> None:
    assert "run" not in texts(loss_plot())
    curves = {f"run {index}": [(1, index + 1), (2, index + 2)] for index in range(20)}
    assert set(curves) <= set(texts(plots.lines(curves, "", "", "")))
    assert len(set(map(str, plots._STYLES))) == 20


def test_a_plot_of_very_many_points_stays_small() -> None:
    noise = np.random.default_rng(0).random(50_000) + 0.1
    assert len(plots.lines({"": list(enumerate(noise.tolist()))}, "", "", "").uri) < 350_000
