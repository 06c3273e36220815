"""The report as one page; tests/lab/pages/test_browser.py opens it."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from ddpm import figures
from ddpm.sampling import pictures
from ddpm.tables import Share
from lab.pages import page
from lab.pages.contents import CAPTIONS
from tests.lab.pages.reports import BOUND, REPORT, REPORTED, changed, measured, rich, svg_texts, svgs, under

SCRIPT = "<script>alert('x')<script>"


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with everything, of data with a malicious name."""
    return page.page(rich(tmp_path_factory.mktemp("rich"), SCRIPT))


def test_names_of_the_users_data_are_escaped(written: str) -> None:
    elements = Elements(written)
    assert not elements.all("script")
    assert elements.text.count(SCRIPT) >= 6  # title, heading, warning, whose number, parameter, provenance
    assert Elements(page.page(changed(REPORT, "train", init="</code></pre><img src=x>"))).all("img") == []


def test_the_page_refers_to_no_other_file(written: str) -> None:
    elements = Elements(written)
    addresses = [
        value or ""
        for _, attributes in elements.found
        for key, value in attributes.items()
        if key in ("src", "srcset", "href")
    ]
    assert len(addresses) > 8
    assert not [address for address in addresses if not address.startswith(("data:", "#"))]
    assert "@import" not in written
    assert "url(http" not in written


def test_every_picture_has_a_text_and_a_size(written: str) -> None:
    images = Elements(written).all("img")
    assert len(images) == len(CAPTIONS) - 1  # the loss is a plot
    assert all(image["alt"] and image["width"] and image["height"] for image in images)
    plots = Elements(written).all("svg")
    assert len(plots) == 6  # three of the training, two of the likelihood, one of the classes
    assert all(plot["role"] == "img" and plot["aria-label"] for plot in plots)


def cards(text: str) -> list[list[str]]:
    """The lines of text in each card."""
    sections = re.findall(r'<section class="card">(.*?)</section>', text, re.DOTALL)
    return [[line.strip() for line in Elements(section).text.splitlines() if line.strip()] for section in sections]


def test_cards_stand_beside_real_images_and_published_numbers() -> None:
    report = replace(measured(REPORT, likelihood=BOUND), params={**REPORT.params, "reported": REPORTED})
    text = page.page(report)
    assert cards(text) == [
        ["FID", "1.936", "lower is better", "0.2815 floor, 270 test images", "3.17 Somebody 2020, Table 1"],
        ["Inception Score", "5.54", "higher is better", "7.366 training images"],
        [
            "Likelihood",
            "3.751",
            "bits per dimension (upper bound); lower is better",
            "3.7 Somebody 2020, Table 1",
        ],
    ]
    assert "Somebody 2020, Table 1 also gives inception.is 9.46, which was not measured here" in Elements(text).text


def test_inception_has_cards_and_no_classes() -> None:
    inception = {"inception": {"fid": 3.17}}
    text = page.page(under(replace(REPORT, metrics=inception), extractor="inception"))
    assert cards(text) == [["FID", "3.17", "lower is better"]]
    assert "Classes" not in Elements(text).text
    assert "Does it copy?" not in Elements(text).text


def test_the_sentences_on_classes_and_memorisation_have_their_numbers(tmp_path: Path) -> None:
    text = " ".join(Elements(page.page(rich(tmp_path))).text.split())
    assert "3.0% of the samples would have to change their class" in text
    assert "The classifier assigns 97.0% of the samples to their label." in text
    assert "nearest training image is 34.5 grey levels" in text
    assert "first 1000 samples). For test images, which are not in the training data, it is 32.5." in text


def test_of_many_classes_the_20_that_differ_most_are_plotted_in_their_order() -> None:
    shares = [Share(f"class {index}", 0.1, 0.1 + index % 7) for index in range(50)]
    text = page.page(replace(REPORT, points=[], shares=shares))
    (plot,) = svgs(text)
    assert "20 of 50 classes" in plot
    names = [text for text in svg_texts(plot) if text.startswith("class ")]
    assert len(names) == 20
    assert {int(name.removeprefix("class ")) % 7 for name in names} == {4, 5, 6}
    assert text.count('<th scope="row" class="">class ') == 50  # in a table that opens on demand
    assert "All 50 classes" in text


def test_only_a_model_that_was_trained_here_has_a_loss_curve(tmp_path: Path) -> None:
    report = rich(tmp_path)
    trained, untrained = (page.page(replace(report, points=points)) for points in (report.points, []))
    assert "loss" in svg_texts(svgs(trained)[0])
    assert not any("loss" in svg_texts(plot) for plot in svgs(untrained))
    assert "The model was not trained in this experiment" in untrained
    assert "The model was not trained" not in trained


def test_the_loss_curve_has_the_losses_of_the_final_weights_on_both_splits(tmp_path: Path) -> None:
    with_losses, without = (svg_texts(svgs(page.page(report))[0]) for report in (rich(tmp_path), REPORT))
    assert {"while training", "training images: 0.0768", "test images: 0.0788"} <= set(with_losses)
    assert "while training" not in without


def test_the_contents_link_to_every_section_that_the_page_has(written: str) -> None:
    for text in (written, page.page(REPORT)):
        elements = Elements(text)
        links = [link["href"] for link in elements.all("a")]
        assert links == [f"#{heading['id']}" for heading in elements.all("h2") if "id" in heading]
        assert len(links) == (9 if text is written else 6)


@pytest.mark.parametrize(("size", "crisp"), [(8, True), (47, True), (48, False)])
def test_small_images_are_enlarged_without_smoothing(size: int, crisp: bool, tmp_path: Path) -> None:
    images = Elements(page.page(changed(rich(tmp_path), "data", image_size=size))).all("img")
    assert [("pixels" in (image["class"] or "").split()) for image in images[:3]] == [crisp] * 3
    assert "pixels" not in (images[3]["class"] or "")  # a strip has letters


def test_equal_reports_give_equal_pages(tmp_path: Path) -> None:
    report = rich(tmp_path)
    assert page.page(report) == page.page(report)


def test_a_page_with_pictures_of_large_noise_stays_below_3_megabytes(tmp_path: Path) -> None:
    noise = torch.randint(0, 256, (80, 3, 256, 256), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    report = rich(tmp_path)
    for name in ("samples", "real"):
        pictures.save_grid(noise, report.pictures[name])
    times = [f"$t={t}$" for t in range(10)]
    for name, rows in (("denoising", 8), ("noising", 8), ("neighbours", 2)):
        labelled = [(str(row), noise[10 * row : 10 * row + 10]) for row in range(rows)]
        figures.strip(report.pictures[name], CAPTIONS[name], times, labelled)
    figures.animation(noise[:32].unsqueeze(1), 1, report.pictures["trajectory"], 230_000)
    points = [{"step": step, "loss": 1 / step, "gradient_norm": 1 + step % 7} for step in range(500, 500_001, 500)]
    bound = [{"t": t, "bits_per_dim": 1 / t + (t % 3) / 9, "x_0_error": t * (1 + t % 3)} for t in range(1, 1001)]
    assert 2_000_000 < len(page.page(replace(report, points=points, bound=bound)).encode()) < 3_000_000
