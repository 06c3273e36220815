"""The documentation matches the repository."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

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


def test_code_in_the_readme_has_at_most_99_characters_a_line() -> None:
    blocks = re.findall(
        r"^```(?:bash|python|text)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) > 5
    assert not [line for block in blocks for line in block.splitlines() if len(line) > 99]


def test_every_recipe_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    assert not [path.stem for path in (ROOT / "recipes").glob("*.yaml") if f"| `{path.stem}` |" not in readme]


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors", "version", "references"} <= citation.keys()
    assert (citation["version"], citation["title"]) == (project["version"], f"ddpm: {title_of(project)}")
    [paper] = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Ho", "Jain", "Abbeel"]
    assert (paper["type"], paper["year"]) == ("conference-paper", 2020)
    assert "2006.11239" in paper["url"]


def title_of(project: dict[str, str]) -> str:
    return project["description"][0].lower() + project["description"][1:]


def test_the_workflow_runs_the_oldest_python_and_keeps_the_report_that_ci_leaves() -> None:
    [job] = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text(encoding="utf-8"))["jobs"].values()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    versions = job["strategy"]["matrix"]["python"]
    assert len(versions) == 2
    assert f">={versions[0]}" == project["requires-python"]
    commands = [step["run"] for step in job["steps"] if "run" in step]
    scripts = [path for command in commands for path in re.findall(r"\.ci/[\w.]+", command)]
    assert scripts == [".ci/run", ".ci/audit.py", ".ci/summary"]
    assert all((ROOT / script).is_file() for script in scripts)
    uploaded = job["steps"][-1]["with"]["path"]
    assert f'"$repository/{uploaded}"' in (ROOT / ".ci/reproduce").read_text(encoding="utf-8")
    assert f"{uploaded}/report.md" in (ROOT / ".ci/summary").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_placeholder_is_left_in_a_page(page: Path) -> None:
    assert not re.findall(r"\b[A-Z]+_(?:TIME|MEMORY|RESULTS)\b", page.read_text())
