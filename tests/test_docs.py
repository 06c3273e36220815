"""The documentation matches the repository."""

import re
from pathlib import Path

import pytest

from docs.readme import with_metrics
from tests.imports import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_readme_shows_the_committed_metrics() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "classifier.fid_floor" in readme
    assert with_metrics(readme, ROOT / "reports") == readme


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_existing_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    local = [link for link in links if not link.startswith("http")]
    assert local
    assert not [link for link in local if not (page.parent / link).exists()]


@pytest.mark.parametrize(("page", "least"), [("README.md", 7), ("docs/mathematics.md", 40)])
def test_functions_and_tests_of_the_equations_exist(page: str, least: int) -> None:
    text, folder = (ROOT / page).read_text(), (ROOT / page).parent
    tests = re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", text)
    functions = re.findall(r"\[`(?!test_)([\w.]+)`[^\]]*\]\(([^)]+\.py)\)", text)
    assert min(len(tests), len(functions)) >= least
    for name, path in functions:
        assert re.search(rf"(?:def|class) {name.split('.')[-1]}\b", (folder / path).read_text()), name
    for test, path in tests:
        assert f"def {test}(" in (folder / path).read_text(), test


def test_every_recipe_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [path.stem for path in (ROOT / "recipes").glob("*.yaml") if f"| `{path.stem}` |" not in readme]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_placeholder_is_left_in_a_page(page: Path) -> None:
    assert not re.findall(r"\b[A-Z]+_(?:TIME|MEMORY|RESULTS)\b", page.read_text())
