"""Samples and the model judged against real images."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from ddpm.evaluation import judge
from ddpm.evaluation.features import Features, Reference
from ddpm.evaluation.fidelity import Fidelity
from ddpm.evaluation.judge import COMPARED, Judge
from ddpm.params import Data
from ddpm.sampling.samples import Samples

FIDELITY = Fidelity({"fid": 1.0}, {"samples": 3}, ["few samples"])
ORIGIN = {"name": "folder", "files_sha256": "f" * 64}


def data(source: str, digest: str | None) -> Data:
    return Data.model_construct(source=source, digest=digest)


def reference() -> Reference:
    nothing = Features(torch.zeros(2, 1), torch.zeros(2, 2))
    return Reference(nothing, nothing, "classifier", "e" * 64, "a" * 64, "b" * 64, ORIGIN)


def test_the_best_snapshot_has_the_smallest_fid() -> None:
    points = [
        {"step": 5, "fid": 3.0, "is": 9.0},
        {"step": 10, "fid": 1.0, "is": 2.0},
        {"step": 20, "fid": 2.0, "is": 3.0},
    ]
    assert judge.best_snapshot(points) == {"snapshots": {"best_fid": 1.0, "best_step": 10}}
    assert judge.best_snapshot([]) == {}


def test_copies_are_found_and_shown_first(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    train, test, samples = (
        torch.randint(0, 256, (count, 1, 4, 6), dtype=torch.uint8, generator=generator) for count in (30, 9, 12)
    )
    samples[7] = train[3]
    found = judge.look_for_copies(samples, train, test, 2, tmp_path / "neighbours.png", torch.device("cpu"))
    assert found["smallest"] == 0
    assert 0 < found["median"] < 255
    assert found["median_of_test"] == pytest.approx(found["median"], rel=0.5)
    with Image.open(tmp_path / "neighbours.png") as picture:
        assert picture.width > picture.height  # two columns beside their labels


def test_the_distance_without_copies_is_the_median_over_test_images(tmp_path: Path) -> None:
    train = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    test = torch.tensor([10, 90, 20], dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2)
    found = judge.look_for_copies(train + 50, train, test, 1, tmp_path / "neighbours.png", torch.device("cpu"))
    assert found == {"smallest": 50, "median": 50, "median_of_test": 20}


@pytest.mark.parametrize(
    ("source", "digest", "pinned"), [("folder", None, False), ("folder", "f", True), ("mnist", None, True)]
)
def test_the_protocol_warns_of_images_that_are_not_pinned(source: str, digest: str | None, pinned: bool) -> None:
    samples = Samples(torch.zeros(COMPARED + 1, 1, 1, 1, dtype=torch.uint8), None, {"steps": 4}, "m" * 64)
    found = judge.protocol(data(source, digest), FIDELITY, samples, "s" * 64, reference())
    assert found["data_pinned"] is pinned
    assert found["warnings"][0] == "few samples"
    assert (f"set data.digest to {'f' * 64}" in str(found["warnings"])) is not pinned
    assert (found["samples"], found["neighbours_images"]) == (3, COMPARED)
    assert (found["model_digest"], found["samples_digest"], found["sample"]) == ("m" * 64, "s" * 64, {"steps": 4})


def test_without_a_classifier_there_are_no_class_metrics() -> None:
    class Inception:
        kind, accuracy = "inception", None

    judging = Judge(Inception(), reference(), 0, torch.device("cpu"))  # type: ignore[arg-type]
    samples = Features(torch.zeros(2, 1), torch.zeros(2, 2))
    assert judging.class_metrics(samples, torch.zeros(2)) == {}
    assert judging.class_shares(samples, None, ["a", "b"]) == []


class Classifier:
    """Stands for a classifier of a given accuracy."""

    kind = "classifier"

    def __init__(self, accuracy: float) -> None:
        self.accuracy = accuracy


def judged(accuracy: float, train: torch.Tensor, classes: int) -> Fidelity:
    """The fidelity of random images to random images with the given training features."""
    logits = torch.randn(len(train), classes, generator=torch.Generator().manual_seed(1))
    real = Features(train, logits)
    origin = Reference(real, real, "classifier", "e" * 64, "a" * 64, "b" * 64, ORIGIN)
    judging = Judge(Classifier(accuracy), origin, 0, torch.device("cpu"))  # type: ignore[arg-type]
    return judging.compare(Features(torch.randn(20, 3, generator=torch.Generator().manual_seed(2)), logits[:20]))


@pytest.mark.parametrize(
    ("accuracy", "classes", "factor", "reasons"),
    [
        (0.5, 3, (1.0, 1.0, 1.0), []),
        (0.49, 3, (1.0, 1.0, 1.0), ["accuracy on test images is 0.49, below 0.50, a quarter"]),
        (1.0, 3, (1.0, 0.0, 0.01), ["the features of all training images vary in one direction only"]),
        (1.0, 2, (1.0, 0.0, 0.01), []),
        (0.1, 2, (0.0, 0.0, 0.0), ["accuracy on test images is 0.10", "the features of all training images are equal"]),
    ],
)
def test_an_extractor_that_does_not_separate_images_is_called_useless(
    accuracy: float, classes: int, factor: tuple[float, ...], reasons: list[str]
) -> None:
    train = torch.randn(40, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor(factor)
    found = judged(accuracy, train, classes)
    flaws = [warning for warning in found.warnings if warning.startswith("the extractor is useless, and so are its")]
    assert found.warnings[: len(flaws)] == flaws
    assert all(reason in flaw for reason, flaw in zip(reasons, flaws, strict=True))
    assert ("useless" in found.metrics) is bool(reasons)
    assert {"fid", "precision"} <= found.metrics.keys()
