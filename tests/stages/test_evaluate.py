"""Stages sample, evaluate and report on a tiny conditional model with snapshots."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from ddpm import params, tensorfile
from ddpm.data import dataset
from ddpm.network import modelfile
from ddpm.params import Params
from ddpm.reporting import curve, figures, shares
from ddpm.sampling import blocks
from stages.evaluate import Judge, evaluate
from stages.reference import reference
from stages.report import Inputs, report, whole
from stages.sample import animate_denoising, sample, spread
from tests.evaluation.conftest import stripes
from tests.stages.conftest import ROOT

CPU = torch.device("cpu")
Evaluated = Callable[..., dict[str, Any]]


def changed(**sections: dict[str, Any]) -> Params:
    """The committed parameters, made tiny and conditional, with changes."""
    tiny: dict[str, dict[str, Any]] = {
        "diffusion": {"timesteps": 10},
        "network": {"channels": 8, "groups": 4, "conditional": True},
        "train": {"label_dropout": 0.1},
        "sample": {"count": 24, "batch_size": 16, "steps": 3, "guidance": 0.5},
        "evaluate": {"classifier": {"channels": 4, "steps": 40, "batch_size": 32, "learning_rate": 0.02}},
        "runtime": {"device": "cpu", "threads": 1, "deterministic": False},
    }
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    return params.check(values | {key: values[key] | part | sections.get(key, {}) for key, part in tiny.items()})


def model(path: Path, seed: int, size: int = 8, **network: Any) -> None:
    """A model of stripes that has learned nothing."""
    settings = changed()
    built = settings.network.model_copy(update=network)
    description = modelfile.Description(settings.diffusion, built, (1, size, size), ["rows", "columns"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = {
            name: weight + 0.1 * torch.randn(weight.shape) for name, weight in description.build().state_dict().items()
        }
    modelfile.save(path, description, weights)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the outputs of all stages before evaluate."""
    folder = tmp_path_factory.mktemp("stages")
    for split, count, seed in (("train", 48, 1), ("test", 20, 2)):
        made = stripes(count, 1, seed)
        arrays = (made.images.numpy(), made.labels.numpy(), ["rows", "columns"], made.image_shape, {"name": "stripes"})
        dataset.write(folder / f"{split}.safetensors", *arrays)
    reference(changed(), *files(folder, "train", "test", "network", "reference"))
    model(folder / "model.safetensors", 0)
    for step in (5, 30, 200):
        model(folder / f"snapshots/{step:08d}.safetensors", step)
    draw(folder, changed())
    return folder


def files(folder: Path, *names: str) -> list[Path]:
    return [folder / f"{name}.safetensors" for name in names]


def draw(folder: Path, settings: Params, out: Path | None = None) -> None:
    """Run stage sample; its files go to `out`."""
    out = out or folder
    drawn = [
        *files(out, "samples", "of_snapshots"),
        *(out / name for name in ("grid.png", "real.png", "denoising.png", "trajectory.gif", "noising.png")),
    ]
    sample(settings, folder / "model.safetensors", folder / "snapshots", folder / "test.safetensors", *drawn)


@pytest.fixture
def evaluated(place: Path, tmp_path: Path) -> Evaluated:
    """A function that runs stage evaluate and gives its metrics; its files lie in tmp_path."""

    def run(settings: Params, samples: Path = place / "samples.safetensors") -> dict[str, Any]:
        inputs = files(place, "of_snapshots", "train", "test", "network", "reference")
        names = ("metrics.json", "neighbours.png", "likelihood.csv", "snapshots.csv", "classes.csv")
        outputs = [tmp_path / name for name in names]
        evaluate(settings, place / "model.safetensors", samples, *inputs, *outputs)
        return json.loads(outputs[0].read_text())

    return run


def test_under_guidance_samples_carry_all_classes_in_turn(place: Path) -> None:
    file = tensorfile.read(place / "samples.safetensors")
    assert file.tensors["labels"].tolist() == [0, 1] * 12
    drawn = modelfile.load(place / "model.safetensors")
    assert file.tensors["images"].equal(blocks.draw(drawn, changed().sample, file.tensors["labels"]))


