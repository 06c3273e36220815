"""Stage reference refuses images that its classifier cannot learn from."""

from pathlib import Path

import pytest
import torch

from ddpm.data import dataset
from ddpm.errors import UsageError
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
