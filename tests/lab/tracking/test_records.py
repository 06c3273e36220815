"""The experiments as they are read back from MLflow."""

import math
from pathlib import Path

import pytest
from PIL import Image

from ddpm.errors import UsageError
from lab.experiment import identity
from lab.tracking import publish
from lab.tracking.records import Records
from tests.lab.tracking.repository import DIGEST, POINTS, PROTOCOL, edit, params

# MLflow and SQLAlchemy warn about each other.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def published(root: Path) -> Records:
    Image.new("L", (4, 4), 50).save(root / "reports/samples.png")
    assert publish.publish(params(), name="mine")
    return Records(params().tracking)


def test_an_experiment_is_read_as_it_was_published(root: Path) -> None:
    [one] = published(root).experiments()
    assert (one.name, one.status, one.fingerprint) == ("mine", "finished", identity.fingerprint(DIGEST))
    assert one.params == identity.params()
    assert one.metrics["classifier.fid"] == 1.25
    assert one.extractor == PROTOCOL["extractor_digest"]


def test_the_loss_curve_has_every_point(root: Path) -> None:
    records = published(root)
    [one] = records.experiments()
    assert records.loss(one.id) == [(point["step"], point["loss"]) for point in POINTS]


@pytest.mark.parametrize(("metric", "expected"), [("Infinity", math.inf), ("-Infinity", -math.inf)])
def test_an_infinite_metric_is_read_as_infinite(root: Path, metric: str, expected: float) -> None:
    edit(root / "reports/metrics.json", lambda text: text.replace("1.25", metric))
    [one] = published(root).experiments()
    assert one.metrics["classifier.fid"] == expected


def test_samples_are_downloaded_and_damaged_or_missing_ones_are_none(root: Path, tmp_path: Path) -> None:
    records = published(root)
    [one] = records.experiments()
    [original] = (root / "mlartifacts").rglob("samples.png")
    downloaded = records.samples(one.id, tmp_path / "whole")
    assert downloaded is not None
    assert downloaded.read_bytes() == original.read_bytes()
    original.write_bytes(original.read_bytes()[:40])
    assert records.samples(one.id, tmp_path / "damaged") is None
    original.unlink()
    assert records.samples(one.id, tmp_path / "missing") is None


def test_reading_a_store_that_does_not_exist_creates_none(root: Path) -> None:
    (root / "mlflow.db").unlink()
    assert Records(params().tracking).experiments() == []
    assert not (root / "mlflow.db").exists()


@pytest.mark.usefixtures("root")
def test_a_store_that_does_not_answer_is_an_error_without_its_password(down: str) -> None:
    with pytest.raises(UsageError) as caught:
        Records(params(uri=down.replace("//", "//somebody:secret@")).tracking).experiments()
    assert str(caught.value).startswith(f"MLflow at {down.replace('//', '//...@')} cannot be read: ")
    assert "secret" not in str(caught.value)