def test_without_guidance_samples_are_of_no_class(place: Path, tmp_path: Path) -> None:
    settings = changed(sample={"guidance": None, "count": 5})
    draw(place, settings, tmp_path)
    file = tensorfile.read(tmp_path / "samples.safetensors")
    assert set(file.tensors) == {"images"}
    assert file.tensors["images"].equal(blocks.draw(modelfile.load(place / "model.safetensors"), settings.sample))


def test_every_snapshot_has_the_samples_that_it_draws_itself(place: Path) -> None:
    drawn = tensorfile.read(place / "of_snapshots.safetensors").tensors
    assert set(drawn) == {"00000005", "00000030", "00000200"}
    asked = torch.arange(24) % 2
    for name, images in drawn.items():
        snapshot = modelfile.load(place / f"snapshots/{name}.safetensors")
        assert images.equal(blocks.draw(snapshot, changed().sample, asked))


def test_the_curve_of_snapshots_has_the_fidelity_of_each_and_metrics_the_best(
    evaluated: Evaluated, place: Path, tmp_path: Path
) -> None:
    metrics = evaluated(changed())
    points = curve.read(tmp_path / "snapshots.csv")
    judge = Judge.read(place / "network.safetensors", tensorfile.read(place / "reference.safetensors"), 0, CPU)
    assert [point["step"] for point in points] == [5, 30, 200]
    for point in points:
        shown = tensorfile.read(place / "of_snapshots.safetensors").tensors[f"{point['step']:08.0f}"]
        _, fidelity = judge.compare(shown, "")
        assert (point["fid"], point["is"]) == (fidelity.metrics["fid"], fidelity.metrics["is"])
    best = min(points, key=lambda point: point["fid"])
    assert metrics["snapshots"] == {"best_fid": best["fid"], "best_step": best["step"]}


def test_the_curve_of_the_bound_sums_to_the_bits_per_dimension(evaluated: Evaluated, tmp_path: Path) -> None:
    metrics = evaluated(changed(evaluate={**changed().evaluate.model_dump(), "likelihood_images": 3}))
    points, bound = curve.read(tmp_path / "likelihood.csv"), metrics["likelihood"]
    assert [point["t"] for point in points] == list(range(1, 11))
    assert bound["distortion"] == points[0]["bits_per_dim"]
    assert bound["rate"] + bound["distortion"] == pytest.approx(bound["bits_per_dim"])
    assert sum(point["bits_per_dim"] for point in points) + bound["prior"] == pytest.approx(bound["bits_per_dim"])
    assert (bound["images"], metrics["protocol"]["likelihood_sigma"]) == (3, "large")


def test_without_images_the_bound_is_a_heading_and_no_metric(evaluated: Evaluated, tmp_path: Path) -> None:
    metrics = evaluated(changed())
    assert (tmp_path / "likelihood.csv").read_text() == "t,bits_per_dim,x_0_error\n"
    assert "likelihood" not in metrics
    assert "likelihood_sigma" not in metrics["protocol"]


def test_samples_that_are_the_training_images_have_its_classes_and_the_labels_asked_for(
    evaluated: Evaluated, place: Path, tmp_path: Path
) -> None:
    real = dataset.read(place / "train.safetensors")
    metadata = tensorfile.read_metadata(place / "samples.safetensors")
    for name, asked in (("right", real.labels), ("wrong", 1 - real.labels)):
        tensorfile.write(tmp_path / f"{name}.safetensors", {"images": real.images, "labels": asked}, metadata)
    right, wrong = (evaluated(changed(), tmp_path / f"{name}.safetensors")["classifier"] for name in ("right", "wrong"))
    assert right["class_distance"] == wrong["class_distance"] == 0
    assert right["label_agreement"] > 0.9
    assert right["label_agreement"] + wrong["label_agreement"] == pytest.approx(1)
    assert {share.name: share.data for share in shares.read(tmp_path / "classes.csv")} == {
        share.name: share.samples for share in shares.read(tmp_path / "classes.csv")
    }


