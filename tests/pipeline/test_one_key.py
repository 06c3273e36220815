"""One key switches one thing: `dvc exp run -S KEY=VALUE` needs no other key, in a tiny project."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

from lab.experiment.dvcfile import flatten
from tests.data.files import write_idx
from tests.evaluation.inception import write_random_weights
from tests.pipeline.project import Project, create

# One sample: the covariances of Inception's 2048 features would take longer than all else.
TINY = {"sample__count": 1, "sample__steps": 2, "train__steps": 2, "train__snapshots": []}


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project after the first switch: from the digits to MNIST, here of 17 images."""
    project = create(tmp_path_factory.mktemp("one_key") / "a project")
    project.set(**TINY)
    project.commit("tiny digits")
    write_idx(project.path / "data/raw", "mnist", {"train": 12, "t10k": 5})
    project.run("dvc", "exp", "run", "-S", "data.source=mnist")
    project.commit("tiny mnist")
    return project


@pytest.fixture
def project(switched: Project) -> Iterator[Project]:
    yield switched
    switched.restore()


def settings(text: str) -> dict[str, Any]:
    return flatten(yaml.safe_load(text))


def score(project: Project, extractor: str) -> float:
    metrics = json.loads((project.path / "reports/metrics.json").read_text())
    return float(metrics[extractor]["is"])


def test_another_source_needs_no_image_size(switched: Project) -> None:
    before, after = (settings(switched.git("show", f"{commit}:params.yaml")) for commit in ("HEAD~1", "HEAD"))
    assert after == before | {"data.source": "mnist"}
    assert math.isfinite(score(switched, "classifier"))
    report = (switched.path / "reports/report.md").read_text()
    assert "| `data.image_size` | 28 | 8 |" in report
    assert "dvc exp run \\\n  -S data.source=mnist \\\n" in report


@pytest.mark.parametrize(
    "change",
    [
        "sample.sampler=ancestral",
        "sample.sampler=dpm_solver",
        "diffusion.schedule=cosine",
        "train.weighting=min_snr",
        "evaluate.extractor=inception",
    ],
)
def test_another_alternative_needs_no_other_key(change: str, project: Project, tmp_path: Path) -> None:
    key, value = change.split("=")
    extractor = "inception" if value == "inception" else "classifier"
    if extractor == "inception":
        downloads = tmp_path / "hub/checkpoints"  # of torch.hub
        downloads.mkdir(parents=True)
        write_random_weights(downloads / Path(URL_INCEPTION_V3).name)
    before = settings((project.path / "params.yaml").read_text())
    project.run("dvc", "exp", "run", "-S", change, "evaluate", TORCH_HOME=str(tmp_path))
    assert settings((project.path / "params.yaml").read_text()) == before | {key: value}
    assert math.isfinite(score(project, extractor))
