"""Plots inside a page."""

from collections.abc import Callable
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pytest
from markupsafe import Markup

from lab.pages import plots
from lab.pages.plots import Line

FALLING = Line("run", [50, 100, 2500], [0.74, 0.18, 0.08])
SVG = "{http://www.w3.org/2000/svg}"


def falling(name: str = "run", description: str = "Loss") -> Markup:
    return plots.lines([Line(name, FALLING.x, FALLING.y)], "optimizer step", "loss", description)


def shares() -> Markup:
    return plots.bars(["zero", "one"], {"data": [60.0, 40.0], "samples": [50.0, 50.0]}, "share (%)", "Classes")


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_a_plot_names_its_axes_and_writes_its_numbers_out() -> None:
    words = texts(falling())
    assert {"optimizer step", "loss", "0", "1000", "2000", "0.1", "0.2", "0.5"} <= set(words)
    assert texts(plots.lines([Line("", [0, 800_000], [1, 1e4])], "", "", ""))[:4] == ["0", "200k", "400k", "600k"]


@pytest.mark.parametrize(("values", "logarithmic"), [([1, 4.9], False), ([1, 5], True), ([0, 5], False), ([], False)])
def test_an_axis_is_logarithmic_where_values_span_much(values: list[float], logarithmic: bool) -> None:
    words = texts(plots.lines([Line("", range(len(values)), values)], "", "", ""))
    assert ("2" in words and "5" in words and "3" not in words and "4" not in words) == logarithmic


@pytest.mark.parametrize("draw", [falling, shares])
def test_ink_is_that_of_the_text_around_it_and_the_ground_is_the_pages(draw: Callable[[], Markup]) -> None:
    svg = draw()
    assert "#010203" not in svg
    assert svg.count("currentColor") > 10
    assert "#0072b2" in svg
    assert "#ffffff" not in svg
    assert "<style" not in svg  # it would hold for the whole page


@pytest.mark.parametrize("draw", [falling, shares])
def test_the_same_plot_has_the_same_bytes_whatever_the_users_settings(draw: Callable[[], Markup]) -> None:
    plain = draw()
    with mpl.rc_context({"axes.facecolor": "black", "font.size": 20, "svg.hashsalt": "x"}):
        assert draw() == plain
    assert "<metadata" not in plain


def test_a_legend_has_every_name() -> None:
    words = texts(plots.lines([Line(name, [1, 2], [1, 2]) for name in ("_under", "over")], "", "", ""))
    assert {"_under", "over"} <= set(words)


def test_two_plots_share_no_name_on_a_page() -> None:
    ids = [
        {element.get("id") for element in ElementTree.fromstring(svg).iter() if element.get("id")}
        for svg in (falling(description="Loss"), falling(description="Gradient"))
    ]
    assert ids[0]
    assert ids[1]
    assert not ids[0] & ids[1]


def test_names_are_neither_markup_nor_formulas() -> None:
    named = [Line(name, [1, 2], [1, 2]) for name in ("<script>1</script>", "cost in $ and $\\frac$")]
    svg = plots.lines(named, "x", "y", '"><script>')
    assert "<script" not in svg
    assert {line.name for line in named} <= set(texts(svg))
    assert "abcdefghijklmnopqrstuvw…" in texts(plots.bars(["abcdefghijklmnopqrstuvwxyz"], {"a": [1.0]}, "", ""))
    bars = plots.bars(["<b>", "\u6f22"], {"data": [1.0, 2.0]}, "x", "y")
    assert {"<b>", "\u6f22"} <= set(texts(bars))


def test_a_reader_who_does_not_see_it_is_told_what_it_is() -> None:
    opening = falling().split(">")[0]
    assert 'role="img"' in opening
    assert 'aria-label="Loss"' in opening


def test_only_several_curves_have_a_legend_and_twenty_are_told_apart() -> None:
    assert "run" not in texts(falling())
    curves = [Line(f"run {number}", [1, 2], [number + 1, number + 2]) for number in range(20)]
    svg = plots.lines(curves, "", "", "")
    assert {curve.name for curve in curves} <= set(texts(svg))
    assert len(set(map(str, plots._STYLES))) == 20


def test_a_plot_of_very_many_points_stays_small() -> None:
    noise = np.random.default_rng(0).random(50_000) + 0.1
    assert len(plots.lines([Line("", range(50_000), noise.tolist())], "", "", "")) < 250_000
