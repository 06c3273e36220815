"""Stage reference refuses images that its classifier cannot learn from."""

from pathlib import Path

import pytest
import torch

from ddpm.data import dataset
from ddpm.errors import UsageError
from ddpm.evaluation.extractor import Extractor
from ddpm.evaluation.features import Features
from stages.reference import reference
from tests.evaluation.conftest import stripes
from tests.stages.conftest import changed


def test_features_are_extracted_by_a_compiled_network_if_the_line_says_so(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda network, **_options: compiled.append(network) or network)
    paths = folder / "train.safetensors", folder / "test.safetensors", tmp_path / "extractor", tmp_path / "features"
    for setting, line in ((True, "compiles the network, "), ("auto", "does not compile the network (auto): ")):
        reference(changed(runtime={"compile": setting}), *paths)
        assert f"reference: {line}" in capsys.readouterr().err
    assert len(compiled) == 1


def test_a_single_class_is_refused_before_a_progress_bar_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = stripes(8, 1, 1, classes=1)
    data = tmp_path / "images.safetensors"
    dataset.write(data, images.images.numpy(), images.labels.numpy(), ["rows"], images.image_shape, images.source)
    with pytest.raises(UsageError, match="needs at least two classes, and there is only one: put each class into"):
        reference(changed(), data, data, tmp_path / "extractor", tmp_path / "features")
    assert capsys.readouterr().err == ""


def test_a_classifier_that_diverges_is_an_error_that_names_its_learning_rate(folder: Path, tmp_path: Path) -> None:
    classifier = {"channels": 4, "steps": 40, "batch_size": 32, "learning_rate": 1e3}
    data, out = (folder / "train.safetensors", folder / "test.safetensors"), tmp_path / "extractor.safetensors"
    with pytest.raises(UsageError, match=r"evaluate\.classifier\.learning_rate = 1000\.0: the classifier diverged"):
        reference(changed(evaluate={"classifier": classifier}), *data, out, tmp_path / "features")
    assert not out.exists()


@pytest.mark.parametrize("name", ["features", "logits"])
def test_features_that_are_not_finite_are_an_error_that_names_the_key(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: Extractor, batch: torch.Tensor) -> Features:
        found = Features(torch.zeros(len(batch), 16), torch.zeros(len(batch), 2))
        getattr(found, name)[-1, 0] = torch.inf
        return found

    monkeypatch.setattr(Extractor, "_of", broken)
    data, out = (folder / "train.safetensors", folder / "test.safetensors"), tmp_path / "extractor.safetensors"
    with pytest.raises(UsageError, match=r"not finite numbers; change evaluate\.classifier\.learning_rate"):
        reference(changed(), *data, out, tmp_path / "features")


def test_a_classifier_of_little_accuracy_is_a_line_before_the_training_of_the_model(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = (folder / "train.safetensors", folder / "test.safetensors"), tmp_path / "extractor.safetensors"
    for steps, warned in ((1, True), (40, False)):
        classifier = {"channels": 4, "steps": steps, "batch_size": 32, "learning_rate": 0.02}
        reference(
            changed(evaluate={"classifier": classifier}, runtime={"resume": False}), *data, out, tmp_path / "features"
        )
        assert ("reference: the extractor is useless, and so are its metrics" in capsys.readouterr().err) is warned
