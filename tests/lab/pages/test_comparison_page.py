"""The comparison page: its pictures, its curves, its escaping, its size."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from lab.pages.comparison import Experiment, compare
from lab.pages.comparison_page import MOST, Drawn, page, thinned


def tracked(name: str, index: int = 0) -> Experiment:
    metrics = {"classifier.fid": 1.0 + index, "classifier.is": 5.0}
    return Experiment(name, f"{index:064}", "finished", 0.0, {"sample.eta": index}, metrics, "e", f"{index:032}")


def noise(path: Path, side: int) -> Path:
    """Save a grid of samples that no compression makes smaller."""
    values = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(values).save(path)
    return path


def test_the_page_of_many_experiments_with_small_samples_shows_all_and_stays_below_3_megabytes(tmp_path: Path) -> None:
    table = compare([tracked(f"experiment-{index}", index) for index in range(100)])
    loss = [(50 * step, 1.0 + step % 7) for step in range(1, 10_001)]
    text = page(table, [Drawn(loss, noise(tmp_path / "samples.png", 170))] * MOST, None)
    assert 2_000_000 < len(text.encode()) < 3_000_000
    assert text.count('alt="Samples of') == MOST
    assert "too large" not in text
    assert "Samples and loss curves below are of the first 20 experiments" in text
    assert text.count('<tr><th scope="row">') == 100


def test_large_samples_are_embedded_while_the_page_stays_below_3_megabytes_and_the_others_named(tmp_path: Path) -> None:
    table = compare([tracked(name, index) for index, name in enumerate("abcd")])
    large, small = noise(tmp_path / "large.png", 600), noise(tmp_path / "small.png", 50)
    text = page(table, [Drawn([(1, 1.0)], path) for path in (large, large, large, small)], None)
    assert len(text.encode()) < 3_000_000
    assert [f'alt="Samples of {name}"' in text for name in "abcd"] == [True, False, False, True]
    assert "The page would be too large with the samples of b, c." in text
    captions = re.findall(r"<figcaption><b>(.*?)</b>(.*?)</figcaption>", text)
    assert captions == [("a", "classifier.fid 1 ★"), ("d", "classifier.fid 4")]


def test_names_are_escaped_everywhere(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "samples.png")
    name = '<script>alert("x")</script>'
    text = page(compare([tracked(name)]), [Drawn([(1, 1.0)], tmp_path / "samples.png")], None)
    assert "<script" not in text
    assert text.count("&lt;script&gt;") == 4  # the table, the caption, the texts of the samples and of the plot


def test_the_mark_of_the_best_value_is_explained_only_if_a_value_has_it() -> None:
    one, two = tracked("x"), tracked("y", 1)
    assert "★ marks" in page(compare([one, two]), [], None)
    assert "★" not in page(compare([one]), [], None)


def test_without_curves_and_samples_there_are_no_empty_headings() -> None:
    text = page(compare([tracked("x"), tracked("y")]), [Drawn([], None)] * 2, "classifier.fid")
    assert "<h2>" not in text
    assert "No samples of x, y are in MLflow" in text
    assert "The experiments differ in no parameter" in text
    assert "Sorted by classifier.fid" in text


def test_a_long_curve_is_reduced_to_means_up_to_its_last_step() -> None:
    points = [(step, float(step % 2)) for step in range(1, 2001)]
    thin = thinned(points)
    assert len(thin) == 200
    assert thin[-1] == (2000.0, 0.5)
    assert thinned(points[:3]) == points[:3]
