"""Stage evaluate on a tiny conditional model with snapshots."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ddpm import files, tables
from ddpm.data import dataset
from ddpm.evaluation.judge import Judge
from ddpm.network import modelfile
from ddpm.sampling import samples as sample_files
from tests.stages.conftest import Evaluated, changed

CPU = torch.device("cpu")


def test_snapshot_curve_has_the_metrics_of_each_snapshot_and_metrics_have_the_best(
    evaluated: Evaluated, folder: Path, tmp_path: Path
) -> None:
    metrics = evaluated(changed())
    points = tables.read_points(tmp_path / "snapshots.csv")
    judge = Judge.load(folder / "extractor.safetensors", folder / "reference.safetensors", 0, CPU)
    samples = sample_files.read_snapshots(folder / "snapshot-samples.safetensors")
    assert [point["step"] for point in points] == [5, 30, 200]
    for point in points:
        _, fidelity = judge.measure(samples[int(point["step"])])
        assert (point["fid"], point["is"]) == (fidelity.metrics["fid"], fidelity.metrics["is"])
    best = min(points, key=lambda point: point["fid"])
    assert metrics["snapshots"] == {"best_fid": best["fid"], "best_step": best["step"]}


def test_features_are_extracted_by_a_compiled_network_if_the_line_says_so(
    evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda network, **_options: compiled.append(network) or network)
    for setting, line in ((True, "compiles the network, "), ("auto", "does not compile the network (auto): ")):
        evaluated(changed(runtime={"compile": setting}))
        assert f"evaluate: {line}" in capsys.readouterr().err
    assert len(compiled) == 1  # the extractor; losses and likelihood are measured without


def test_likelihood_curve_sums_to_the_bits_per_dimension(evaluated: Evaluated, tmp_path: Path) -> None:
    metrics = evaluated(changed(evaluate={**changed().evaluate.model_dump(), "likelihood_images": 3}))
    points, bound = tables.read_points(tmp_path / "likelihood.csv"), metrics["likelihood"]
    assert [point["t"] for point in points] == list(range(1, 11))
    assert bound["distortion"] == points[0]["bits_per_dim"]
    assert bound["rate"] + bound["distortion"] == pytest.approx(bound["bits_per_dim"])
    assert sum(point["bits_per_dim"] for point in points) + bound["prior"] == pytest.approx(bound["bits_per_dim"])
    protocol = json.loads((tmp_path / "protocol.json").read_text())
    assert (protocol["likelihood_images"], protocol["likelihood_sigma"]) == (3, "large")


def test_without_likelihood_images_the_curve_is_empty_and_there_is_no_metric(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    metrics = evaluated(changed())
    assert (tmp_path / "likelihood.csv").read_text() == "t,bits_per_dim,x_0_error\n"
    assert "likelihood" not in metrics
    assert "likelihood_sigma" not in json.loads((tmp_path / "protocol.json").read_text())


def test_training_images_as_samples_have_class_distance_zero_and_agree_with_their_labels(
    evaluated: Evaluated, folder: Path, tmp_path: Path
) -> None:
    real = dataset.read(folder / "train.safetensors")
    samples, _ = sample_files.read(folder / "samples.safetensors")
    for name, labels in (("right", real.labels), ("wrong", 1 - real.labels)):
        given = replace(samples, images=real.images, labels=labels)
        sample_files.write(tmp_path / f"{name}.safetensors", given)
    written = (tmp_path / f"{name}.safetensors" for name in ("right", "wrong"))
    right, wrong = (evaluated(changed(), samples=samples)["classifier"] for samples in written)
    assert right["class_distance"] == wrong["class_distance"] == 0
    assert right["label_agreement"] > 0.9
    assert right["label_agreement"] + wrong["label_agreement"] == pytest.approx(1)
    assert {share.name: share.data for share in tables.read_shares(tmp_path / "classes.csv")} == {
        share.name: share.samples for share in tables.read_shares(tmp_path / "classes.csv")
    }


def test_class_shares_have_names_and_give_the_class_distance(evaluated: Evaluated, tmp_path: Path) -> None:
    metrics = evaluated(changed())
    found = tables.read_shares(tmp_path / "classes.csv")
    assert [share.name for share in found] == ["rows", "columns"]
    assert sum(share.data for share in found) == sum(share.samples for share in found) == 1
    distance = sum(abs(share.data - share.samples) for share in found) / 2
    assert metrics["classifier"]["class_distance"] == pytest.approx(distance)
    assert distance > 0
    counts = [12, 12]  # labels in turn
    agreed = sum(count * (share.agreement or 0) for count, share in zip(counts, found, strict=True)) / 24
    assert metrics["classifier"]["label_agreement"] == pytest.approx(agreed)


def test_the_loss_on_both_splits_and_the_size_of_the_network_are_measured(
    evaluated: Evaluated, folder: Path, tmp_path: Path
) -> None:
    metrics = evaluated(changed())
    assert set(metrics["loss"]) == {"train", "test"}
    assert all(0 < value < 100 for value in metrics["loss"].values())
    protocol = json.loads((tmp_path / "protocol.json").read_text())
    assert (protocol["loss_images"], protocol["loss_draws"]) == (20, 160)
    weights = files.read_tensors(folder / "model.safetensors", modelfile.FORMAT).tensors
    assert protocol["network_parameters"] == sum(weight.numel() for weight in weights.values())
