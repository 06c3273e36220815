"""The report and the comparison in a real browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from lab.pages import comparison_page, page
from lab.pages.comparison import Experiment, compare
from lab.pages.comparison_page import Drawn
from tests.lab.pages.reports import rich

CHROMIUM = shutil.which("chromium")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium")
LONG = "a-class-with-a-name-that-has-no-place-to-break-and-goes-on-and-on-and-on"
METRICS = [f"classifier.{name}" for name in ("fid", "fid_matched", "kid", "is", "precision", "recall")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with everything and with names as long as a path."""
    folder = tmp_path_factory.mktemp("report")
    path = folder / "index.html"
    path.write_text(page.page(rich(folder / "pictures", LONG)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Many experiments with as long names, more columns than a phone has room for, and under two extractors."""
    folder = tmp_path_factory.mktemp("comparison")
    Image.effect_noise((64, 64), 50).save(folder / "samples.png")
    experiments = [
        Experiment(
            name=f"{LONG}-{index}",
            fingerprint=f"{index:064}",
            status="finished" if index else "running",
            started=0.0,
            params={f"train.parameter_{number}": [index, number] for number in range(12)},
            metrics=dict.fromkeys(METRICS, 1.0 + index),
            extractor="ef"[index % 2],
            id=f"{index:032}",
        )
        for index in range(30)
    ]
    drawn = [
        Drawn([(step, 1 / (step + index)) for step in range(1, 50)], folder / "samples.png") for index in range(20)
    ]
    path = folder / "comparison.html"
    path.write_text(comparison_page.page(compare(experiments, METRICS), drawn, None), encoding="utf-8")
    return path


@pytest.fixture(params=["report", "comparison"])
def opened(request: pytest.FixtureRequest) -> tuple[Path, int]:
    """Each page and its number of images."""
    return request.getfixturevalue(request.param), {"report": 6, "comparison": 20}[request.param]


class Visit:
    """A page opened in a browser, with the messages and the requests."""

    def __init__(self, browser: Browser, path: Path, **settings: Any) -> None:
        self.page: Page = browser.new_page(**settings)
        self.messages: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.messages.append(message.text))
        self.page.on("pageerror", lambda error: self.messages.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_without_messages_requests_or_horizontal_scrolling(
    width: int, scheme: str, browser: Browser, opened: tuple[Path, int]
) -> None:
    path, pictures = opened
    visit = Visit(browser, path, viewport={"width": width, "height": 900}, color_scheme=scheme)
    for folded in visit.page.locator("summary").all():
        folded.click()
    assert visit.messages == []
    assert [url for url in visit.requests if not url.startswith("data:")] == [path.as_uri()]
    assert visit.page.evaluate("document.documentElement.scrollWidth") == width
    images = visit.page.evaluate("[...document.images].map(i => [i.alt, i.complete && i.naturalWidth])")
    assert len(images) == pictures
    assert all(alt and shown for alt, shown in images)
    visit.page.close()


def test_text_contrasts_with_the_background_in_light_and_dark_mode(browser: Browser, opened: tuple[Path, int]) -> None:
    for scheme, dark in (("light", False), ("dark", True)):
        visit = Visit(browser, opened[0], color_scheme=scheme)
        colours = "(e => [getComputedStyle(e).color, getComputedStyle(document.body).backgroundColor])"
        for selector in ("body", ".lead", "figcaption", ".warning"):
            text, ground = visit.page.evaluate(f"{colours}(document.querySelector('{selector}'))")
            lighter, darker = sorted((luminance(text), luminance(ground)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) > 4.5, (scheme, selector)
            assert (luminance(ground) < 0.5) == dark
        visit.page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_have_a_light_background_and_plots_the_colours_of_the_page(
    scheme: Any, browser: Browser, opened: tuple[Path, int]
) -> None:
    visit = Visit(browser, opened[0], color_scheme=scheme)
    grounds = visit.page.evaluate("[...document.images].map(i => getComputedStyle(i).backgroundColor)")
    assert {luminance(ground) > 0.7 for ground in grounds} == {True}
    ground = visit.page.evaluate("getComputedStyle(document.querySelector('figure.frame')).backgroundColor")
    for selector, key, contrast in (("text", "fill", 4.5), ("path[style*=blue]", "stroke", 3)):
        elements = f"[...document.querySelectorAll('svg {selector}')]"
        colours = set(visit.page.evaluate(f"{elements}.map(e => getComputedStyle(e)['{key}'])"))
        assert len(colours) > ("none" in colours)  # bars have no stroke
        for colour in colours - {"none"}:
            lighter, darker = sorted((luminance(colour), luminance(ground)), reverse=True)
            assert (lighter + 0.05) / (darker + 0.05) > contrast, (selector, colour)
    visit.page.close()


@pytest.mark.parametrize(("width", "shown"), [(390, True), (1280, False)])
def test_only_a_narrow_screen_has_the_hint_to_scroll_a_strip(
    width: int, shown: bool, browser: Browser, report: Path
) -> None:
    visit = Visit(browser, report, viewport={"width": width, "height": 900})
    strips = visit.page.locator(".strip")
    for index in range(strips.count()):
        strip = strips.nth(index)
        wide = strip.locator(".wide").evaluate("e => e.scrollWidth > e.clientWidth")
        assert (strip.locator(".hint").is_visible(), wide) == (shown, shown)
    assert strips.count() == 3
    visit.page.close()


def luminance(colour: str) -> float:
    """The relative luminance of "rgb(r, g, b)" by WCAG, 0 to 1."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(("preference", "shown"), [("reduce", False), ("no-preference", True)])
def test_the_animation_is_hidden_from_readers_who_prefer_reduced_motion(
    preference: Any, shown: bool, browser: Browser, report: Path
) -> None:
    visit = Visit(browser, report, reduced_motion=preference)
    assert visit.page.locator("img[src^='data:image/gif']").is_visible() == shown
    visit.page.close()
