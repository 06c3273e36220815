"""The lines that end a run."""

from typing import Any

import pytest

from ddpm.params import Params
from lab.pages import summary
from tests.lab.tracking.repository import params

MEASURED = {"fid": 1.4554, "fid_floor": 0.48574, "is": 8.6738, "is_real": 9.6551, "precision": 0.70667, "recall": 0.894}
PROTOCOL = {"extractor": "classifier", "samples": 1500}
LINES = """\
digits-ddim50-8bbf: 1500 samples, measured with a classifier trained on these images
  metrics  FID 1.455 (floor 0.4857), Inception Score 8.674 (real images 9.655), precision 0.7067, recall 0.894
  report   reports/index.html
  MLflow   http://server
  next     ddpm compare"""


def text(metrics: dict[str, Any], protocol: dict[str, Any]) -> str:
    return summary.text(metrics, protocol, "digits-ddim50-8bbf", "reports/index.html", "http://server", "ddpm compare")


def test_there_are_five_lines_with_the_numbers_beside_those_of_real_images() -> None:
    assert text({"classifier": {**MEASURED, "kid": 0.1, "class_distance": 0.03}}, PROTOCOL) == LINES


def test_warnings_of_the_protocol_are_mentioned_after_the_metrics() -> None:
    _, second, *others = text({"classifier": {"fid": 2.0}}, PROTOCOL | {"warnings": ["few images"]}).splitlines()
    assert second == "  metrics  FID 2 (see the warnings in the report)"
    assert len(others) == 3
    assert "warnings" not in text({"classifier": {"fid": 2.0}}, PROTOCOL | {"warnings": []})
    useless = {"classifier": {"fid": 2.0, "useless": 1.0}}
    assert "FID 2 (useless, see the warnings in the report)" in text(useless, PROTOCOL | {"warnings": ["few"]})


def test_metrics_of_inception_are_named_after_it() -> None:
    measured = {"inception": {"fid": 3.17, "fid_floor": 2.0}}
    first, second, *_ = text(measured, PROTOCOL | {"extractor": "inception"}).splitlines()
    assert first == "digits-ddim50-8bbf: 1500 samples, measured with InceptionV3"
    assert second == "  metrics  FID 3.17 (floor 2)"


@pytest.mark.parametrize("metrics", [{}, {"classifier": {}}, {"inception": MEASURED}])
def test_missing_metrics_leave_five_lines(metrics: dict[str, Any]) -> None:
    assert text(metrics, PROTOCOL).splitlines()[1] == "  metrics  none"
    assert len(text(metrics, {}).splitlines()) == 5


def test_other_metrics_take_the_place_of_missing_ones() -> None:
    assert "  metrics  FID 2, class distance 0.25, KID nan\n" in text(
        {"classifier": {"fid": 2.0, "class_distance": 0.25, "kid": float("nan")}}, PROTOCOL
    )


def sampled(**changed: Any) -> Params:
    found = params()
    return found.model_copy(update={"sample": found.sample.model_copy(update=changed)})


def test_the_quick_experiment_halves_the_sampling_steps() -> None:
    assert summary.quick_experiment(sampled(steps=51)) == "dvc exp run -S sample.steps=25"


@pytest.mark.parametrize("changed", [{"steps": 1}, {"steps": 3, "spacing": "quad"}])
def test_there_is_no_quick_experiment_where_half_the_steps_are_not_allowed(changed: dict[str, Any]) -> None:
    assert summary.quick_experiment(sampled(**changed)) is None
