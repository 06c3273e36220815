"""Every experiment that params.yaml accepts ends with metrics: random experiments run through all six stages."""

import json
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sklearn.datasets
import yaml
from hypothesis import HealthCheck, Phase, given, settings

from ddpm.data import shapes
from lab.experiment.dvcfile import flatten
from tests.pipeline.experiments import Values, experiments, write_images
from tests.pipeline.inprocess import STAGES, run, working_in

_IMAGES = 40  # of the sources digits and shapes

common = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True, scope="module")
def few_images() -> Iterator[None]:
    """The sources digits and shapes with few images."""
    digits: Any = sklearn.datasets.load_digits()
    few = SimpleNamespace(images=digits.images[:_IMAGES], target=digits.target[:_IMAGES])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sklearn.datasets, "load_digits", lambda: few)
        patched.setattr(shapes, "COUNT", _IMAGES)
        yield


def measured(values: Values) -> dict[str, float]:
    """The metrics of an experiment, after all stages have run in an empty folder."""
    with tempfile.TemporaryDirectory() as name, working_in(Path(name) / "project") as folder:
        if values["data"]["path"]:
            write_images(folder / "raw" / values["data"]["path"], values["data"]["seed"])
        (folder / "params.yaml").write_text(yaml.safe_dump(values))
        for stage in STAGES:
            run(stage)
        assert (folder / "reports/index.html").exists()
        return flatten(json.loads((folder / "reports/metrics.json").read_text()))


@settings(common, max_examples=4)
@given(experiments())
def test_accepted_experiments_end_with_metrics(values: Values) -> None:
    found = measured(values)
    assert {"classifier.is", "loss.test"} <= found.keys()
    assert all(map(math.isfinite, found.values())), found


@pytest.mark.slow
@settings(common, max_examples=200)
@given(experiments())
def test_200_accepted_experiments_end_with_metrics(values: Values) -> None:
    found = measured(values)
    assert {"classifier.is", "loss.test"} <= found.keys()
    assert all(map(math.isfinite, found.values())), found