def test_class_shares_are_by_name_and_as_far_apart_as_the_metric_says(evaluated: Evaluated, tmp_path: Path) -> None:
    metrics = evaluated(changed())
    found = shares.read(tmp_path / "classes.csv")
    assert [share.name for share in found] == ["rows", "columns"]
    assert sum(share.data for share in found) == sum(share.samples for share in found) == 1
    apart = sum(abs(share.data - share.samples) for share in found) / 2
    assert metrics["classifier"]["class_distance"] == pytest.approx(apart)
    assert apart > 0


def test_real_images_are_spread_over_their_order() -> None:
    images = torch.arange(1000).view(1000, 1, 1, 1)
    assert spread(images, 4).flatten().tolist() == [0, 333, 666, 999]
    assert spread(images[:3], 4).flatten().tolist() == [0, 1, 2]


def test_as_many_real_images_as_samples_are_shown_in_pictures_of_the_same_form(place: Path) -> None:
    with Image.open(place / "grid.png") as drawn, Image.open(place / "real.png") as real:
        assert drawn.width == real.width
        rows = [(picture.height - 2) // 50 for picture in (drawn, real)]
    assert rows == [3, 2]  # 24 samples, and all 20 test images


def test_the_animation_ends_with_the_first_samples(place: Path) -> None:
    samples = tensorfile.read(place / "samples.safetensors").tensors["images"]
    with Image.open(place / "trajectory.gif") as animation:
        assert animation.n_frames == 4  # three steps
        animation.seek(3)
        shown = np.asarray(animation.convert("L"))
    expected = np.asarray(figures.grid(samples[:9], 3))
    assert np.abs(shown.astype(int) - expected).max() <= 1  # rounding of the network in batches of another size


def test_the_animation_of_large_images_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.sample.PIXELS", 500_000)
    model(tmp_path / "large.safetensors", 0, 256, multipliers=[1] * 6, attention=[], conditional=False)
    large = modelfile.load(tmp_path / "large.safetensors")
    settings = changed(sample={"count": 16, "steps": 10, "guidance": None}).sample
    animate_denoising(large, settings, None, tmp_path / "large.gif")
    with Image.open(tmp_path / "large.gif") as animation:
        assert animation.size == (260, 260)  # one image
        assert 2 < animation.n_frames <= 500_000 / 260**2


def test_the_report_draws_the_snapshots_and_tells_the_best_one_and_the_bound(
    evaluated: Evaluated, tmp_path: Path
) -> None:
    settings = changed(evaluate={**changed().evaluate.model_dump(), "likelihood_images": 2})
    metrics = evaluated(settings)
    point = {"step": 7, "loss": 0.5, "gradient_norm": 1.5, "learning_rate": 0.1}
    curve.write(tmp_path / "train.csv", [point, {**point, "step": 200}], list(point))
    names = ("metrics.json", "train.csv", "snapshots.csv", "likelihood.csv", "classes.csv")
    inputs = Inputs(*(tmp_path / name for name in names), ROOT / "recipes/default.yaml")
    outputs = [tmp_path / name for name in ("loss.png", "report.md", "index.html")]
    report(settings, inputs, [], *outputs)
    page = outputs[1].read_text()
    assert f"| `likelihood.bits_per_dim` | {metrics['likelihood']['bits_per_dim']:.4g} |" in page
    assert f"that of step {metrics['snapshots']['best_step']:.0f} has the smallest FID" in page
    assert "FID of snapshots over optimizer step" in outputs[2].read_text()
    with_snapshots = outputs[0].read_bytes()
    curve.write(inputs.snapshots, [], ("step", "fid", "is"))
    report(settings, inputs, [], *outputs)
    assert outputs[0].read_bytes() != with_snapshots
    assert "FID of snapshots over optimizer step" not in outputs[2].read_text()


def test_the_parameters_that_are_shown_say_what_decides_a_result_and_not_where_it_was_made() -> None:
    defaults = yaml.safe_load((ROOT / "recipes/default.yaml").read_text())
    here = changed(runtime={"device": "cpu", "threads": 1, "data_root": "elsewhere", "log_every": 7})
    shown = whole(here, defaults)
    assert shown["runtime"] == {**defaults["runtime"], "threads": 1, "log_every": 7, "deterministic": False}
    assert {key: shown[key] for key in ("network", "sample")} == {
        "network": here.network.model_dump(),
        "sample": here.sample.model_dump(),
    }
    assert params.check(shown).network == here.network
