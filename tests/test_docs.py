"""What the documentation says is so."""

import re
from pathlib import Path

import pytest

from docs.readme import with_metrics
from tests.imports import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_readme_shows_the_committed_metrics() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "classifier.fid_floor" in readme
    assert with_metrics(readme, ROOT / "reports/metrics.json") == readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_that_are_there(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert local
    assert not [link for link in local if not (page.parent / link).exists()]


def test_tests_of_the_equations_exist() -> None:
    rows = re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(rows) >= 9
    for test, path in rows:
        assert f"def {test}(" in (ROOT / path).read_text(), test


def test_every_recipe_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [path.stem for path in (ROOT / "recipes").glob("*.yaml") if f"| `{path.stem}` |" not in readme]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_figure_is_left_to_be_filled_in(page: Path) -> None:
    assert not re.findall(r"\b[A-Z]+_(?:TIME|MEMORY|RESULTS)\b", page.read_text())
