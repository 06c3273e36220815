"""DVC's own comparisons and `ddpm compare` show the same values."""

import csv
import json
from typing import Any

import pytest

from lab.experiment.dvcfile import flatten
from tests.pipeline.project import Project

Rows = dict[str, dict[str, str]]
SECTIONS = ("classifier.", "loss.", "neighbours.", "snapshots.")  # of reports/metrics.json


@pytest.fixture(scope="module")
def compared(reproduced: Project) -> Rows:
    """The rows of `ddpm compare --csv` for the committed run ("main") and for an experiment ("quick")."""
    reproduced.run("dvc", "exp", "run", "--temp", "-n", "quick", "-S", "sample.steps=2")
    path = reproduced.path / "models/table.csv"  # a folder that git ignores
    reproduced.run("ddpm", "compare", "--csv", str(path))
    with path.open(newline="") as file:
        rows = {row["experiment"]: row for row in csv.DictReader(file)}
    [main] = [row for name, row in rows.items() if name.endswith(row["fingerprint"][:4])]
    return {"main": main, "quick": rows["quick"]}


def measured(row: dict[str, str]) -> dict[str, float]:
    return {key: float(value) for key, value in row.items() if key.startswith(SECTIONS)}


def test_exp_show_has_the_same_values(reproduced: Project, compared: Rows) -> None:
    _, head = json.loads(reproduced.run("dvc", "exp", "show", "--json").stdout)
    shown = {rev["name"]: rev["data"] for one in head["experiments"] for rev in one["revs"] or []} | {
        "main": head["data"]
    }
    for name, row in compared.items():
        metrics: dict[str, Any] = flatten(shown[name]["metrics"]["reports/metrics.json"]["data"])
        assert {key: value for key, value in metrics.items() if key.startswith(SECTIONS)} == measured(row)
        steps = shown[name]["params"]["params.yaml"]["data"]["sample"]["steps"]
        assert steps == int(row["sample.steps"])


def test_metrics_diff_has_the_same_values(reproduced: Project, compared: Rows) -> None:
    diff = json.loads(reproduced.run("dvc", "metrics", "diff", "--all", "--json", "main", "quick").stdout)
    change = diff["reports/metrics.json"]
    for side, name in (("old", "main"), ("new", "quick")):
        assert {key: both[side] for key, both in change.items() if key.startswith(SECTIONS)} == measured(compared[name])
    assert change["classifier.fid"]["diff"] != 0


@pytest.mark.usefixtures("compared")
def test_plots_diff_shows_three_revisions(reproduced: Project) -> None:
    other = reproduced.git("commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "other").strip()
    reproduced.run("dvc", "plots", "diff", "--out", "dvc_plots", "main", "quick", other)
    page = (reproduced.path / "dvc_plots/index.html").read_text()
    pictures = {path.name for path in (reproduced.path / "dvc_plots/static").iterdir()}
    for revision in ("main", "quick", other):
        assert f'"rev": "{revision}"' in page
        assert f"{revision}_reports_samples.png" in pictures
